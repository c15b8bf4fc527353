"""Pretraining: for every batch of the plan, one update.

The loop is given a store, the name of a run whose plan is in its chain, and this process's layout; it opens
an attempt, goes on from the newest checkpoint, and leaves by finishing the plan, by a request to stop, or
by an error. It knows no Ray. Run again, it reads the same rows from the same position, at any number of
ranks.
"""

from __future__ import annotations

import os
import platform
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any, Literal, NamedTuple, Self

import numpy as np
import torch
from pydantic import TypeAdapter

from pipelines.datasets.store import Store
from pipelines.errors import ConfigError, ConflictError, GristmillError, InputError, IntegrityError
from training.checkpoint.saved import Progress
from training.checkpoint.tiers import Moment, Tiers
from training.data.rows import Void
from training.data.stream import RowSource, RowStream, StepRows
from training.engine import Engine
from training.layout import LAYOUT_FIELDS, EngineConfig
from training.metrics import MetricsWriter, TensorBoardWriter
from training.model.decoder import ModelConfig
from training.preflight import preflight, this_machine
from training.run_log import Attempt, RunLog, RunState
from training.schedule import Schedule
from training.start import first_weights
from training.step_metrics import CellLosses, StepClock, memory, peak_tflops_of, speed, squared_lengths

VOID_SHARE = 1e-5  # of the plan's tokens that may be masked because their page is corrupt; a page always may
_HALF = 1 << 63
_GO_ON, _STOP, _OVERTAKEN, _AMENDED = 0, 1, 2, 3


@dataclass(frozen=True, slots=True, kw_only=True)
class LoopSettings:
    """What may differ from attempt to attempt without changing what is learnt."""

    zero_stage: int = 1
    micro_batch_rows: int = 8
    persist_below_parameters: int = 100_000  # ZeRO-3 keeps smaller parameters whole (DeepSpeed's default)
    tensor_parallel: int = 1
    pipeline_stages: int = 1
    offload: Literal["none", "optimizer", "all"] = "none"
    checkpoint_activations: bool = False
    compile_model: bool = False
    checkpoint_every_steps: int = 50
    local_every_steps: int = 0  # to a folder of each node; 0: never
    local_folder: str = ""
    milestone_every_steps: int = 0  # checkpoints that stay; 0: none
    milestone_every_tokens: int = 0
    keep_last: int = 0  # checkpoints that stay beside the milestones; 0: all
    background_saves: bool = True  # upload while training goes on; copies take 12 bytes a parameter that a rank owns
    probe_rows: int = 2  # a save waits for their forward pass; two, as one may be taken down
    rows_ahead: int = 256
    requests_in_flight: int = 64
    max_voids_of_a_shard: int = 3  # pages that stayed corrupt; also at most VOID_SHARE of the plan's tokens
    max_dropped_updates: int = 20  # in a row
    peak_tflops: float | None = None  # of a GPU, dense; None: by its name, and no utilisation on a CPU
    tensorboard: str = ""  # a folder or s3:// address for event files; empty: none
    control_every_s: float = 2.0  # how often rank 0 looks for a request to stop, and shows itself

    def __post_init__(self) -> None:
        """Refuse what would keep nothing, or write nowhere."""
        counts = ("local_every_steps", "milestone_every_steps", "milestone_every_tokens", "keep_last")
        if self.checkpoint_every_steps < 1 or any(getattr(self, name) < 0 for name in counts):
            told = ", ".join(f"{name} {getattr(self, name)}" for name in ("checkpoint_every_steps", *counts))
            raise ConfigError(f"{told}: expected at least 1 for the first, 0 for the others")
        if bool(self.local_every_steps) != bool(self.local_folder):
            raise ConfigError(
                f"local_every_steps is {self.local_every_steps}, local_folder {self.local_folder!r}",
                mend="give both, or neither",
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingEnd:
    """How the loop left: `finished`, or stopped on request."""

    progress: Progress
    loss: float | None
    finished: bool


def recipe_of(model: ModelConfig, schedule: Schedule, engine: EngineConfig, *, seed: int) -> dict[str, Any]:
    """What a run's chain pins beside the plan: all that changes what is learnt, nothing of the layout."""
    optimizer = {f.name: getattr(engine, f.name) for f in fields(engine) if f.name not in LAYOUT_FIELDS}
    rates = {f.name: getattr(schedule, f.name) for f in fields(schedule)}
    return {"seed": seed, "model": model.to_json(), "schedule": rates, "optimizer": optimizer}


def train(
    store: Store,
    run: str,
    settings: LoopSettings,
    *,
    on_step: Callable[[dict[str, Any]], None] = lambda metrics: None,
    started_by: str = "",
) -> TrainingEnd:
    """Train the run's plan to its end.  Collective: one call on every rank of an existing process group.

    `started_by` names the job in the chain; `on_step` is called with every step's metrics, on every rank.
    """
    attempt = _Attempt.open(store, run, settings, started_by)
    with attempt.stream() as stream:
        for batch in stream:
            agreed = attempt.agree(batch)
            if agreed.order in (_OVERTAKEN, _AMENDED):
                raise attempt.overtaken(agreed.order)
            if agreed.order == _STOP:
                break
            rate = attempt.schedule.learning_rate(batch.batch.end, attempt.plan.end_position)
            update = attempt.update(batch, agreed.tokens, rate)
            attempt.advance(batch, agreed, update)
            on_step(attempt.record(batch, agreed, update, rate))
            attempt.save_where_due()
    return attempt.close()


class _Agreed(NamedTuple):
    """Of a step, equal on all ranks: N, the digest of its rows, what rank 0 has read in the chain, squared document
    lengths, the longest wait for data in seconds."""

    tokens: int
    rows: int
    order: int
    squared: int
    waited: float


class _Update(NamedTuple):
    """Of an update, equal on all ranks: loss of the global batch, norm before clipping; and losses by cell."""

    loss: float
    grad_norm: float
    applied: bool
    by_cell: dict[str, dict[str, float]]


class _Attempt:
    """One rank's part in an attempt: the run's state, the engine, and how far it is."""

    def __init__(
        self, store: Store, run: str, settings: LoopSettings, state: RunState, number: int, writer: Attempt | None
    ) -> None:
        """Everything but the weights' values follows from the run's chain; `writer` is rank 0's."""
        if state.plan is None:
            raise InputError(f"run {run!r} has no plan")
        self._store, self._run, self._settings, self._writer = store, run, settings, writer
        self._number, self._folder = number, f"attempt-{number:04d}"
        self._source = RowSource(store, state.plan, in_flight=settings.requests_in_flight)
        rows = min(settings.probe_rows, self._source.batches.rows)
        probe = [self._source.row(self._source.batches.select(i)) for i in range(rows)]
        self._model = TypeAdapter(ModelConfig).validate_python(state.recipe["model"])
        layout = {name: getattr(settings, name) for name in LAYOUT_FIELDS}
        config = EngineConfig(**layout, **state.recipe["optimizer"])
        machines: list[Any] = [None] * torch.distributed.get_world_size()
        torch.distributed.all_gather_object(machines, this_machine())
        rows, on_gpus = state.plan.segments[-1].rows_per_batch, torch.distributed.get_backend() == "nccl"
        preflight(self._model, config, machines, rows_per_batch=rows, use_gpu=on_gpus)
        weights = first_weights(store, self._model, state.recipe["seed"], state.recipe.get("start"))
        self._engine = Engine(self._model, weights, config, self._source.shards.special)
        self._metrics = MetricsWriter(store, run, self._folder) if writer else None
        self._board: TensorBoardWriter | None = None
        self._clock, self._cells = StepClock(), CellLosses(state.plan)
        self._peak = settings.peak_tflops or _peak_of_this_gpu()
        self._looked, self._shown = time.monotonic(), -1e9
        self._dropped = 0
        self._voids: list[dict[str, Any]] = []
        facts = {
            "identity": state.identity,
            "plan": {"revision": state.revision, "sha256": state.plan.sha256},
            "tokenizer_sha256": self._source.shards.tokenizer["manifest_sha256"],
        }
        self._are_uploaded = (False, False)
        self._tiers = Tiers(
            self._engine,
            store,
            run,
            settings,
            number=number,
            writer=writer,
            model=self._model,
            probe=probe,
            facts=facts,
            before_save=self._metrics.flush if self._metrics else lambda: None,
        )
        self.plan = state.plan
        self.schedule = TypeAdapter(Schedule).validate_python(state.recipe["schedule"])
        self.progress, self.loss = Progress(), None

    @classmethod
    def open(cls, store: Store, run: str, settings: LoopSettings, started_by: str) -> Self:
        """Rank 0 opens the attempt in the chain; all ranks go on from the checkpoint that the chain names there."""
        log, writer = RunLog(store, run), None
        if torch.distributed.get_rank() == 0:
            by = {"job": started_by, "host": platform.node(), "pid": os.getpid()}
            by |= {"world_size": torch.distributed.get_world_size(), "zero_stage": settings.zero_stage}
            writer = Attempt(log, by)
        number, entry = _share([writer.number, log.state.number] if writer else [0, 0])
        state = log.state_at(entry)
        attempt = cls(store, run, settings, state, number, writer)
        if (begun := attempt._tiers.restore(state)) is not None:
            attempt.progress, attempt.loss, attempt._voids = begun
        if settings.tensorboard and writer:
            attempt._board = TensorBoardWriter(settings.tensorboard, run, attempt.progress.step)
        return attempt

    def stream(self) -> RowStream:
        """This rank's rows from here on."""
        return RowStream(
            self._source,
            rank=self._engine.data_rank,
            world_size=self._engine.data_size,
            start_step=self._source.batches.step_at(self.progress.position),
            rows_ahead=self._settings.rows_ahead,
        )

    def agree(self, batch: StepRows) -> _Agreed:
        """The step's one control collective; of every data group only the rank that speaks adds to what is summed."""
        self._clock.lap("other")
        order = _GO_ON
        if self._writer is not None and time.monotonic() - self._looked > self._settings.control_every_s:
            self._looked = time.monotonic()
            state = self._writer.log.refresh()
            if state.attempt != self._writer.number:
                order = _OVERTAKEN
            elif state.revision != self._writer.revision and self.progress.position > state.amended_from:
                order = _AMENDED
            elif state.stop_requested or state.revision != self._writer.revision:
                order = _STOP
        speaks = self._engine.speaks
        digest = batch.digest if batch.digest < _HALF else batch.digest - (1 << 64)
        squared = sum(squared_lengths(row) for row in batch.rows)
        facts = [batch.trained_tokens, digest, len(batch.voids), squared] if speaks else [0] * 4
        waits = [0] * self._engine.world_size
        waits[self._engine.rank] = round(batch.waited_s * 1e6)
        numbers = [*facts, order, *self._tiers.uploaded, *waits]
        vector = torch.tensor(numbers, dtype=torch.int64, device=self._engine.device)
        torch.distributed.all_reduce(vector)  # int64 wraps as the digest's sum mod 2^64 must
        tokens, digest, voids, squared, order, uploaded, local, *waits = (int(value) for value in vector.tolist())
        self._are_uploaded = uploaded == self._engine.world_size, local == self._engine.world_size
        if voids:
            self._add_voids(batch.voids if speaks else [])
        self._clock.lap("control")
        return _Agreed(tokens, digest % (1 << 64), order, squared, max(waits) / 1e6)

    def _add_voids(self, mine: list[Void]) -> None:
        """Keep what any rank had to mask in this step, for the next checkpoint; past the budget the run ends."""
        every: list[list[Void]] = [[] for _ in range(self._engine.world_size)]
        torch.distributed.all_gather_object(every, mine)
        self._voids += [void._asdict() for voids in every for void in voids]
        masked = sum(void["tokens"] for void in self._voids)
        total = self.plan.segments[0].sequence_length * self.plan.end_position
        pages = {(void["shard"], void["page"]) for void in self._voids}
        worst, most = Counter(shard for shard, _ in pages).most_common(1)[0]
        if most >= self._settings.max_voids_of_a_shard or (len(pages) > 1 and masked > VOID_SHARE * total):
            last = self._voids[-1]
            raise IntegrityError(
                f"run {self._run!r}: {len(pages)} corrupt pages ({masked} tokens) were masked up to step "
                f"{self.progress.step}, {most} of them in {worst}; the last is page {last['page']} of "
                f"{last['shard']} ({last['evidence']})",
                key=worst,
                mend="put the object back from a copy (its sha256 is in the manifest's part list); "
                "the same command goes on from the newest checkpoint",
            )

    def update(self, batch: StepRows, tokens: int, rate: float) -> _Update:
        """One optimizer step.  Without labels there is none."""
        if tokens == 0:
            return _Update(0.0, 0.0, False, self._cells.told(np.zeros((2, len(self._cells.names)))))
        most = -(-len(batch.batch.positions) // self._engine.data_size)
        micro_steps = -(-most // self._engine.config.micro_batch_rows)
        outcome = self._engine.train_step(
            batch.rows, micro_steps=micro_steps, trained_tokens=tokens, learning_rate=rate
        )
        self._clock.lap("forward_backward")
        self._clock.move(outcome.optimizer_seconds, "optimizer", out_of="forward_backward")
        mine = batch.batch.of_rank(self._engine.data_rank, self._engine.data_size)
        sums = self._cells.sums(self._source.order.cells_of(mine), batch.rows, outcome.row_losses)
        vector = torch.from_numpy(sums * self._engine.speaks).to(self._engine.device)
        torch.distributed.all_reduce(vector)
        found = vector.cpu().numpy()
        self._clock.lap("control")
        return _Update(float(found[0].sum()) / tokens, outcome.grad_norm, outcome.applied, self._cells.told(found))

    def advance(self, batch: StepRows, agreed: _Agreed, update: _Update) -> None:
        """Count the step; too many dropped updates in a row end the run."""
        self.loss = update.loss
        self.progress = self.progress.after(
            position=batch.batch.end, trained_tokens=agreed.tokens, rows=agreed.rows, applied=update.applied
        )
        self._dropped = 0 if update.applied else self._dropped + 1
        if self._dropped >= self._settings.max_dropped_updates:
            raise GristmillError(
                f"run {self._run!r}: {self._dropped} updates in a row were dropped up to step {self.progress.step}, "
                f"the last with loss {update.loss}",
                mend="look at the rows of these steps; a lower peak_rate in a new run often helps",
            )

    def record(self, batch: StepRows, agreed: _Agreed, update: _Update, rate: float) -> dict[str, Any]:
        """The step's metrics; rank 0 keeps them, and shows them now and then."""
        positions, world = len(batch.batch.positions), self._engine.world_size
        times = self._clock.end(batch.waited_s, agreed.waited)
        shown = positions * self.plan.segments[batch.batch.segment].sequence_length
        metrics = {
            **self.progress.to_json(),
            "loss": update.loss,
            "grad_norm": update.grad_norm,
            "learning_rate": rate,
            "batch_tokens": agreed.tokens,
            "applied": update.applied,
            **update.by_cell,
            **times,
            **speed(self._model, shown, agreed.squared, times["seconds"], world, self._peak),
            **memory(),
        }
        if self._metrics is not None:
            self._metrics.add(metrics)
            if self._board is not None:
                self._board.add(metrics)
            if time.monotonic() - self._shown > self._settings.control_every_s:
                self._shown = time.monotonic()
                self._metrics.show({**metrics, "steps": self._source.batches.steps, "attempt": self._folder})
        return metrics

    def save_where_due(self) -> None:
        """Commit the checkpoints that all ranks have uploaded, and begin the next where one is due."""
        self._clock.lap("other")
        store, local = self._are_uploaded
        self._tiers.commit(store=store, local=local)
        self._tiers.save_where_due(self._now)
        self._clock.lap("save_wait")

    @property
    def _now(self) -> Moment:
        return Moment(self.progress, self.loss, self._voids)

    def close(self) -> TrainingEnd:
        """Save what is not saved, and say in the chain how the attempt ended."""
        finished = self.progress.step == self._source.batches.steps
        if self._writer is not None and self._writer.log.refresh().revision != self._writer.revision:
            finished = False  # there is more to train, by a newer plan
        self._tiers.finish(self._now)
        if self._writer is not None:
            self._writer.add("finished" if finished else "stopped", {"loss": self.loss, **self.progress.to_json()})
        if self._board is not None:
            self._board.close()
        self._tiers.clean(finished=finished)
        return TrainingEnd(progress=self.progress, loss=self.loss, finished=finished)

    def overtaken(self, order: int) -> ConflictError:
        """What every rank leaves with where a newer attempt, or a newer plan of what it has trained, has the run."""
        if order == _AMENDED:
            return ConflictError(
                f"run {self._run!r} was amended from a position on that lies before {self.progress.position}; what "
                f"attempt {self._number} trained after its newest checkpoint is dropped",
                mend="the same command goes on from the newest checkpoint, by the new plan",
            )
        return ConflictError(
            f"run {self._run!r}: a newer attempt than {self._number} was opened; this one may write nothing more",
            mend="let the newer attempt train; nothing was lost",
        )


def _peak_of_this_gpu() -> float | None:
    return peak_tflops_of(torch.cuda.get_device_name()) if torch.cuda.is_available() else None


def _share(numbers: list[int]) -> list[int]:
    """Rank 0's integers on every rank."""
    device = "cuda" if torch.distributed.get_backend() == "nccl" else "cpu"
    vector = torch.tensor(numbers, dtype=torch.int64, device=device)
    torch.distributed.broadcast(vector, 0)
    return [int(value) for value in vector.tolist()]
