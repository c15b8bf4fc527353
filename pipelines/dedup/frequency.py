"""How often a digest occurs over a corpus, where a row a digest would be too much: a sketch, then exact counts.

The sketch is a count-min of saturating counters (Cormode and Muthukrishnan 2005): it never counts too little, and
sketches of parts add, in any order, to the sketch of the whole. A counter stops at the bound that matters, so it
takes one byte. Digests that the sketch calls frequent are candidates; they alone are counted exactly, so what the
sketch counts too high costs rows, never a wrong decision.

With n digests and w counters a row, a digest is counted n/w too high on average, and more than e*n/w with a chance of
at most 1/e a row; rows are independent. Where n/w is well below the bound next to nothing but truly frequent digests
passes: 2^28 one-byte counters in two rows (256 MiB) serve 3*10^9 digests at a bound of 100.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import zstandard

from pipelines.errors import ConfigError, IntegrityError
from pipelines.kernels import kernel

ROWS = 2
_HOLDER = (("place", pa.int64()), ("tie", pa.int64()))  # of the first document that holds it, in the survivor order
COUNTS = pa.schema([("digest", pa.uint64()), ("generation", pa.int64()), ("count", pa.int64()), *_HOLDER])
FREQUENT = pa.schema(
    [("digest", pa.uint64()), ("since", pa.int64()), ("count", pa.int64()), ("generation", pa.int64()), *_HOLDER]
)
_MOST_COUNTED = 65_000
_CHUNK = 1 << 22
_ROW_SEEDS = (np.uint64(0x9E3779B97F4A7C15), np.uint64(0xC2B2AE3D27D4EB4F))


@dataclass(frozen=True, slots=True, kw_only=True)
class SketchShape:
    """Size of a sketch: `mib` in all, halved between the two rows; `bound` is the count from which on it matters."""

    mib: int
    bound: int

    def __post_init__(self) -> None:
        """ConfigError for sizes and bounds that no counter has."""
        if self.mib < 1 or self.mib & (self.mib - 1):
            raise ConfigError(f"a sketch of {self.mib} MiB", mend="a power of two, at least 1")
        if not 2 <= self.bound <= _MOST_COUNTED:
            raise ConfigError(f"a bound of {self.bound} occurrences", mend=f"from 2 to {_MOST_COUNTED}")

    @property
    def dtype(self) -> np.dtype:
        """One byte where the bound fits."""
        return np.dtype(np.uint8 if self.bound <= 255 else np.uint16)

    @property
    def width(self) -> int:
        """Counters in a row, a power of two."""
        return (self.mib << 20) // (ROWS * self.dtype.itemsize)

    def noise(self, digests: int) -> float:
        """By how much a count is too high on average."""
        return digests / self.width


class Sketch:
    """Counters of digests; `counters` is (ROWS, width)."""

    def __init__(self, shape: SketchShape) -> None:
        """Nothing is counted yet."""
        self.shape = shape
        self.counters = np.zeros((ROWS, shape.width), shape.dtype)

    def add(self, digests: np.ndarray) -> None:
        """Count (n,) uint64 digests once each."""
        _add(self.counters, _writable(digests, np.uint64), _row_bits(self.shape), *_ROW_SEEDS, self._full())

    def merge(self, body: bytes) -> None:
        """Add the counters of another sketch of the same shape, as `to_bytes` made it; a few MiB at a time."""
        mine = self.counters.reshape(-1)
        full = self.shape.dtype.type(self._full())
        at = 0
        with zstandard.ZstdDecompressor().stream_reader(body) as stream:
            while piece := stream.read(_CHUNK):
                more = np.frombuffer(piece, self.shape.dtype)
                part = mine[at : at + len(more)]
                if len(part) != len(more):
                    break
                part += np.minimum(full - part, more)
                at += len(more)
        if at != len(mine):
            raise IntegrityError(f"what was stored is no sketch of {self.shape.mib} MiB")

    def _full(self) -> int:
        return int(np.iinfo(self.shape.dtype).max)

    def frequent(self) -> Frequent:
        """The digests whose count reaches the bound, as a set that may hold a few more."""
        bits = np.zeros((ROWS, (self.shape.width + 7) // 8), np.uint8)
        for row in range(ROWS):
            for start in range(0, self.shape.width, _CHUNK):
                reached = self.counters[row, start : start + _CHUNK] >= self.shape.bound
                packed = np.packbits(reached, bitorder="little")
                bits[row, start // 8 : start // 8 + len(packed)] = packed
        return Frequent(self.shape, bits)

    def frequent_occurrences(self) -> int:
        """About how many of the digests added are in `frequent`; too low where counters have stopped."""
        totals = []
        for row in self.counters:
            parts = (row[start : start + _CHUNK] for start in range(0, len(row), _CHUNK))
            totals.append(sum(int(part[part >= self.shape.bound].sum(dtype=np.int64)) for part in parts))
        return min(totals)

    def to_bytes(self) -> bytes:
        """The counters, compressed."""
        return zstandard.ZstdCompressor(level=1).compress(memoryview(self.counters).cast("B"))


class Frequent:
    """A set of digests by one bit a counter: an eighth or a sixteenth of the sketch. Nothing frequent is missing."""

    def __init__(self, shape: SketchShape, bits: np.ndarray) -> None:
        """`bits` is (ROWS, width / 8) uint8."""
        self.shape, self.bits = shape, _writable(bits, np.uint8)

    def holds(self, digests: np.ndarray) -> np.ndarray:
        """(n,) bool."""
        out = np.empty(len(digests), np.bool_)
        _test(self.bits, _writable(digests, np.uint64), _row_bits(self.shape), *_ROW_SEEDS, out)
        return out

    @property
    def false_share(self) -> float:
        """Share of rare digests that are let through: the product of the rows' shares of reached counters."""
        share = 1.0
        for row in self.bits:
            share *= int(np.bitwise_count(row).sum(dtype=np.int64)) / self.shape.width
        return share

    def to_bytes(self) -> bytes:
        """The bits, compressed."""
        return zstandard.ZstdCompressor(level=1).compress(memoryview(self.bits).cast("B"))

    @staticmethod
    def from_bytes(shape: SketchShape, body: bytes) -> Frequent:
        """What `to_bytes` made of a set of this shape."""
        raw = zstandard.ZstdDecompressor().decompress(body, max_output_size=ROWS * shape.width // 8)
        return Frequent(shape, np.frombuffer(raw, np.uint8).reshape(ROWS, -1))


def exact_counts(digest: np.ndarray, place: np.ndarray, tie: np.ndarray, generation: int) -> pa.Table:
    """COUNTS of one generation: each distinct digest, how often it stands there, and its first holder.

    `place` and `tie` tell the holder of each occurrence in the survivor order.
    """
    by = np.lexsort((tie, place, digest))
    digest = digest[by]
    first = np.flatnonzero(np.concatenate([[True], digest[1:] != digest[:-1]])) if len(digest) else np.zeros(0, int)
    count = np.diff(np.append(first, len(digest)))
    columns = [digest[first], np.full(len(first), generation), count, place[by][first], tie[by][first]]
    return pa.table([pa.array(c) for c in columns], schema=COUNTS)


def frequent_digests(counts: Sequence[pa.Table], bound: int) -> pa.Table:
    """FREQUENT of tables of COUNTS: each digest that occurs `bound` times or more, sorted.

    `since` is the first generation at which it did, counting that one and all before: an appended crawl changes
    neither that nor the first holder, whose `generation`, `place` and `tie` are told. `count` is over all generations.
    """
    table = pa.concat_tables([COUNTS.empty_table(), *counts])
    digest, generation, count, place, tie = (table[name].to_numpy() for name in COUNTS.names)
    by = np.lexsort((tie, place, generation, digest))
    digest, generation, count, place, tie = (column[by] for column in (digest, generation, count, place, tie))
    if not len(digest):
        return FREQUENT.empty_table()
    first = np.flatnonzero(np.concatenate([[True], digest[1:] != digest[:-1]]))
    sizes = np.diff(np.append(first, len(digest)))
    total = np.cumsum(count)
    running = total - np.repeat(total[first] - count[first], sizes)
    group = np.repeat(np.arange(len(first)), sizes)
    # The generation of the row at which the bound is met; rows of one digest rise by generation.
    since = np.full(len(first), -1, np.int64)
    rows = np.flatnonzero(running >= bound)[::-1]
    since[group[rows]] = generation[rows]
    kept = since >= 0
    columns = [digest[first], since, running[first + sizes - 1], generation[first], place[first], tie[first]]
    return pa.table([pa.array(column[kept]) for column in columns], schema=FREQUENT)


def counters_needed(digests: int, bound: int) -> int:
    """MiB of a sketch in which counts are a quarter of the bound too high on average; a power of two."""
    itemsize = 1 if bound <= 255 else 2
    return 1 << max(0, math.ceil(math.log2(max(1, digests * 4 / bound * ROWS * itemsize / (1 << 20)))))


def _writable(array: np.ndarray, kind: type) -> np.ndarray:
    """Of one type for the kernels, which are compiled anew for arrays that cannot be written to."""
    return np.require(array, kind, ["C", "W"])


def _row_bits(shape: SketchShape) -> np.uint64:
    return np.uint64(64 - (shape.width.bit_length() - 1))


@kernel
def _add(counters, digests, shift, seed_a, seed_b, full):
    for i in range(len(digests)):
        a = (digests[i] * seed_a) >> shift
        b = ((digests[i] ^ (digests[i] >> np.uint64(31))) * seed_b) >> shift
        if counters[0, a] != full:
            counters[0, a] += 1
        if counters[1, b] != full:
            counters[1, b] += 1


@kernel
def _test(bits, digests, shift, seed_a, seed_b, out):
    for i in range(len(digests)):
        a = (digests[i] * seed_a) >> shift
        b = ((digests[i] ^ (digests[i] >> np.uint64(31))) * seed_b) >> shift
        in_a = (bits[0, a >> np.uint64(3)] >> np.uint8(a & np.uint64(7))) & 1
        in_b = (bits[1, b >> np.uint64(3)] >> np.uint8(b & np.uint64(7))) & 1
        out[i] = in_a == 1 and in_b == 1
