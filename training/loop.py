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
from typing import Any, Literal, Self

import torch
from pydantic import TypeAdapter

from pipelines.datasets.store import Store
from pipelines.errors import ConflictError, GristmillError, InputError, IntegrityError
from training.checkpoint.reader import CheckpointReader
from training.checkpoint.saved import Progress, Save, restore
from training.data.rows import Void
from training.data.stream import RowSource, RowStream, StepRows
from training.engine import Engine
from training.layout import LAYOUT_FIELDS, EngineConfig
from training.metrics import MetricsWriter
from training.model.decoder import ModelConfig
from training.run_log import Attempt, RunLog, RunState
from training.schedule import Schedule
from training.start import first_weights

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
    background_saves: bool = True  # upload while training goes on; copies take 12 bytes a parameter that a rank owns
    probe_rows: int = 4
    rows_ahead: int = 256
    requests_in_flight: int = 64
    max_voids_of_a_shard: int = 3  # pages that stayed corrupt; also at most VOID_SHARE of the plan's tokens
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
    attempt = _Attempt.open(store, run, settings, started_by)
    with attempt.stream() as stream:
        for batch in stream:
            started = time.perf_counter()
            tokens, rows, order = attempt.agree(batch)
            if order in (_OVERTAKEN, _AMENDED):
                raise attempt.overtaken(order)
            if order == _STOP:
                break
            rate = attempt.schedule.learning_rate(batch.batch.end, attempt.plan.end_position)
            loss, grad_norm, applied = attempt.update(batch, tokens, rate)
            attempt.advance(batch, tokens, rows, loss, applied)
            metrics = {
                **attempt.progress.to_json(),
                "loss": loss,
                "grad_norm": grad_norm,
                "learning_rate": rate,
                "batch_tokens": tokens,
                "applied": applied,
                "seconds": time.perf_counter() - started,
                "data_wait_seconds": batch.waited_s,
                "save_wait_seconds": attempt.take_stall(),
            }
            attempt.record(metrics)
            on_step(metrics)
            attempt.commit_uploaded()
            if attempt.progress.step % settings.checkpoint_every_steps == 0:
                attempt.save()
    return attempt.close()


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
        self._probe = [self._source.row(self._source.batches.select(i)) for i in range(rows)]
        self._model = TypeAdapter(ModelConfig).validate_python(state.recipe["model"])
        layout = {name: getattr(settings, name) for name in LAYOUT_FIELDS}
        config = EngineConfig(**layout, **state.recipe["optimizer"])
        weights = first_weights(store, self._model, state.recipe["seed"], state.recipe.get("start"))
        self._engine = Engine(self._model, weights, config, self._source.shards.special)
        self._metrics = MetricsWriter(store, run, self._folder) if writer else None
        self._looked, self._shown = time.monotonic(), -1e9
        self._dropped, self._saved_step = 0, -1
        self._voids: list[dict[str, Any]] = []
        self._in_flight: Save | None = None
        self._stalled = 0.0
        self._are_uploaded = False
        self._facts: dict[str, Any] = {
            "plan": {"revision": state.revision, "sha256": state.plan.sha256},
            "parent": None,
            "tokenizer_sha256": self._source.shards.tokenizer["manifest_sha256"],
        }
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
        if state.checkpoint is not None:
            attempt._restore(state.checkpoint)
        return attempt

    def stream(self) -> RowStream:
        """This rank's rows from here on."""
        return RowStream(
            self._source,
            rank=self._engine.rank,
            world_size=self._engine.world_size,
            start_step=self._source.batches.step_at(self.progress.position),
            rows_ahead=self._settings.rows_ahead,
        )

    def agree(self, batch: StepRows) -> tuple[int, int, int]:
        """The step's one control collective: (N, the digest of all rows, what rank 0 has read in the chain)."""
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
        digest = batch.digest if batch.digest < _HALF else batch.digest - (1 << 64)
        is_uploaded = self._in_flight is not None and self._in_flight.is_uploaded
        facts = [batch.trained_tokens, digest, order, len(batch.voids), is_uploaded]
        vector = torch.tensor(facts, dtype=torch.int64, device=self._engine.device)
        torch.distributed.all_reduce(vector)  # int64 wraps as the digest's sum mod 2^64 must
        tokens, digest, order, voids, uploaded = (int(value) for value in vector.tolist())
        self._are_uploaded = uploaded == self._engine.world_size
        if voids:
            self._add_voids(batch.voids)
        return tokens, digest % (1 << 64), order

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

    def advance(self, batch: StepRows, tokens: int, rows: int, loss: float, applied: bool) -> None:
        """Count the step; too many dropped updates in a row end the run."""
        self.loss = loss
        self.progress = self.progress.after(position=batch.batch.end, trained_tokens=tokens, rows=rows, applied=applied)
        self._dropped = 0 if applied else self._dropped + 1
        if self._dropped >= self._settings.max_dropped_updates:
            raise GristmillError(
                f"run {self._run!r}: {self._dropped} updates in a row were dropped up to step {self.progress.step}, "
                f"the last with loss {loss}",
                mend="look at the rows of these steps; a lower peak_rate in a new run often helps",
            )

    def record(self, metrics: dict[str, Any]) -> None:
        """Keep a step's metrics, and show it now and then."""
        if self._metrics is not None:
            self._metrics.add(metrics)
            if time.monotonic() - self._shown > self._settings.control_every_s:
                self._shown = time.monotonic()
                self._metrics.show({**metrics, "steps": self._source.batches.steps, "attempt": self._folder})

    def save(self) -> None:
        """Metrics first, then the checkpoint that covers them; one is in flight at a time."""
        began = time.perf_counter()
        self._commit()
        if self._metrics is not None:
            self._metrics.flush()
        self._in_flight = Save(
            self._engine,
            self._store,
            self._run,
            self.progress,
            folder=self._folder,
            model=self._model,
            probe=self._probe,
            facts={**self._facts, "loss": self.loss, "voids": list(self._voids)},
        )
        self._saved_step = self.progress.step
        if not self._settings.background_saves:
            self._commit()
        self._stalled = time.perf_counter() - began

    def take_stall(self) -> float:
        """Seconds that training has waited for a checkpoint since the last step."""
        stalled, self._stalled = self._stalled, 0.0
        return stalled

    def commit_uploaded(self) -> None:
        """Commit the checkpoint in flight where all ranks said that it is uploaded."""
        if self._are_uploaded:
            self._commit()

    def _commit(self) -> None:
        if self._in_flight is None:
            return
        self._in_flight.commit(self._writer)
        self._in_flight, self._are_uploaded = None, False
        if self._writer is not None:
            self._facts["parent"] = _named(self._writer.log.state.checkpoint or {})

    def close(self) -> TrainingEnd:
        """Save what is not saved, and say in the chain how the attempt ended."""
        finished = self.progress.step == self._source.batches.steps
        if self._writer is not None and self._writer.log.refresh().revision != self._writer.revision:
            finished = False  # there is more to train, by a newer plan
        if self._saved_step != self.progress.step:
            self.save()
        self._commit()
        if self._writer is not None:
            self._writer.add("finished" if finished else "stopped", {"loss": self.loss, **self.progress.to_json()})
        torch.distributed.barrier()
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

    def _restore(self, entry: dict[str, Any]) -> None:
        parent = _named(entry)
        reader = CheckpointReader(self._store, parent["key"], parent["sha256"])
        self.progress, self.loss = restore(self._engine, reader, self._probe), entry["loss"]
        self._voids = list(reader.body.get("voids", ()))
        self._facts["parent"], self._saved_step = parent, self.progress.step


def _named(checkpoint: dict[str, Any]) -> dict[str, Any]:
    return {name: checkpoint[name] for name in ("number", "key", "sha256")}


def _share(numbers: list[int]) -> list[int]:
    """Rank 0's integers on every rank."""
    device = "cuda" if torch.distributed.get_backend() == "nccl" else "cpu"
    vector = torch.tensor(numbers, dtype=torch.int64, device=device)
    torch.distributed.broadcast(vector, 0)
    return [int(value) for value in vector.tolist()]
