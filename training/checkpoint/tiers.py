"""Where an attempt's checkpoints go and come from: the store and the nodes' folders, and what is on its way there."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Sequence
from dataclasses import fields
from typing import Any, NamedTuple, Protocol

import torch

from pipelines.datasets.store import Store
from pipelines.errors import IntegrityError, MissingObjectError, StoreError
from training.checkpoint.local import LocalCheckpoint, LocalTier
from training.checkpoint.reader import CheckpointReader
from training.checkpoint.retention import Retention, is_milestone
from training.checkpoint.saved import HostRun, Progress, Save, TrainedModel, fill, prove, read_runs
from training.data.rows import RowArrays
from training.model.decoder import ModelConfig
from training.run_log import Attempt, RunState


class TierSettings(Protocol):
    """How often, where to, and what stays; 0 and an empty folder: not."""

    @property
    def checkpoint_every_steps(self) -> int:
        """To the store."""
        ...

    @property
    def local_every_steps(self) -> int:
        """To the folder of each node."""
        ...

    @property
    def local_folder(self) -> str:
        """On the node's own disk."""
        ...

    @property
    def milestone_every_steps(self) -> int:
        """Checkpoints that stay."""
        ...

    @property
    def milestone_every_tokens(self) -> int:
        """The same, by trained tokens."""
        ...

    @property
    def keep_last(self) -> int:
        """Checkpoints that stay beside the milestones; 0: all."""
        ...

    @property
    def background_saves(self) -> bool:
        """Upload while training goes on."""
        ...


class Moment(NamedTuple):
    """What a checkpoint holds beside the engine's state: how far the run is, its loss, the pages masked so far."""

    progress: Progress
    loss: float | None
    voids: list[dict[str, Any]]


class Tiers:
    """One rank's checkpoints.  Every method but `uploaded` is collective: one call on every rank."""

    def __init__(
        self,
        engine: TrainedModel,
        store: Store,
        run: str,
        settings: TierSettings,
        *,
        number: int,
        writer: Attempt | None,
        model: ModelConfig,
        probe: Sequence[RowArrays],
        facts: dict[str, Any],
        before_save: Callable[[], None],
    ) -> None:
        """`writer`: rank 0's attempt `number`; `facts` stand in every checkpoint; `before_save` is called first."""
        self._engine, self._store, self._run, self._settings = engine, store, run, settings
        self._writer, self._folder = writer, f"attempt-{number:04d}"
        self._model, self._probe, self._before_save = model, probe, before_save
        self._facts: dict[str, Any] = {**facts, "attempt": number, "parent": None}
        self._retention = Retention(writer, settings.keep_last) if writer else None
        self._local = LocalTier(settings.local_folder, run) if settings.local_folder else None
        self._in_flight: tuple[Save, bool] | None = None  # to the store; is it a milestone
        self._local_in_flight: Save | None = None
        self._buffers: dict[str, list[HostRun]] = {}  # of the saves that have ended, by the store that they went to
        self._saved: Progress | None = None  # by the newest checkpoint of the store

    def restore(self, state: RunState) -> Moment | None:
        """Go on from the nearest checkpoint that is whole: of the nodes' folders, then of the store, newest first.

        None where there is none yet; IntegrityError where all are damaged.
        """
        self._know(state.checkpoint)
        for local in self._local.agreed(state, world_size=self._engine.world_size) if self._local else ():
            if (found := self._restore_locally(self._local, local)) is not None:
                return found
        failures: list[str] = []
        for entry in reversed(state.kept):
            reader, failure = self._filled(entry)
            if _all(reader is not None) and reader is not None:
                self._know(entry)
                moment = self._proven(reader)
                if failures:
                    self._tell_of_damage(moment.progress.step, failures)
                return moment
            failures.append(f"step {entry['step']}: {failure or 'another rank could not read it'}")
        if failures:
            raise IntegrityError(
                f"run {self._run!r} has no whole checkpoint: " + "; ".join(failures),
                key=(state.checkpoint or {}).get("key"),
                mend="put the objects back from a copy, or branch from a run that has them",
            )
        return None

    @property
    def uploaded(self) -> tuple[bool, bool]:
        """Whether this rank's upload to the store, and to its node's folder, has ended."""
        return (
            self._in_flight is not None and self._in_flight[0].is_uploaded,
            self._local_in_flight is not None and self._local_in_flight.is_uploaded,
        )

    def commit(self, *, store: bool, local: bool) -> None:
        """Commit what all ranks said is uploaded."""
        if store:
            self._commit()
        if local:
            self._commit_locally()

    def save_where_due(self, now: Moment) -> None:
        """A checkpoint where the settings want one after this step: in the store, or else in the nodes' folders."""
        step, s = now.progress.step, self._settings
        if step % s.checkpoint_every_steps == 0 or self._is_milestone(now.progress):
            self.save(now)
        elif self._local is not None and step % s.local_every_steps == 0:
            self._commit_locally()
            self._local_in_flight = self._begin_save(self._local.store, now)
            if not s.background_saves:
                self._commit_locally()

    def save(self, now: Moment) -> None:
        """A checkpoint to the store; one is in flight at a time."""
        self._commit()
        self._in_flight = self._begin_save(self._store, now), self._is_milestone(now.progress)
        self._saved = now.progress
        if not self._settings.background_saves:
            self._commit()

    def finish(self, now: Moment) -> None:
        """Save what is not saved, and wait for it."""
        if self._saved != now.progress:
            self.save(now)
        self._commit()
        if self._local_in_flight is not None:
            self._local_in_flight.wait()

    def clean(self, *, finished: bool) -> None:
        """Remove what is old; of a finished run, what lies in the nodes' folders."""
        if self._retention is not None:
            self._retention.finish()
        torch.distributed.barrier()
        if finished and self._local is not None:
            self._local.clear()

    def _begin_save(self, store: Store, now: Moment) -> Save:
        self._before_save()
        return Save(
            self._engine,
            store,
            self._run,
            now.progress,
            folder=self._folder,
            model=self._model,
            probe=self._probe,
            facts={**self._facts, "loss": now.loss, "voids": list(now.voids)},
            into=self._buffers.pop(store.location, None),
        )

    def _is_milestone(self, now: Progress) -> bool:
        before = self._saved or Progress()
        return is_milestone(
            (before.step, before.trained_tokens),
            (now.step, now.trained_tokens),
            every_steps=self._settings.milestone_every_steps,
            every_tokens=self._settings.milestone_every_tokens,
        )

    def _commit(self) -> None:
        if self._in_flight is None:
            return
        save, milestone = self._in_flight
        save.commit(self._writer, milestone=milestone)
        self._in_flight, self._buffers[self._store.location] = None, save.copies
        if self._writer is not None and self._retention is not None:
            self._facts["parent"] = _named(self._writer.log.state.checkpoint or {})
            self._retention.begin()

    def _commit_locally(self) -> None:
        """A local checkpoint that a rank could not write is left out: the store has the run's."""
        if self._local_in_flight is None or self._local is None:
            return
        with contextlib.suppress(StoreError):
            self._local_in_flight.commit_beside()
            self._local.remove_old()
        self._buffers[self._local.store.location] = self._local_in_flight.copies
        self._local_in_flight = None

    def _know(self, entry: dict[str, Any] | None) -> None:
        """What the chain says of the checkpoint that is gone on from."""
        if entry is not None:
            self._facts["parent"] = _named(entry)
            self._saved = Progress.from_json({f.name: entry[f.name] for f in fields(Progress)})

    def _filled(self, entry: dict[str, Any]) -> tuple[CheckpointReader | None, str]:
        """This rank's fragments from a checkpoint of the store, or why that failed."""
        try:
            reader = CheckpointReader(self._store, entry["key"], entry["sha256"])
            fill(self._engine, reader)
        except (IntegrityError, MissingObjectError) as error:
            return None, str(error.args[0])
        return reader, ""

    def _restore_locally(self, tier: LocalTier, local: LocalCheckpoint) -> Moment | None:
        """Where every rank found all that it holds whole in its folder.

        Nothing is filled before all have read: where no checkpoint is left, the run begins with its first weights.
        """
        found = None
        with contextlib.suppress(IntegrityError, StoreError):
            reader = CheckpointReader(tier.store, local.key, local.sha256, in_part=True)
            found = reader, list(read_runs(self._engine, reader))
        if not _all(found is not None) or found is None:
            return None
        fill(self._engine, *found)
        return self._proven(found[0])

    def _proven(self, reader: CheckpointReader) -> Moment:
        progress = prove(self._engine, reader, self._probe)
        return Moment(progress, reader.body["loss"], list(reader.body.get("voids", ())))

    def _tell_of_damage(self, step: int, failures: list[str]) -> None:
        """Keep what was wrong with newer checkpoints: the run goes on, and a person should know."""
        if self._writer is not None:
            note = {"error": "IntegrityError", "message": f"went on from step {step}", "seen": failures}
            self._store.put(f"runs/{self._run}/incidents/{self._folder}.json", json.dumps(note, indent=1).encode())


def _named(checkpoint: dict[str, Any]) -> dict[str, Any]:
    return {name: checkpoint[name] for name in ("number", "key", "sha256")}


def _all(holds: bool) -> bool:
    """Whether it holds on every rank."""
    device = "cuda" if torch.distributed.get_backend() == "nccl" else "cpu"
    vector = torch.tensor([int(holds)], device=device)
    torch.distributed.all_reduce(vector, torch.distributed.ReduceOp.MIN)
    return bool(vector.item())
