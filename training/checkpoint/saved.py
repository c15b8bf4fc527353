"""Saving a run's state and going on from it, at any world size and ZeRO stage.

Every rank copies the slices that it owns to host memory and uploads them from a thread, under its attempt, while
training goes on; the hashes of their tables are gathered, which is also the proof that all uploads are done; then rank
0 puts the checkpoint's JSON and adds it to the run's chain. A checkpoint exists when the chain says so; one in the
nodes' own folders (`local`) is in no chain, there every rank puts the JSON beside its slices. What is saved of the data
stream is one integer. The loss on a fixed probe batch is stored and compared after every load: weights that were
restored wrongly are found before they train.
"""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Protocol

import numpy as np
import torch

from pipelines.datasets.store import Store
from pipelines.errors import GristmillError, IntegrityError, StoreError
from training.checkpoint.reader import FORMAT, CheckpointReader
from training.checkpoint.slices import STATES, OwnedRun, table_key, write_slices
from training.data.rows import RowArrays, chain_digest
from training.model.decoder import Decoder, ModelConfig, initialise
from training.run_log import Attempt


class TrainedModel(Protocol):
    """What saving and restoring need of an engine, so that nothing here depends on one."""

    rank: int
    world_size: int
    device: torch.device
    zero_stage: int
    precision: str
    versions: dict[str, str]
    shapes: dict[str, tuple[int, ...]]
    decayed: set[str]

    @property
    def adam_steps(self) -> int:
        """Updates that Adam has applied."""
        ...

    def fragments(self, *, owned: bool) -> Iterable[OwnedRun]:
        """The runs of parameters that this rank owns, or holds."""
        ...

    def after_load(self, *, adam_steps: int) -> None:
        """Make the filled fragments count."""
        ...

    def evaluate(self, rows: Sequence[RowArrays]) -> np.ndarray:
        """Sum of token losses of each row."""
        ...


PROBE_TOLERANCE = {"fp32": 1e-4, "bf16": 2e-2}  # relative; summation order moves fp32 by about 1e-7


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """How far a run is; `digest` chains the row digests of all its steps."""

    step: int = 0
    position: int = 0
    trained_tokens: int = 0
    updates_applied: int = 0
    updates_dropped: int = 0
    digest: int = 0

    def after(self, *, position: int, trained_tokens: int, rows: int, applied: bool) -> Progress:
        """The progress after one more step; `rows` is the digest of the step's rows."""
        return replace(
            self,
            step=self.step + 1,
            position=position,
            trained_tokens=self.trained_tokens + trained_tokens,
            updates_applied=self.updates_applied + applied,
            updates_dropped=self.updates_dropped + (not applied),
            digest=chain_digest(self.digest, self.step, rows),
        )

    def to_json(self) -> dict[str, Any]:
        """JSON values; the digest as 16 hex digits, since JSON numbers lose u64."""
        return {**asdict(self), "digest": f"{self.digest:016x}"}

    @classmethod
    def from_json(cls, body: dict[str, Any]) -> Progress:
        """The inverse of `to_json`."""
        return cls(**{**body, "digest": int(body["digest"], 16)})


@dataclass(frozen=True, slots=True, eq=False)
class HostRun:
    """A copy of an owned run in host memory."""

    parameter: str
    start: tuple[int, ...]
    size: tuple[int, ...]
    offset: int
    tensors: dict[str, torch.Tensor]


class Save:
    """A checkpoint of this moment on its way to the store: copied now, uploaded by a thread, committed later.

    Made on every rank at the same step; the thread takes part in no collective. `facts` are the caller's fields of the
    checkpoint (attempt, plan revision and hash, parent checkpoint, tokenizer); rank 0's count.
    """

    def __init__(
        self,
        engine: TrainedModel,
        store: Store,
        run: str,
        progress: Progress,
        *,
        folder: str,
        model: ModelConfig,
        probe: Sequence[RowArrays],
        facts: dict[str, Any],
        into: list[HostRun] | None = None,
    ) -> None:
        """Take the probe loss and the copies: what training waits for.

        `into`: `copies` of a save of the same engine that has ended; fresh memory costs more than the copying.
        """
        self._engine, self._store, self._run, self._model = engine, store, run, model
        self.progress, self._probe, self._facts = progress, probe, facts
        self._probe_losses: list[float] = engine.evaluate(probe).tolist()
        self._where = f"runs/{run}/checkpoints/step-{progress.step:08d}/{folder}"
        self._adam_steps = engine.adam_steps
        self.copies = _copies_of(engine, into)
        self._sha256: str | None = None
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._upload, name="checkpoint", daemon=True)
        self._thread.start()

    @property
    def is_uploaded(self) -> bool:
        """Whether this rank's part is in the store, or has failed."""
        return not self._thread.is_alive()

    def commit(self, attempt: Attempt | None, *, milestone: bool = False) -> None:
        """Wait for all ranks' uploads, then rank 0 (which passes its attempt) adds the checkpoint.  Collective.

        StoreError on every rank where a rank could not upload.
        """
        tables = self._uploaded()
        if attempt is not None:
            encoded = self._body(tables)
            key, sha256 = self._put(encoded)
            told = {"key": key, "sha256": sha256, "loss": self._facts.get("loss"), **self.progress.to_json()}
            attempt.add("checkpoint", {**told, **({"milestone": True} if milestone else {})})

    def commit_beside(self) -> None:
        """Wait for all ranks' uploads, then every rank puts rank 0's JSON beside its own slices.  Collective.

        StoreError on every rank where a rank could not upload.
        """
        tables = self._uploaded()
        told = [self._body(tables) if self._engine.rank == 0 else b""]
        torch.distributed.broadcast_object_list(told, 0)
        self._put(told[0])

    def wait(self) -> None:
        """Until this rank's upload has ended, well or not."""
        self._thread.join()

    def _uploaded(self) -> list[str]:
        """The sha256 of every rank's table, once all are in their stores."""
        self._thread.join()
        tables = _gather_hashes(self._sha256 or "00" * 32, self._engine)
        if failed := [rank for rank, sha256 in enumerate(tables) if sha256 == "00" * 32]:
            if isinstance(self._error, GristmillError):
                raise self._error
            raise StoreError(
                f"run {self._run!r}: rank {failed[0]} could not save its part of step {self.progress.step}"
                + (f": {self._error!r}" if self._error else ""),
                key=self._where,
                mend="the same command goes on from the newest checkpoint",
            )
        return tables

    def _upload(self) -> None:
        try:
            self._sha256 = write_slices(
                self._store, self._where, self._engine.rank, self.copies, self._engine.shapes
            )
        except BaseException as error:  # noqa: BLE001
            self._error = error  # told at the commit, on every rank

    def _body(self, tables: list[str]) -> bytes:
        engine = self._engine
        body = {
            "format": FORMAT,
            "run": self._run,
            **self._facts,
            "progress": self.progress.to_json(),
            "adam_steps": {"decayed": self._adam_steps, "not_decayed": self._adam_steps},
            "model": self._model.to_json(),
            "parameters": [
                {"name": name, "shape": list(shape), "decayed": name in engine.decayed}
                for name, shape in engine.shapes.items()
            ],
            "tied": {"unembedding.weight": "embedding.weight"} if self._model.tied_embeddings else {},
            "slice_tables": [
                {"rank": rank, "key": table_key(self._where, rank, sha256), "sha256": sha256}
                for rank, sha256 in enumerate(tables)
            ],
            "probe": {
                "loss": sum(self._probe_losses) / max(sum(row.trained_tokens for row in self._probe), 1),
                "positions": [row.position for row in self._probe],
                "rows": [
                    {"digest": f"{row.digest:016x}", "loss": loss}
                    for row, loss in zip(self._probe, self._probe_losses, strict=True)
                ],
            },
            "written_by": {
                "world_size": engine.world_size,
                "zero_stage": engine.zero_stage,
                "precision": engine.precision,
                "versions": engine.versions,
            },
        }
        return (json.dumps(body, indent=1) + "\n").encode()

    def _put(self, encoded: bytes) -> tuple[str, str]:
        """(key, sha256) of the checkpoint's JSON, now in the store."""
        sha256 = hashlib.sha256(encoded).hexdigest()
        key = f"{self._where}/checkpoint-{sha256[:16]}.json"
        self._store.put(key, encoded)
        return key, sha256


def read_runs(engine: TrainedModel, reader: CheckpointReader) -> Iterator[dict[str, np.ndarray]]:
    """What `fill` puts into each of this rank's fragments, one after the other."""
    for fragment in engine.fragments(owned=False):
        length, box = fragment.tensors["master"].numel(), {"start": fragment.start, "size": fragment.size}
        yield reader.read(fragment.parameter, fragment.offset, length, **box)


@torch.no_grad()
def fill(
    engine: TrainedModel, reader: CheckpointReader, runs: Iterable[dict[str, np.ndarray]] | None = None
) -> None:
    """This rank's fragments from a checkpoint of any layout; `runs`: what `read_runs` gave where it was read before."""
    if reader.shapes != engine.shapes:
        raise IntegrityError(
            f"{reader.key} holds {len(reader.shapes)} parameters, this model has {len(engine.shapes)} others",
            key=reader.key,
        )
    runs = read_runs(engine, reader) if runs is None else runs
    for fragment, run in zip(engine.fragments(owned=False), runs, strict=True):
        for state, values in run.items():
            target = fragment.tensors[state]
            target.copy_(torch.from_numpy(values.astype(np.float32, copy=False)).view(target.shape))


def prove(engine: TrainedModel, reader: CheckpointReader, probe: Sequence[RowArrays]) -> Progress:
    """Make what every rank filled count, and prove it on the probe rows.  Collective.

    Rows that hold other tokens now (pages of them were taken down) prove nothing and are left out.
    """
    engine.after_load(adam_steps=reader.body["adam_steps"]["decayed"])
    known = zip(probe, engine.evaluate(probe).tolist(), reader.body["probe"].get("rows", ()), strict=False)
    pairs = [(loss, told["loss"]) for row, loss, told in known if f"{row.digest:016x}" == told["digest"]]
    found, stored = (sum(losses) for losses in zip(*pairs, strict=True)) if pairs else (0.0, 0.0)
    precisions = {engine.precision, reader.body["written_by"]["precision"]}
    tolerance = max(PROBE_TOLERANCE[precision] for precision in precisions)
    if not abs(found - stored) <= tolerance * abs(stored):
        raise IntegrityError(
            f"{reader.key}: {len(pairs)} probe rows have loss {found:.6f} after loading, {stored:.6f} when saved",
            key=reader.key,
            mend="the weights were not restored as they were: go on in the layout that wrote it, and report this",
        )
    return Progress.from_json(reader.body["progress"])


def restore(engine: TrainedModel, reader: CheckpointReader, probe: Sequence[RowArrays]) -> Progress:
    """`fill` and `prove`.  Collective."""
    fill(engine, reader)
    return prove(engine, reader, probe)


def load_decoder(reader: CheckpointReader) -> Decoder:
    """A plain model with the checkpoint's master weights, for evaluation and export."""
    model = initialise(Decoder(ModelConfig(**reader.body["model"])), 0)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(torch.from_numpy(reader.parameter(name).astype(np.float32, copy=False)))
    return model.eval()


@torch.no_grad()
def _copies_of(engine: TrainedModel, into: list[HostRun] | None) -> list[HostRun]:
    """The owned runs in host memory; from a GPU into pinned memory, all copies under way at once."""
    copies = []
    for number, run in enumerate(engine.fragments(owned=True)):
        tensors = into[number].tensors if into else {}
        for state in STATES:
            source = run.tensors[state].detach()
            if not into:
                tensors[state] = torch.empty(source.shape, dtype=source.dtype, pin_memory=source.is_cuda)
            tensors[state].copy_(source, non_blocking=True)
        copies.append(HostRun(run.parameter, run.start, run.size, run.offset, tensors))
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return copies


def _gather_hashes(mine: str, engine: TrainedModel) -> list[str]:
    """Every rank's sha256, by rank."""
    hashes = [torch.zeros(32, dtype=torch.uint8, device=engine.device) for _ in range(engine.world_size)]
    torch.distributed.all_gather(
        hashes, torch.tensor(list(bytes.fromhex(mine)), dtype=torch.uint8, device=engine.device)
    )
    return [bytes(h.cpu().tolist()).hex() for h in hashes]
