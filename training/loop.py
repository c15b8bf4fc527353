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
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any

import torch
from pydantic import TypeAdapter

from pipelines.datasets.store import Store
from pipelines.errors import ConflictError, GristmillError, InputError
from training.checkpoint.reader import CheckpointReader
from training.checkpoint.saved import Progress, restore, save
from training.data.rows import RowArrays
from training.data.stream import RowSource, RowStream, StepRows
from training.engine import Engine, EngineConfig
from training.metrics import MetricsWriter
from training.model.decoder import Decoder, ModelConfig, initialise
from training.run_log import Attempt, RunLog
from training.schedule import Schedule

LAYOUT_FIELDS = ("zero_stage", "micro_batch_rows", "persist_below_parameters")
_HALF = 1 << 63
_GO_ON, _STOP, _FENCED = 0, 1, 2


@dataclass(frozen=True, slots=True, kw_only=True)
class LoopSettings:
    """What may differ from attempt to attempt without changing what is learnt."""

    zero_stage: int = 1
    micro_batch_rows: int = 8
    persist_below_parameters: int = 100_000  # ZeRO-3 keeps smaller parameters whole (DeepSpeed's default)
    checkpoint_every_steps: int = 50
    probe_rows: int = 4
    rows_ahead: int = 64
    requests_in_flight: int = 8
    max_dropped_updates: int = 20  # in a row
    control_every_s: float = 2.0  # how often rank 0 looks for a request to stop, and shows itself


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
    world_size, rank = torch.distributed.get_world_size(), torch.distributed.get_rank()
    log = RunLog(store, run)
    by = {"job": started_by, "host": platform.node(), "pid": os.getpid()}
    by |= {"world_size": world_size, "zero_stage": settings.zero_stage}
    attempt = Attempt(log, by) if rank == 0 else None
    number, entry = _share([attempt.number, log.state.number] if attempt else [0, 0])
    state = log.state_at(entry)
    if state.plan is None:
        raise InputError(f"run {run!r} has no plan")

    source = RowSource(store, state.plan)
    probe = [source.row(source.batches.select(i)) for i in range(min(settings.probe_rows, source.batches.rows))]
    model = TypeAdapter(ModelConfig).validate_python(state.recipe["model"])
    schedule = TypeAdapter(Schedule).validate_python(state.recipe["schedule"])
    layout = {name: getattr(settings, name) for name in LAYOUT_FIELDS}
    optimizer = EngineConfig(**layout, **state.recipe["optimizer"])
    engine = Engine(initialise(Decoder(model), state.recipe["seed"]), optimizer, source.shards.special)
    progress, parent = Progress(), None
    if state.checkpoint is not None:
        parent = {name: state.checkpoint[name] for name in ("number", "key", "sha256")}
        progress = restore(engine, CheckpointReader(store, parent["key"], parent["sha256"]), probe)

    session = _Session(store, run, settings, attempt, f"attempt-{number:04d}", source, engine, probe)
    session.facts = {
        "plan": {"revision": state.revision, "sha256": state.plan.sha256},
        "parent": parent,
        "tokenizer_sha256": source.shards.tokenizer["manifest_sha256"],
    }
    loss = state.checkpoint["loss"] if state.checkpoint else None
    dropped, saved_step = 0, progress.step if parent else -1
    with RowStream(
        source,
        rank=rank,
        world_size=world_size,
        start_step=source.batches.step_at(progress.position),
        rows_ahead=settings.rows_ahead,
        requests_in_flight=settings.requests_in_flight,
    ) as stream:
        for batch in stream:
            started = time.perf_counter()
            tokens, rows_digest, order = session.agree(batch)
            if order == _FENCED:
                raise ConflictError(
                    f"run {run!r}: a newer attempt than {number} has been opened; this one may write nothing more",
                    mend="let the newer attempt train; nothing was lost",
                )
            if order == _STOP:
                break
            position = batch.batch.end
            rate = schedule.learning_rate(position, state.plan.end_position)
            loss, grad_norm, applied = session.update(batch, tokens, rate)
            progress = progress.after(position=position, trained_tokens=tokens, rows=rows_digest, applied=applied)
            metrics = {
                **progress.to_json(),
                "loss": loss,
                "grad_norm": grad_norm,
                "learning_rate": rate,
                "batch_tokens": tokens,
                "applied": applied,
                "seconds": time.perf_counter() - started,
            }
            session.record(metrics)
            on_step(metrics)
            dropped = 0 if applied else dropped + 1
            if dropped >= settings.max_dropped_updates:
                raise GristmillError(
                    f"run {run!r}: {dropped} updates in a row were dropped up to step {progress.step} "
                    f"(loss {loss}, gradient norm {grad_norm})",
                    mend="look at the rows of these steps; a lower peak_rate in a new run often helps",
                )
            if progress.step % settings.checkpoint_every_steps == 0:
                session.save(model, progress, loss)
                saved_step = progress.step
    finished = progress.position == state.plan.end_position
    if saved_step != progress.step:
        session.save(model, progress, loss)
    if attempt is not None:
        attempt.add("finished" if finished else "stopped", {"loss": loss, **progress.to_json()})
    torch.distributed.barrier()
    return TrainingEnd(progress=progress, loss=loss, finished=finished)


class _Session:
    """What the steps of one attempt share."""

    def __init__(
        self,
        store: Store,
        run: str,
        settings: LoopSettings,
        attempt: Attempt | None,
        folder: str,
        source: RowSource,
        engine: Engine,
        probe: list[RowArrays],
    ) -> None:
        self._store, self._run, self._settings, self._attempt = store, run, settings, attempt
        self._folder, self._source, self._engine, self._probe = folder, source, engine, probe
        self._metrics = MetricsWriter(store, run, folder) if attempt else None
        self._looked, self._shown = time.monotonic(), -1e9
        self.facts: dict[str, Any] = {}

    def agree(self, batch: StepRows) -> tuple[int, int, int]:
        """The step's one control collective: (N, the digest of all rows, what rank 0 has read in the chain)."""
        order = _GO_ON
        if self._attempt is not None and time.monotonic() - self._looked > self._settings.control_every_s:
            self._looked = time.monotonic()
            state = self._attempt.log.refresh()
            if state.attempt != self._attempt.number:
                order = _FENCED
            elif state.stop_requested:
                order = _STOP
        digest = batch.digest if batch.digest < _HALF else batch.digest - (1 << 64)
        vector = torch.tensor([batch.trained_tokens, digest, order], dtype=torch.int64, device=self._engine.device)
        torch.distributed.all_reduce(vector)  # int64 wraps as the digest's sum mod 2^64 must
        tokens, digest, order = (int(value) for value in vector.tolist())
        return tokens, digest % (1 << 64), order

    def update(self, batch: StepRows, tokens: int, rate: float) -> tuple[float, float, bool]:
        """One optimizer step: (global loss, gradient norm, was it applied).  Without labels there is none."""
        if tokens == 0:
            return 0.0, 0.0, False
        most = -(-len(batch.batch.positions) // self._engine.world_size)
        micro_steps = -(-most // self._engine.config.micro_batch_rows)
        outcome = self._engine.train_step(
            batch.rows, micro_steps=micro_steps, trained_tokens=tokens, learning_rate=rate
        )
        nll = torch.tensor([outcome.nll_sum], dtype=torch.float64, device=self._engine.device)
        torch.distributed.all_reduce(nll)
        return float(nll) / tokens, outcome.grad_norm, outcome.applied

    def record(self, metrics: dict[str, Any]) -> None:
        """Keep a step's metrics, and show it now and then."""
        if self._metrics is not None:
            self._metrics.add(metrics)
            if time.monotonic() - self._shown > self._settings.control_every_s:
                self._shown = time.monotonic()
                self._metrics.show({**metrics, "steps": self._source.batches.steps, "attempt": self._folder})

    def save(self, model: ModelConfig, progress: Progress, loss: float | None) -> None:
        """Metrics first, then the checkpoint that covers them."""
        if self._metrics is not None:
            self._metrics.flush()
        save(
            self._engine,
            self._store,
            self._run,
            self._attempt,
            progress,
            folder=self._folder,
            model=model,
            probe=self._probe,
            facts={**self.facts, "loss": loss},
        )
        if self._attempt is not None:
            state = self._attempt.log.state.checkpoint or {}
            self.facts["parent"] = {name: state[name] for name in ("number", "key", "sha256")}


def _share(numbers: list[int]) -> list[int]:
    """Rank 0's integers on every rank."""
    device = "cuda" if torch.distributed.get_backend() == "nccl" else "cpu"
    vector = torch.tensor(numbers, dtype=torch.int64, device=device)
    torch.distributed.broadcast(vector, 0)
    return [int(value) for value in vector.tolist()]
