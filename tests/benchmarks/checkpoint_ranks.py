"""What one rank of the checkpoint benchmark does: train and save, restore and go on, time a save, count bytes."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pipelines.datasets.store import open_store
from pipelines.errors import ConflictError
from tests.unit.training.training_tasks import ENGINE, STEPS
from training.checkpoint.reader import CheckpointReader
from training.checkpoint.saved import Progress, Save, restore
from training.checkpoint.slices import STATES, box_intervals
from training.data.stream import RowSource
from training.engine import Engine
from training.layout import EngineConfig
from training.model.decoder import ModelConfig
from training.run_log import Attempt, RunLog
from training.schedule import Schedule
from training.start import first_weights

SAVED_AT = 6
MODEL = ModelConfig(vocab_size=61, d_model=24, layers=3, heads=4, kv_heads=2, d_ff=48)
# As wide as the preset `mini`, with fewer tokens: 11 M parameters, 130 MB of masters and moments.
LARGE = ModelConfig(vocab_size=2048, d_model=384, layers=6, heads=6, kv_heads=2, d_ff=1024)


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """A number of ranks and how a model is spread over them."""

    name: str
    world: int
    zero_stage: int
    tensor_parallel: int = 1
    pipeline_stages: int = 1

    @property
    def config(self) -> EngineConfig:
        """The engine's; ZeRO-3 partitions all but the norms."""
        return replace(
            ENGINE,
            zero_stage=self.zero_stage,
            tensor_parallel=self.tensor_parallel,
            pipeline_stages=self.pipeline_stages,
            persist_below_parameters=100,
        )


Owned = list[tuple[str, np.ndarray, dict[str, np.ndarray]]]  # parameter, places in it, values by state


class Trained:
    """An engine on the run's rows."""

    def __init__(self, root: str, layout: Layout) -> None:
        """Its first weights are drawn."""
        self.log = RunLog(open_store(root), "tiny")
        self.source = RowSource(self.log.store, self.log.state.plan)
        self.engine = _engine(self.log, MODEL, layout, self.source)
        self._schedule = Schedule(**self.log.state.recipe["schedule"])
        self.probe = [self.source.row(self.source.batches.select(i)) for i in range(3)]

    def steps(self, first: int, last: int, *, late: int = 0) -> list[float]:
        """Train the steps (first, last]: the loss of each.  `late`: by the rate of so many steps later, a fault."""
        losses = []
        for step in range(first, last):
            engine, batch = self.engine, self.source.batches.batch(step)
            mine = batch.of_rank(engine.data_rank, engine.data_size)
            rows = self.source.rows(mine) if len(mine) else []
            tokens = torch.tensor([sum(row.trained_tokens for row in rows) * engine.speaks])
            torch.distributed.all_reduce(tokens)
            most = math.ceil(len(batch.positions) / engine.data_size)
            micro_steps = math.ceil(most / engine.config.micro_batch_rows)
            end = self.source.batches.batch(min(step + late, STEPS - 1)).end
            rate = self._schedule.learning_rate(end, self.source.plan.end_position)
            outcome = engine.train_step(
                rows, micro_steps=micro_steps, trained_tokens=int(tokens), learning_rate=rate
            )
            nll = torch.tensor([outcome.row_losses.sum() * engine.speaks])
            torch.distributed.all_reduce(nll)
            losses.append(float(nll / tokens))
        return losses

    def owned(self) -> Owned:
        """This rank's part of masters and moments."""
        found = []
        for run in self.engine.fragments(owned=True):
            shape = self.engine.shapes[run.parameter]
            where = box_intervals(shape, run.start, run.size, run.offset, run.tensors["master"].numel())
            places = np.concatenate([np.arange(s, s + n) for s, n in zip(where.starts, where.lengths, strict=True)])
            values = {state: run.tensors[state].detach().cpu().numpy().reshape(-1).copy() for state in STATES}
            found.append((run.parameter, places, values))
        return found

    def save(self, attempt: Attempt | None, number: int) -> Save:
        """The checkpoint of SAVED_AT, uploaded."""
        progress = Progress(step=SAVED_AT, position=self.source.batches.batch(SAVED_AT - 1).end)
        facts = {"attempt": number, "loss": 0.0, "parent": None}
        save = Save(
            self.engine,
            self.log.store,
            "tiny",
            progress,
            folder=f"attempt-{number:04d}",
            model=MODEL,
            probe=self.probe,
            facts=facts,
        )
        save.commit(attempt)
        return save


def _engine(log: RunLog, model: ModelConfig, layout: Layout, source: RowSource) -> Engine:
    return Engine(model, first_weights(log.store, model, 5, None), layout.config, source.shards.special)


def write(root: str, layout: Layout) -> dict[str, Any]:
    """Train to SAVED_AT and save, then go on to the end: the state that was saved, and the losses after it."""
    trained = Trained(root, layout)
    trained.steps(0, SAVED_AT)
    owned = trained.owned()
    trained.save(Attempt(trained.log, {}) if trained.engine.rank == 0 else None, 1)
    return {"owned": owned, "losses": trained.steps(SAVED_AT, STEPS)}


def read(roots: list[str], layout: Layout) -> list[dict[str, Any]]:
    """Restore each root's checkpoint and go on to the end: the state after the load, and the losses."""
    trained, found = Trained(roots[0], layout), []
    for root in roots:
        entry = RunLog(open_store(root), "tiny").state.checkpoint
        restore(trained.engine, CheckpointReader(open_store(root), entry["key"], entry["sha256"]), trained.probe)
        found.append({"owned": trained.owned(), "losses": trained.steps(SAVED_AT, STEPS)})
    return found


def plant(root: str, layout: Layout) -> dict[str, dict[str, Any]]:
    """The same with a fault each: moments lost, the schedule a step late, a checkpoint of an overtaken attempt."""
    trained = Trained(root, layout)
    log = RunLog(open_store(root), "tiny")

    def reader() -> CheckpointReader:
        entry = log.refresh().checkpoint
        return CheckpointReader(log.store, entry["key"], entry["sha256"])

    restore(trained.engine, reader(), trained.probe)
    for fragment in trained.engine.fragments(owned=False):
        for state in STATES[1:]:
            fragment.tensors[state].zero_()
    found = {"moments_zeroed": {"owned": trained.owned(), "losses": trained.steps(SAVED_AT, STEPS)}}
    restore(trained.engine, reader(), trained.probe)
    found["schedule_late"] = {"owned": trained.owned(), "losses": trained.steps(SAVED_AT, STEPS, late=1)}
    restore(trained.engine, reader(), trained.probe)
    trained.steps(SAVED_AT, SAVED_AT + 2)  # what an overtaken attempt trained, and would now call step SAVED_AT
    writer = None
    if trained.engine.rank == 0:
        writer = Attempt(log, {})
        Attempt(RunLog(log.store, "tiny"), {})
    refused = False
    try:
        trained.save(writer, 2)
    except ConflictError:
        refused = True
    found["stale_attempt"] = {"owned": trained.owned(), "losses": trained.steps(SAVED_AT, STEPS), "refused": refused}
    restore(trained.engine, reader(), trained.probe)
    found["after_a_stale_attempt"] = {"owned": trained.owned(), "losses": trained.steps(SAVED_AT, STEPS)}
    return found


def write_large(root: str, layout: Layout, rounds: int) -> dict[str, list[float]]:
    """Seconds that training waits for a save of ours and for torch.save of the same state, in turn; and the uploads."""
    trained = Trained(root, layout)
    engine = _engine(trained.log, LARGE, layout, trained.source)
    attempt = Attempt(trained.log, {}) if engine.rank == 0 else None
    took: dict[str, list[float]] = {"ours": [], "uploaded": [], "torch_save": []}
    buffers = None
    for turn in range(rounds + 1):
        torch.distributed.barrier()
        began = time.perf_counter()
        save = Save(
            engine,
            trained.log.store,
            "tiny",
            Progress(step=turn + 1),
            folder="attempt-0001",
            model=LARGE,
            probe=trained.probe,
            facts={"attempt": 1, "loss": 0.0},
            into=buffers,
        )
        waited = time.perf_counter() - began
        save.wait()
        uploaded = time.perf_counter() - began
        torch.distributed.barrier()
        began = time.perf_counter()
        save.commit(attempt)
        waited += time.perf_counter() - began
        buffers = save.copies
        torch.distributed.barrier()
        began = time.perf_counter()
        body = {f"{run.parameter}.{run.offset}": run.tensors for run in engine.fragments(owned=True)}
        torch.save(body, Path(root, f"rank-{engine.rank}.pt"))
        saved = time.perf_counter() - began
        if turn:
            for name, seconds in (("ours", waited), ("uploaded", uploaded), ("torch_save", saved)):
                took[name].append(seconds)
    return took


def read_large(root: str, layout: Layout) -> float:
    """Bytes of slices that this rank read over the bytes that it holds."""
    trained = Trained(root, layout)
    engine = _engine(trained.log, LARGE, layout, trained.source)
    entry = trained.log.state.checkpoint
    reader = CheckpointReader(trained.log.store, entry["key"], entry["sha256"])
    restore(engine, reader, [])
    held = sum(fragment.tensors["master"].numel() for fragment in engine.fragments(owned=False))
    return reader.bytes_read / (4 * len(STATES) * held)

