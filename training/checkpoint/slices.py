"""The bytes of a checkpoint (F): fp32 master weights and both Adam moments as slices of parameters.

A slice is a run of a box: (parameter, the box's start[] and size[] in the parameter's global shape, flat offset and
length inside the box). So tensor parallelism can be expressed, and any layout reads any other's by ranges. A rank packs
what it owns into objects: for each slice master | exp_avg | exp_avg_sq, each in pages of 1,023 little-endian float32
and their crc32c, so that a reader fetches the pages that it needs and no more. One JSON table of a rank names its
slices. Keys carry the hash of the bytes. No pickle anywhere.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from typing import Any, NamedTuple, Protocol

import crc32c
import numpy as np
import numpy.typing as npt

from pipelines.datasets.store import Store
from pipelines.errors import IntegrityError
from training.layout import Shape, column_blocks

TABLE_FORMAT = "gristmill.slices/2"
WHOLE_RUN_FORMAT = "gristmill.slices/1"  # one crc for a slice's state, in the table; read, no longer written
STATES = ("master", "exp_avg", "exp_avg_sq")
PAGE_ELEMENTS = 1023  # with their crc 4 KiB: the smallest run of a 13B model on 256 ranks is 100 of them
PAGE_BYTES = 4 * (PAGE_ELEMENTS + 1)
MAX_SLICE_ELEMENTS = 4 << 20  # bounds an object's overshoot
MAX_OBJECT_BYTES = 128 << 20
MIN_BLOCK_PAGES = 32  # of a block of columns: pages that a reader needs in part then weigh little


class OwnedRun(Protocol):
    """A contiguous run of a box of a parameter, as torch tensors by state."""

    @property
    def parameter(self) -> str:
        """Its name in the whole model."""
        ...

    @property
    def start(self) -> Shape:
        """Where the box begins in the parameter's global shape."""
        ...

    @property
    def size(self) -> Shape:
        """The box's size."""
        ...

    @property
    def offset(self) -> int:
        """The first element, inside the box."""
        ...

    @property
    def tensors(self) -> dict[str, Any]:
        """One for each of STATES."""
        ...


class Intervals(NamedTuple):
    """Where a run lies in the parameter's flat elements: rising, disjoint; and where each begins in the run."""

    starts: npt.NDArray[np.int64]
    lengths: npt.NDArray[np.int64]
    places: npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Slice:
    """Elements [offset, offset + length) of a box; bytes from `first_byte` of `key`.

    `crc32c` is by STATES in the old format and empty in the new one, where every page has its own.
    """

    parameter: str
    start: Shape
    size: Shape
    offset: int
    length: int
    key: str
    first_byte: int
    crc32c: tuple[int, ...] = ()

    def byte_range(self, state: str, first: int, last: int) -> tuple[int, int]:
        """Where the elements [first, last) of one state's run lie in the object: whole pages."""
        if self.crc32c:
            begin = self.first_byte + 4 * self.length * STATES.index(state)
            return begin, begin + 4 * self.length
        begin = self.first_byte + PAGE_BYTES * -(-self.length // PAGE_ELEMENTS) * STATES.index(state)
        return begin + PAGE_BYTES * (first // PAGE_ELEMENTS), begin + PAGE_BYTES * -(-last // PAGE_ELEMENTS)

    def elements(self, body: bytes, state: str, first: int, last: int) -> npt.NDArray[np.float32]:
        """The elements [first, last) of a state from the bytes of their range; IntegrityError where these are torn."""
        begin, end = self.byte_range(state, first, last)
        if len(body) != end - begin:  # the object was cut short
            raise self._torn(state, first, last)
        if self.crc32c:
            if crc32c.crc32c(body) != self.crc32c[STATES.index(state)]:
                raise self._torn(state, 0, self.length)
            return np.frombuffer(body, dtype="<f4")[first:last]
        pages = np.frombuffer(body, dtype="<u4").reshape(-1, PAGE_ELEMENTS + 1)
        view = memoryview(body)
        page = first // PAGE_ELEMENTS
        for i, told in enumerate(pages[:, PAGE_ELEMENTS].tolist()):
            if crc32c.crc32c(view[i * PAGE_BYTES : (i + 1) * PAGE_BYTES - 4]) != told:
                raise self._torn(state, (page + i) * PAGE_ELEMENTS, (page + i + 1) * PAGE_ELEMENTS)
        flat = np.ascontiguousarray(pages[:, :PAGE_ELEMENTS]).view("<f4").reshape(-1)
        return flat[first - page * PAGE_ELEMENTS :][: last - first]

    def intervals(self, shapes: dict[str, Shape]) -> Intervals:
        """Where it lies in its parameter."""
        return box_intervals(shapes[self.parameter], self.start, self.size, self.offset, self.length)

    def _torn(self, state: str, first: int, last: int) -> IntegrityError:
        first, last = self.offset + first, self.offset + min(last, self.length) - 1
        return IntegrityError(
            f"{self.key}: {state} of {self.parameter}, elements {first}..{last}, does not match its crc32c",
            key=self.key,
            mend="go on from an earlier checkpoint of the run",
        )


def box_intervals(shape: Shape, start: Shape, size: Shape, offset: int, length: int) -> Intervals:
    """A run of a box's flat elements as intervals of the whole parameter's."""
    strides = [math.prod(shape[d + 1 :]) for d in range(len(shape))]
    inner_dim = len(shape) - 1
    while inner_dim > 0 and size[inner_dim] == shape[inner_dim]:
        inner_dim -= 1
    inner = math.prod(size[inner_dim:])  # contiguous both in the box and in the parameter
    lines = np.arange(offset // inner, -(-(offset + length) // inner), dtype=np.int64)
    starts = np.full(len(lines), start[inner_dim] * strides[inner_dim] if shape else 0, dtype=np.int64)
    left = lines
    for d in reversed(range(inner_dim)):
        left, at = np.divmod(left, size[d])
        starts += (start[d] + at) * strides[d]
    first = np.maximum(lines * inner, offset)
    last = np.minimum((lines + 1) * inner, offset + length)
    return Intervals(starts + first - lines * inner, last - first, first - offset)


def write_slices(store: Store, folder: str, rank: int, runs: Iterable[OwnedRun], shapes: dict[str, Shape]) -> str:
    """Put a rank's objects and table under `folder`; the table's sha256 (with the rank it gives the key)."""
    slices: list[Slice] = []
    for body, packed in _objects(runs, shapes):
        key = f"{folder}/rank-{rank:05d}-{hashlib.sha256(body).hexdigest()[:16]}.f32"
        store.put(key, body)
        slices += [replace(part, key=key) for part in packed]
    told = [{k: v for k, v in asdict(part).items() if k != "crc32c"} for part in slices]
    encoded = json.dumps({"format": TABLE_FORMAT, "rank": rank, "slices": told}, separators=(",", ":")).encode()
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
    if table.get("format") not in (TABLE_FORMAT, WHOLE_RUN_FORMAT):
        raise IntegrityError(f"{key} has format {table.get('format')!r}, expected {TABLE_FORMAT!r}", key=key)
    fields: list[dict[str, Any]] = [
        {k: tuple(v) if isinstance(v, list) else v for k, v in part.items()} for part in table["slices"]
    ]
    return [Slice(**part) for part in fields]


def check_tiling(shapes: dict[str, Shape], slices: Iterable[Slice]) -> dict[str, list[Slice]]:
    """Slices by parameter; IntegrityError unless they cover every element of each exactly once."""
    by_parameter: dict[str, list[Slice]] = {name: [] for name in shapes}
    for part in slices:
        shape = shapes.get(part.parameter)
        inside = shape is not None and len(shape) == len(part.start) == len(part.size)
        if not inside or any(
            s < 0 or n < 1 or s + n > whole for s, n, whole in zip(part.start, part.size, shape or (), strict=True)
        ):
            raise IntegrityError(
                f"{part.key}: a slice of {part.parameter} has box {part.start}+{part.size}, not inside {shape}",
                key=part.key,
            )
        if part.length < 1 or part.offset < 0 or part.offset + part.length > math.prod(part.size):
            raise IntegrityError(
                f"{part.key}: a slice of {part.parameter} has elements {part.offset}+{part.length} of a box of "
                f"{math.prod(part.size)}",
                key=part.key,
            )
        by_parameter[part.parameter].append(part)
    for name, parts in by_parameter.items():
        found = [part.intervals(shapes) for part in parts]
        starts = np.concatenate([np.empty(0, np.int64), *(each.starts for each in found)])
        lengths = np.concatenate([np.empty(0, np.int64), *(each.lengths for each in found)])
        order = np.argsort(starts, kind="stable")
        ends = np.cumsum(lengths[order])
        if not np.array_equal(starts[order], ends - lengths[order]) or lengths.sum() != math.prod(shapes[name]):
            raise IntegrityError(
                f"the slices of {name} cover {lengths.sum()} of {math.prod(shapes[name])} elements, with gaps or "
                "overlaps"
            )
    return by_parameter


def _objects(runs: Iterable[OwnedRun], shapes: dict[str, Shape]) -> Iterator[tuple[bytes, list[Slice]]]:
    """Pack runs into objects of bounded size: (bytes, slices without their key)."""
    body, packed = bytearray(), []
    for run in runs:
        flat = {state: _flat(run.tensors[state]) for state in STATES}
        for start, size, offset, places in _pieces(run, len(flat["master"]), shapes[run.parameter]):
            pages = [_pages(flat[state][places]) for state in STATES]
            if packed and len(body) + sum(map(len, pages)) > MAX_OBJECT_BYTES:
                yield bytes(body), packed
                body, packed = bytearray(), []
            part = Slice(
                parameter=run.parameter,
                start=start,
                size=size,
                offset=offset,
                length=places.stop - places.start if isinstance(places, slice) else places.size,
                key="",
                first_byte=len(body),
            )
            packed.append(part)
            for page in pages:
                body += page
    if packed:
        yield bytes(body), packed


Piece = tuple[Shape, Shape, int, "slice | npt.NDArray[np.int64]"]


def _pieces(run: OwnedRun, length: int, shape: Shape) -> Iterator[Piece]:
    """(box start, box size, offset, which elements of the run): slices of bounded length.

    Where tensor parallelism cuts a matrix by its columns, its whole lines go by blocks of columns: what such a rank
    reads is then contiguous. Lines that the run holds in part stay runs of their own.
    """
    blocks = column_blocks(run.parameter, shape, run.size)
    while blocks % 2 == 0 and length // blocks < MIN_BLOCK_PAGES * PAGE_ELEMENTS:
        blocks //= 2
    if blocks == 1:
        for first in range(0, length, MAX_SLICE_ELEMENTS):
            yield run.start, run.size, run.offset + first, slice(first, min(first + MAX_SLICE_ELEMENTS, length))
        return
    columns = run.size[1]
    first_line, last_line = -(-run.offset // columns), (run.offset + length) // columns
    if first_line >= last_line:
        yield run.start, run.size, run.offset, slice(0, length)
        return
    head, tail = first_line * columns - run.offset, last_line * columns - run.offset
    if head:
        yield run.start, run.size, run.offset, slice(0, head)
    width = columns // blocks
    at_once = max(MAX_SLICE_ELEMENTS // width, 1)
    for line in range(first_line, last_line, at_once):
        lines = min(at_once, last_line - line)
        for block in range(blocks):
            where = np.arange(lines)[:, None] * columns + np.arange(block * width, (block + 1) * width)
            start = (run.start[0] + line, run.start[1] + block * width)
            yield start, (lines, width), 0, where.reshape(-1) + (line - first_line) * columns + head
    if tail < length:
        yield run.start, run.size, last_line * columns, slice(tail, length)


def _pages(elements: npt.NDArray[np.float32]) -> bytes:
    """Pages of PAGE_ELEMENTS and their crc; the last one is filled with zeros."""
    pages = np.zeros((-(-len(elements) // PAGE_ELEMENTS), PAGE_ELEMENTS + 1), dtype="<u4")
    whole = len(elements) // PAGE_ELEMENTS
    bits = elements.view("<u4")
    pages[:whole, :PAGE_ELEMENTS] = bits[: whole * PAGE_ELEMENTS].reshape(whole, PAGE_ELEMENTS)
    pages[whole:, : len(elements) - whole * PAGE_ELEMENTS] = bits[whole * PAGE_ELEMENTS :]
    for page in pages:
        page[PAGE_ELEMENTS] = crc32c.crc32c(page[:PAGE_ELEMENTS].data)
    return pages.tobytes()


def _flat(tensor: Any) -> npt.NDArray[np.float32]:
    return np.ascontiguousarray(tensor.detach().cpu().numpy(), dtype="<f4").reshape(-1)
