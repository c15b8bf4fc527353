"""Runs of characters that stand in an earlier text as well, found exactly and in bounded memory.

Every window of `length` characters gets an anchor: the smallest hash among its k-grams (winnowing; Schleimer,
Wilkerson, Aiken 2003). Equal windows have equal anchors, wherever they stand, so windows need to be compared within
the bucket of an anchor only, and buckets can be dealt with anywhere. A sketch tells which anchors occur once; their
windows repeat nothing. What is left travels with its own context, so that windows are compared character by character
without fetching a text: nothing that repeats is missed, nothing else is found.

A character leaves if it lies in a window that stands in an earlier text (of the survivor order), or earlier in the
same text without overlap. So the first occurrence stays, but for what of it repeats something earlier still.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from pipelines.dedup.normalize import utf8_of
from pipelines.dedup.spans import Span
from pipelines.errors import ConfigError
from pipelines.kernels import kernel, subkernel

RULE = "repeated_substring"
WINDOWS = pa.schema(
    [
        pa.field("anchor", pa.uint64(), metadata={"doc": "hash that all equal windows share"}),
        pa.field("generation", pa.int64(), metadata={"doc": "of the text: the first key of the survivor order"}),
        pa.field("place", pa.int64(), metadata={"doc": "the second"}),
        pa.field("tie", pa.int64(), metadata={"doc": "the third"}),
        pa.field("node", pa.int64(), metadata={"doc": "number of the text"}),
        pa.field("first", pa.int32(), metadata={"doc": "character at which the first window begins"}),
        pa.field("context", pa.large_binary(), metadata={"doc": "code points, 4 bytes each, of all windows"}),
    ]
)
REPEATS = pa.schema([("node", pa.int64()), ("start", pa.int64()), ("end", pa.int64())])

_BASE = np.uint64(0x9E3779B97F4A7C15)
_MIX = np.uint64(0xFF51AFD7ED558CCD)
_MOST_COLLISIONS = 8  # different windows of one hash, after which a window counts as new


@dataclass(frozen=True, slots=True, kw_only=True)
class SubstringRules:
    """`length`: characters from which on a repeat leaves. An anchor is a hash of `length` // 4 of them."""

    length: int = 100

    def __post_init__(self) -> None:
        """ConfigError for lengths that find words, or nothing."""
        if not 20 <= self.length <= 10_000:
            raise ConfigError(f"repeats of {self.length} characters", mend="from 20 to 10000")

    @property
    def gram(self) -> int:
        """Characters of an anchor."""
        return self.length // 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Anchors:
    """Windows by anchor: arrays of one length, by text, then place. `first` and `last` are the characters at which the
    first and the last window of a run begins that all have this anchor."""

    text: np.ndarray
    first: np.ndarray
    last: np.ndarray
    anchor: np.ndarray

    def __len__(self) -> int:
        """How many."""
        return len(self.text)


def find_anchors(texts: pa.Array | pa.ChunkedArray, rules: SubstringRules) -> Anchors:
    """The anchors of all windows of the texts; a text shorter than a window has none. One in about 40 characters."""
    utf8, offsets = utf8_of(texts)
    room = max(1024, (int(offsets[-1] - offsets[0]) * 3) // (rules.length - rules.gram) + len(offsets))
    while True:
        places, hashes = np.empty((room, 3), np.int32), np.empty(room, np.uint64)
        count = _anchors(utf8, offsets, rules.length, rules.gram, places, hashes)
        if count >= 0:
            text, first, last = (np.ascontiguousarray(places[:count, at]) for at in range(3))
            return Anchors(text=text, first=first, last=last, anchor=hashes[:count].copy())
        room *= 4


def window_rows(
    texts: pa.Array | pa.ChunkedArray,
    anchors: Anchors,
    chosen: np.ndarray,
    generation: int,
    place: np.ndarray,
    tie: np.ndarray,
    node: np.ndarray,
    rules: SubstringRules,
) -> pa.Table:
    """WINDOWS of the chosen anchors (n,) bool; place, tie and node of each text, which are of one generation."""
    text, first, last = anchors.text[chosen], anchors.first[chosen], anchors.last[chosen]
    sizes = (last - first).astype(np.int64) + rules.length
    bounds = np.concatenate([[0], np.cumsum(sizes)])
    codes = np.empty(int(bounds[-1]), np.uint32)
    utf8, offsets = utf8_of(texts)
    _contexts(utf8, offsets, text, first, bounds, codes)
    context = pa.Array.from_buffers(
        pa.large_binary(), len(text), [None, pa.py_buffer(bounds * 4), pa.py_buffer(codes.astype("<u4", copy=False))]
    )
    generations = np.full(len(text), generation)
    columns = [anchors.anchor[chosen], generations, place[text], tie[text], node[text], first]
    return pa.table([*(pa.array(column) for column in columns), context], schema=WINDOWS)


def partition_of_anchors(anchors: np.ndarray, partitions: int) -> np.ndarray:
    """(n,) int64 in [0, partitions). Anchors are the smallest of many hashes, so they are mixed before they are cut."""
    return (((anchors * _MIX) >> np.uint64(33)) % np.uint64(partitions)).astype(np.int64)


def find_repeats(windows: pa.Table, rules: SubstringRules) -> pa.Table:
    """REPEATS of whole buckets, from WINDOWS in any order: the runs of characters that leave, sorted, joined by text.

    Runs of one text from several buckets may overlap; `union_spans` joins them.
    """
    if windows.num_rows == 0:
        return REPEATS.empty_table()
    anchor, generation, place, tie, node, first = (windows[name].to_numpy() for name in WINDOWS.names[:-1])
    by = np.lexsort((first, node, tie, place, generation, anchor))
    context = windows["context"].combine_chunks()
    if isinstance(context, pa.ChunkedArray):
        context = context.chunk(0)
    _, offsets, body = context.buffers()
    bounds = np.frombuffer(offsets, np.int64)[context.offset : context.offset + len(context) + 1] // 4
    codes = np.frombuffer(body, "<u4")
    starts = bounds[:-1][by]
    sizes = (bounds[1:] - bounds[:-1])[by]
    node, first, anchor = node[by], first[by].astype(np.int64), anchor[by]
    edges = np.flatnonzero(np.concatenate([[True], anchor[1:] != anchor[:-1], [True]]))
    room = len(node) + 1024
    while True:
        out = np.empty((room, 3), np.int64)
        count = _repeats(codes, starts, sizes, node, first, edges, rules.length, out)
        if count >= 0:
            break
        room *= 4
    found = out[:count]
    found = found[np.lexsort((found[:, 2], found[:, 1], found[:, 0]))]
    return pa.table([pa.array(np.ascontiguousarray(found[:, at])) for at in range(3)], schema=REPEATS)


def union_spans(repeats: Sequence[pa.Table], first_node: int, count: int) -> list[list[Span]]:
    """The spans of each of the `count` texts from `first_node` on, in characters; overlapping runs are one."""
    table = pa.concat_tables([REPEATS.empty_table(), *repeats])
    node, start, end = (table[name].to_numpy() for name in REPEATS.names)
    mine = (node >= first_node) & (node < first_node + count)
    node, start, end = node[mine], start[mine], end[mine]
    by = np.lexsort((end, start, node))
    spans: list[list[Span]] = [[] for _ in range(count)]
    for row, low, high in zip((node[by] - first_node).tolist(), start[by].tolist(), end[by].tolist(), strict=True):
        found = spans[row]
        if found and low <= found[-1][1]:
            if high > found[-1][1]:
                found[-1] = (found[-1][0], high, RULE)
        else:
            found.append((low, high, RULE))
    return spans


def text_slices(offsets: np.ndarray, most_bytes: int) -> Iterator[tuple[int, int]]:
    """(start, end) of runs of texts of at most so many bytes, or of one text; `offsets` as `utf8_of` gives them."""
    start = 0
    while start < len(offsets) - 1:
        end = max(start + 1, int(np.searchsorted(offsets, offsets[start] + most_bytes, side="right")) - 1)
        yield start, end
        start = end


@subkernel
def _decode(utf8, start, end, codes):
    """Code points of utf8[start:end]; a byte that begins no character is one."""
    i = start
    n = 0
    while i < end:
        a = np.uint32(utf8[i])
        if a < 0x80 or i + 1 >= end:
            codes[n] = a
            i += 1
        elif a < 0xE0:
            codes[n] = ((a & np.uint32(0x1F)) << np.uint32(6)) | (np.uint32(utf8[i + 1]) & np.uint32(0x3F))
            i += 2
        elif a < 0xF0 and i + 2 < end:
            codes[n] = (
                ((a & np.uint32(0x0F)) << np.uint32(12))
                | ((np.uint32(utf8[i + 1]) & np.uint32(0x3F)) << np.uint32(6))
                | (np.uint32(utf8[i + 2]) & np.uint32(0x3F))
            )
            i += 3
        elif i + 3 < end:
            codes[n] = (
                ((a & np.uint32(0x07)) << np.uint32(18))
                | ((np.uint32(utf8[i + 1]) & np.uint32(0x3F)) << np.uint32(12))
                | ((np.uint32(utf8[i + 2]) & np.uint32(0x3F)) << np.uint32(6))
                | (np.uint32(utf8[i + 3]) & np.uint32(0x3F))
            )
            i += 4
        else:
            codes[n] = a
            i += 1
        n += 1
    return n


@subkernel
def _finish(h):
    h ^= h >> np.uint64(32)
    h *= _MIX
    return h ^ (h >> np.uint64(29))


@subkernel
def _rolling(codes, n, size, out):
    """Hashes of the runs of `size` codes that begin at 0..n - size; returns how many."""
    top = np.uint64(1)
    for _ in range(size - 1):
        top *= _BASE
    h = np.uint64(0)
    for j in range(n):
        if j >= size:
            h -= (np.uint64(codes[j - size]) + np.uint64(1)) * top
        h = h * _BASE + np.uint64(codes[j]) + np.uint64(1)
        if j >= size - 1:
            out[j - size + 1] = _finish(h)
    return max(0, n - size + 1)


@kernel
def _anchors(utf8, offsets, length, gram, places, hashes):  # noqa: C901
    """Fills `places` (text, first, last) and `hashes`; how many, or -1 where there is no room.

    Of equal smallest hashes the one chosen before stays, else the last: a text of one repeated letter has an anchor a
    window's length, not one a character.
    """
    longest = 0
    for d in range(len(offsets) - 1):
        longest = max(longest, offsets[d + 1] - offsets[d])
    codes = np.empty(longest + 1, np.uint32)
    grams = np.empty(longest + 1, np.uint64)
    span = length - gram + 1
    k = 0
    for d in range(len(offsets) - 1):
        n = _decode(utf8, offsets[d], offsets[d + 1], codes)
        if n < length:
            continue
        count = _rolling(codes, n, gram, grams)
        best = -1
        for window in range(count - span + 1):
            newest = window + span - 1
            before = best
            if best < window:
                best = window
                for j in range(window + 1, newest + 1):
                    if grams[j] <= grams[best]:
                        best = j
            elif grams[newest] < grams[best]:
                best = newest
            if best == before:
                places[k - 1, 2] = window
            else:
                if k >= len(hashes):
                    return -1
                places[k, 0], places[k, 1], places[k, 2] = d, window, window
                hashes[k] = grams[best]
                k += 1
    return k


@kernel
def _contexts(utf8, offsets, text, first, bounds, out):
    longest = 0
    for d in range(len(offsets) - 1):
        longest = max(longest, offsets[d + 1] - offsets[d])
    codes = np.empty(longest + 1, np.uint32)
    at = -1
    for row in range(len(text)):
        if text[row] != at:
            at = text[row]
            _decode(utf8, offsets[at], offsets[at + 1], codes)
        low = bounds[row]
        for j in range(bounds[row + 1] - low):
            out[low + j] = codes[first[row] + j]


@subkernel
def _equal(codes, a, b, length):
    for j in range(length):  # noqa: SIM110 - numba takes no generator
        if codes[a + j] != codes[b + j]:
            return False
    return True


@kernel
def _repeats(codes, starts, sizes, node, first, edges, length, out):  # noqa: C901
    """Fills `out` (node, start, end) with runs that repeat; how many, or -1 where there is no room.

    Rows are in survivor order within a bucket, so what stands in the table is the first of its kind.
    """
    widest = 0
    longest = 0
    for row in range(len(sizes)):
        longest = max(longest, sizes[row])
    for bucket in range(len(edges) - 1):
        total = 0
        for row in range(edges[bucket], edges[bucket + 1]):
            total += sizes[row] - length + 1
        if edges[bucket + 1] - edges[bucket] > 1:
            widest = max(widest, total)
    slots = 16
    while slots < 2 * widest:
        slots *= 2
    keys = np.zeros(slots, np.uint64)
    owner = np.full(slots, -1, np.int32)  # row of the first occurrence
    place = np.zeros(slots, np.int32)  # window of that row
    hashes = np.empty(longest + 1, np.uint64)
    k = 0
    for bucket in range(len(edges) - 1):
        low, high = edges[bucket], edges[bucket + 1]
        if high - low < 2:
            continue
        total = 0
        for row in range(low, high):
            total += sizes[row] - length + 1
        used = 16
        while used < 2 * total:
            used *= 2
        owner[:used] = -1
        mask = np.uint64(used - 1)
        for row in range(low, high):
            windows = sizes[row] - length + 1
            _rolling(codes[starts[row] : starts[row] + sizes[row]], sizes[row], length, hashes)
            run = -1  # window at which the current run of repeats began
            ally = -1  # row that the window before repeats, and its window there
            shift = 0
            for window in range(windows):
                repeated = False
                here = starts[row] + window
                if ally >= 0 and shift + 1 < sizes[ally] - length + 1:
                    shift += 1
                    if codes[starts[ally] + shift + length - 1] == codes[here + length - 1]:
                        repeated = True
                if not repeated:
                    ally = -1
                    h = hashes[window]
                    slot = h & mask
                    collisions = 0
                    while owner[slot] >= 0 and collisions < _MOST_COLLISIONS:
                        if keys[slot] == h:
                            other = owner[slot]
                            if _equal(codes, starts[other] + place[slot], here, length):
                                if (
                                    node[other] != node[row]
                                    or first[other] + place[slot] + length <= first[row] + window
                                ):
                                    repeated = True
                                    ally = other
                                    shift = place[slot]
                                break
                            collisions += 1
                        slot = (slot + np.uint64(1)) & mask
                    if owner[slot] < 0:
                        keys[slot] = h
                        owner[slot] = row
                        place[slot] = window
                if repeated and run < 0:
                    run = window
                if run >= 0 and (not repeated or window == windows - 1):
                    last = window if repeated else window - 1
                    if k >= len(out):
                        return -1
                    out[k, 0] = node[row]
                    out[k, 1] = first[row] + run
                    out[k, 2] = first[row] + last + length
                    k += 1
                    run = -1
    return k
