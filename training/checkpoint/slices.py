"""The bytes of a checkpoint (F): fp32 master weights and both Adam moments as slices of parameters.

A slice is (parameter, box start[] and size[] in the parameter's global shape, flat offset and length inside
the box): tensor parallelism can be expressed, and any layout reads any other's by ranges. A rank packs what
it owns into objects of raw little-endian float32, master | exp_avg | exp_avg_sq for each slice, every run
with its own crc32c, and one JSON table that names them. Keys carry the hash of the bytes. No pickle
anywhere.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from typing import Any, Protocol

import crc32c
import numpy as np

from pipelines.datasets.store import Store
from pipelines.errors import IntegrityError

TABLE_FORMAT = "gristmill.slices/1"
STATES = ("master", "exp_avg", "exp_avg_sq")
MAX_SLICE_ELEMENTS = 4 << 20  # 16 MiB a state: bounds what a reader holds to check a crc
MAX_OBJECT_BYTES = 128 << 20


class OwnedRun(Protocol):
    """A contiguous run of a parameter's flat elements, as torch tensors by state."""

    @property
    def parameter(self) -> str:
        """Its name."""
        ...

    @property
    def offset(self) -> int:
        """The first element."""
        ...

    @property
    def tensors(self) -> dict[str, Any]:
        """One for each of STATES."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Slice:
    """Elements [offset, offset + length) of a box; bytes from `first_byte` of `key`, crcs by STATES."""

    parameter: str
    start: tuple[int, ...]
    size: tuple[int, ...]
    offset: int
    length: int
    key: str
    first_byte: int
    crc32c: tuple[int, ...]

    def byte_range(self, state: str) -> tuple[int, int]:
        """Where one state's run lies in the object."""
        start = self.first_byte + 4 * self.length * STATES.index(state)
        return start, start + 4 * self.length


def write_slices(
    store: Store, folder: str, rank: int, runs: Iterable[OwnedRun], shapes: dict[str, tuple[int, ...]]
) -> str:
    """Put a rank's objects and table under `folder`; the table's sha256 (with the rank it gives the key)."""
    slices: list[Slice] = []
    for body, packed in _objects(runs, shapes):
        key = f"{folder}/rank-{rank:05d}-{hashlib.sha256(body).hexdigest()[:16]}.f32"
        store.put(key, body)
        slices += [Slice(**{**fields, "key": key}) for fields in packed]
    table = {"format": TABLE_FORMAT, "rank": rank, "slices": [asdict(part) for part in slices]}
    encoded = json.dumps(table, separators=(",", ":")).encode()
    digest = hashlib.sha256(encoded).hexdigest()
    store.put(table_key(folder, rank, digest), encoded)
    return digest


def table_key(folder: str, rank: int, sha256: str) -> str:
    """Where a rank's table lies."""
    return f"{folder}/rank-{rank:05d}-{sha256[:16]}.json"


def read_table(store: Store, key: str, sha256: str) -> list[Slice]:
    """A rank's slices; IntegrityError where the table is not the one that was committed."""
    encoded = store.get(key)
    if hashlib.sha256(encoded).hexdigest() != sha256:
        raise IntegrityError(f"{key} differs from its sha256 in the checkpoint", key=key)
    table = json.loads(encoded)
    if table.get("format") != TABLE_FORMAT:
        raise IntegrityError(f"{key} has format {table.get('format')!r}, expected {TABLE_FORMAT!r}", key=key)
    tuples = ("start", "size", "crc32c")
    return [Slice(**{**part, **{name: tuple(part[name]) for name in tuples}}) for part in table["slices"]]


def check_tiling(shapes: dict[str, tuple[int, ...]], slices: Iterable[Slice]) -> dict[str, list[Slice]]:
    """Slices by parameter in order of their offset; IntegrityError unless they cover each exactly once.

    This version reads boxes that are the whole parameter, as every layout without tensor parallelism writes.
    """
    by_parameter: dict[str, list[Slice]] = {name: [] for name in shapes}
    for part in slices:
        if part.parameter not in shapes or part.size != shapes[part.parameter] or any(part.start):
            raise IntegrityError(
                f"{part.key}: a slice of {part.parameter} has box {part.start}+{part.size}, not its own"
            )
        by_parameter[part.parameter].append(part)
    for name, parts in by_parameter.items():
        parts.sort(key=lambda part: part.offset)
        ends = [0, *(part.offset + part.length for part in parts)]
        if [part.offset for part in parts] != ends[:-1] or ends[-1] != math.prod(shapes[name]):
            raise IntegrityError(
                f"the slices of {name} cover {ends[-1]} of {math.prod(shapes[name])} elements, or overlap"
            )
    return by_parameter


def _objects(
    runs: Iterable[OwnedRun], shapes: dict[str, tuple[int, ...]]
) -> Iterator[tuple[bytes, list[dict[str, Any]]]]:
    """Pack runs into objects of bounded size: (bytes, slices without their key)."""
    body, packed = bytearray(), []
    for run in runs:
        flat = {state: _flat(run.tensors[state]) for state in STATES}
        for first in range(0, len(flat["master"]), MAX_SLICE_ELEMENTS):
            parts = [flat[state][first : first + MAX_SLICE_ELEMENTS].tobytes() for state in STATES]
            if packed and len(body) + sum(map(len, parts)) > MAX_OBJECT_BYTES:
                yield bytes(body), packed
                body, packed = bytearray(), []
            shape = shapes[run.parameter]
            packed.append(
                {
                    "parameter": run.parameter,
                    "start": (0,) * len(shape),
                    "size": shape,
                    "offset": run.offset + first,
                    "length": len(parts[0]) // 4,
                    "first_byte": len(body),
                    "crc32c": tuple(crc32c.crc32c(part) for part in parts),
                }
            )
            for part in parts:
                body += part
    if packed:
        yield bytes(body), packed


def _flat(tensor: Any) -> np.ndarray:
    return np.ascontiguousarray(tensor.detach().cpu().numpy(), dtype="<f4").reshape(-1)
