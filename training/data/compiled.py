"""The order of a segment for many positions at once, compiled: what `Order.row` and `Order.seen_at` say of one.

The state of a segment becomes flat arrays: cells, the stages of the open laps, shard tables. Keys of permutations are
made in Python for the laps that a batch touches. Nothing grows with the corpus but the shard tables.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import chain

import numpy as np
import numpy.typing as npt

from pipelines.kernels import kernel, subkernel
from training.data.laps import CellStream
from training.data.mixture import BLOCK_SLOTS, Mixture
from training.data.permutation import ROUNDS, forward, inverse, round_keys, sides_of

Int64s = npt.NDArray[np.int64]
_LAP_BITS = 48
_TABLES = ("stretch_ends", "tail_ends", "shard_tokens")  # of every cell's geometry, joined

# Columns of a stage: training.data.laps._Stage, then the sides of its permutation's rectangle.
_START, _HEAD_STRETCH, _HEAD_OFFSET, _HEAD, _FIRST, _CARRIED, _BEFORE, _ITEMS, _TAIL, _SIDE_A, _SIDE_B = range(11)
# Columns of a cell.
_STRETCH, _TOKENS, _USED, _SHARDS, _SHARDS_END, _STAGES, _STAGES_END, _STRETCHES, _PLAIN_A, _PLAIN_B = range(10)


@dataclass(frozen=True, slots=True, eq=False)
class RowSpans:
    """Where rows lie: row i has the spans [starts[i], starts[i + 1]), in reading order.

    `cell`, `k` (rows,); `shard` (of the cell), `first`, `tokens` (spans,); all int64.
    """

    cell: Int64s
    k: Int64s
    starts: Int64s
    shard: Int64s
    first: Int64s
    tokens: Int64s


class CompiledSegment:
    """One segment's cells, from their cursors on."""

    def __init__(self, mixture: Mixture, streams: Sequence[CellStream], sequence_length: int) -> None:
        """Flatten; a few microseconds a cell and shard."""
        self._mixture, self._streams, self._length = mixture, tuple(streams), sequence_length
        cells, stages, keys = [], [], []
        shards = 0
        for stream in streams:
            shape = stream.geometry
            plain = sides_of(shape.stretches)
            count = len(shape.shard_tokens)
            first, end = len(stages), len(stages) + len(stream.stages)
            row = [shape.stretch_tokens, shape.tokens, stream.used, shards, shards + count, first, end]
            cells.append([*row, shape.stretches, *plain])
            shards += count
            for growth, stage in enumerate(stream.stages):
                row = [stage.start, stage.head_stretch, stage.head_offset, stage.head_tokens, stage.first_item]
                row += [stage.carried, stage.stretches_before, stage.items, stage.tail_start, *sides_of(stage.items)]
                stages.append(row)
                keys.append(_keys(stream.seed, stream.lap, growth, shape.name))
        self._cells = np.array(cells, np.int64).reshape(-1, 10)
        stage_table = np.array(stages, np.int64).reshape(-1, 11)
        stage_keys = np.array(keys, np.uint64).reshape(-1, ROUNDS)
        shapes = [stream.geometry for stream in streams]
        self._used, self._tokens = [stream.used for stream in streams], [shape.tokens for shape in shapes]
        tables = [_joined(getattr(shape, name) for shape in shapes) for name in _TABLES]
        self._state = (self._cells, stage_table, stage_keys, *tables)
        self._one_cell = [np.array([cell]) for cell in range(len(streams))]
        self._one_lap: dict[tuple[int, int], tuple[Int64s, npt.NDArray[np.uint64]]] = {}

    def spans(self, q: Int64s) -> RowSpans:
        """Where the rows at `q` positions after the segment's start lie; (m,) -> RowSpans of m rows."""
        cell, k = self._mixture.locate_many(q)
        first = self._cells[cell, _USED] + k * self._length
        tokens = self._cells[cell, _TOKENS]
        ahead = np.concatenate([first // tokens, (first + self._length - 1) // tokens])
        # A row may reach over more than two laps of a cell that is smaller than the row.
        short = tokens < self._length
        more = [
            np.arange(low, high + 1)
            for low, high in zip(ahead[: len(q)][short], ahead[len(q) :][short], strict=True)
        ]
        cells = np.concatenate([cell, cell, np.repeat(cell[short], [len(laps) for laps in more])])
        laps, lap_keys = self._later_keys(cells, np.concatenate([ahead, *more]))
        starts = np.empty(len(q) + 1, np.int64)
        out = np.empty((4 * len(q) + 64, 3), np.int64)
        while True:
            count = _row_spans(cell, k, self._length, *self._state, laps, lap_keys, starts, out)
            if count <= len(out):
                return RowSpans(cell, k, starts, *(np.ascontiguousarray(column) for column in out[:count].T))
            out = np.empty((count, 3), np.int64)

    def row(self, cell: int, k: int) -> list[list[int]]:
        """[shard, first, tokens] of each span of row `k` of a cell."""
        first = self._used[cell] + k * self._length
        lap, last = first // self._tokens[cell], (first + self._length - 1) // self._tokens[cell]
        laps, lap_keys = self._lap_keys(cell, lap, last)
        starts, out = np.empty(2, np.int64), np.empty((8, 3), np.int64)
        while True:
            number = np.array([k])
            count = _row_spans(
                self._one_cell[cell], number, self._length, *self._state, laps, lap_keys, starts, out
            )
            if count <= len(out):
                return out[:count].tolist()
            out = np.empty((count, 3), np.int64)

    def position(self, cell: int, shard: int, token: int, ahead: int) -> tuple[int, int] | None:
        """What `positions` says of one token; None where the cursor has passed it."""
        laps, lap_keys = self._lap_keys(cell, ahead, ahead)
        asked, found = np.array([[shard], [token], [ahead]]), np.empty(1, np.int64)
        if _token_numbers(cell, asked[0], asked[1], asked[2], *self._state, laps, lap_keys, found) >= 0:
            raise IndexError(f"cell {self._streams[cell].geometry.name!r}: no token {token} in shard {shard}")
        if found[0] < 0:
            return None
        k, offset = divmod(int(found[0]), self._length)
        return self._mixture.position(cell, k), offset

    def positions(self, cell: int, shard: Int64s, token: Int64s, ahead: Int64s) -> tuple[Int64s, Int64s]:
        """(positions after the segment's start, offsets in the row) at which tokens of a cell are shown, (m,) each.

        `ahead` counts laps after the open one. Position -1: the cursor has passed the token in that lap. Whether the
        segment reaches the position is the caller's to see.
        """
        shard, token, ahead = (np.asarray(values, np.int64) for values in (shard, token, ahead))
        laps, lap_keys = self._later_keys(np.full(len(ahead), cell, np.int64), ahead)
        found = np.empty(len(shard), np.int64)
        bad = _token_numbers(cell, shard, token, ahead, *self._state, laps, lap_keys, found)
        if bad >= 0:
            raise IndexError(f"cell {self._streams[cell].geometry.name!r}: no token {token[bad]} in shard {shard[bad]}")
        k, offset = np.divmod(found, self._length)
        share = self._mixture.shares[cell]
        slots = self._mixture.slots(cell)
        block, j = np.divmod(np.maximum(k, 0), share)
        return np.where(found < 0, -1, block * BLOCK_SLOTS + slots[j]), np.where(found < 0, 0, offset)

    def _lap_keys(self, cell: int, lap: int, last: int) -> tuple[Int64s, npt.NDArray[np.uint64]]:
        """`_later_keys` of one row: nearly always of one lap, which the next rows of the cell have too."""
        if lap != last:
            return self._later_keys(np.full(last - lap + 1, cell), np.arange(lap, last + 1))
        if (known := self._one_lap.get((cell, lap))) is None:
            if len(self._one_lap) >= 65_536:
                self._one_lap.clear()
            known = self._one_lap[cell, lap] = self._later_keys(np.array([cell]), np.array([lap]))
        return known

    def _later_keys(self, cells: Int64s, ahead: Int64s) -> tuple[Int64s, npt.NDArray[np.uint64]]:
        """(n, 2) distinct (cell, laps ahead of the open one) in order, those of the open lap left out; (n, 16) keys."""
        later = ahead > 0
        if not later.any():
            return np.zeros((0, 2), np.int64), np.zeros((0, ROUNDS), np.uint64)
        found = np.unique(cells[later] << _LAP_BITS | ahead[later])
        pairs = np.column_stack([found >> _LAP_BITS, found & (1 << _LAP_BITS) - 1])
        keys = []
        for cell, laps in pairs.tolist():
            stream = self._streams[cell]
            keys.append(_keys(stream.seed, stream.lap + laps, 0, stream.geometry.name))
        return pairs, np.array(keys, np.uint64)


def _joined(tables: Iterable[tuple[int, ...]]) -> Int64s:
    return np.fromiter(chain.from_iterable(tables), np.int64)


@lru_cache(maxsize=65_536)
def _keys(seed: int, lap: int, growth: int, cell: str) -> npt.NDArray[np.uint64]:
    return round_keys(seed=seed, lap=lap, growth=growth, cell=cell)


@subkernel
def _after(ends, low, high, value):
    """The first place in ends[low:high] (non-decreasing) whose value is greater; `high` where there is none."""
    while low < high:
        middle = (low + high) >> 1
        if ends[middle] > value:
            high = middle
        else:
            low = middle + 1
    return low


@subkernel
def _lap_row(laps, cell, ahead):
    """The row of `laps` that is (cell, ahead), which is there."""
    low, high = 0, len(laps)
    while low < high:
        middle = (low + high) >> 1
        if laps[middle, 0] < cell or (laps[middle, 0] == cell and laps[middle, 1] < ahead):
            low = middle + 1
        else:
            high = middle
    return low


@kernel
def _row_spans(  # noqa: C901
    cell, k, length, cells, stages, stage_keys, stretch_ends, tail_ends, shard_tokens, laps, lap_keys, starts, out
):
    """Writes (shard, first, tokens) of each span while there is room; how many there are."""
    count = 0
    for i in range(len(cell)):
        starts[i] = count
        c = cell[i]
        shape = cells[c]
        size = shape[_STRETCH]
        at = shape[_USED] + k[i] * length
        left = length
        while left > 0:
            ahead = at // shape[_TOKENS]
            used = at - ahead * shape[_TOKENS]
            stretch = np.int64(-1)
            offset = np.int64(0)
            tail = np.int64(0)
            if ahead == 0:
                last = shape[_STAGES_END] - 1
                stage = stages[last]
                v = used - stage[_START]
                if v < stage[_HEAD]:
                    stretch = stage[_HEAD_STRETCH]
                    offset = stage[_HEAD_OFFSET] + v
                    most = stage[_HEAD] - v
                else:
                    item = (v - stage[_HEAD]) // size
                    offset = v - stage[_HEAD] - item * size
                    most = size - offset
                    if item < stage[_ITEMS]:
                        while True:  # what an earlier stage left over is looked up in that stage
                            stage = stages[last]
                            y = forward(item, stage[_ITEMS], stage[_SIDE_A], stage[_SIDE_B], stage_keys[last])
                            if y >= stage[_CARRIED]:
                                stretch = stage[_BEFORE] + y - stage[_CARRIED]
                                break
                            last -= 1
                            item = stages[last + 1, _FIRST] + y
                    else:
                        tail = stage[_TAIL] + v - stage[_HEAD] - stage[_ITEMS] * size
            else:
                item = used // size
                offset = used - item * size
                most = size - offset
                if item < shape[_STRETCHES]:
                    keys = lap_keys[_lap_row(laps, c, ahead)]
                    stretch = forward(item, shape[_STRETCHES], shape[_PLAIN_A], shape[_PLAIN_B], keys)
                else:
                    tail = used - shape[_STRETCHES] * size
            low, high = shape[_SHARDS], shape[_SHARDS_END]
            if stretch >= 0:
                shard = _after(stretch_ends, low, high, stretch)
                before = stretch_ends[shard - 1] if shard > low else 0
                first = (stretch - before) * size + offset
                taken = min(left, most)
            else:
                shard = _after(tail_ends, low, high, tail)
                before = tail_ends[shard - 1] if shard > low else 0
                whole = shard_tokens[shard]
                first = whole - whole % size + tail - before
                taken = min(left, tail_ends[shard] - tail)
            if count < len(out):
                out[count, 0] = shard - low
                out[count, 1] = first
                out[count, 2] = taken
            count += 1
            at += taken
            left -= taken
    starts[len(cell)] = count
    return count


@kernel
def _token_numbers(  # noqa: C901
    c, shards, tokens, aheads, cells, stages, stage_keys, stretch_ends, tail_ends, shard_tokens, laps, lap_keys, found
):
    """The number after the cursor of each token in each lap, -1 where it is passed; which row names no token, or -1."""
    shape = cells[c]
    size = shape[_STRETCH]
    low = shape[_SHARDS]
    for i in range(len(shards)):
        shard = low + shards[i]
        if shards[i] < 0 or shard >= shape[_SHARDS_END] or tokens[i] < 0 or tokens[i] >= shard_tokens[shard]:
            return i
        full = shard_tokens[shard] - shard_tokens[shard] % size
        is_tail = tokens[i] >= full
        stretch = np.int64(-1)
        if is_tail:
            offset = tokens[i] - full + (tail_ends[shard - 1] if shard > low else 0)
        else:
            stretch = tokens[i] // size + (stretch_ends[shard - 1] if shard > low else 0)
            offset = tokens[i] % size
        if aheads[i] > 0:
            if is_tail:
                used = shape[_STRETCHES] * size + offset
            else:
                keys = lap_keys[_lap_row(laps, c, aheads[i])]
                used = inverse(stretch, shape[_STRETCHES], shape[_PLAIN_A], shape[_PLAIN_B], keys) * size + offset
        else:
            item = np.int64(-1)
            used = np.int64(-1)
            for g in range(shape[_STAGES], shape[_STAGES_END]):
                stage = stages[g]
                if is_tail:
                    v = stage[_HEAD] + stage[_ITEMS] * size + offset - stage[_TAIL]
                elif stage[_HEAD] > 0 and stretch == stage[_HEAD_STRETCH]:
                    v = offset - stage[_HEAD_OFFSET]
                else:
                    if stretch >= stage[_BEFORE]:
                        y = stage[_CARRIED] + stretch - stage[_BEFORE]
                    elif item >= 0:
                        y = item - stage[_FIRST]
                    else:
                        continue
                    if y < 0 or y >= stage[_ITEMS]:
                        item = np.int64(-1)
                        continue
                    item = inverse(y, stage[_ITEMS], stage[_SIDE_A], stage[_SIDE_B], stage_keys[g])
                    v = stage[_HEAD] + item * size + offset
                used = stage[_START] + v
                if g + 1 == shape[_STAGES_END] or used < stages[g + 1, _START]:
                    break
        number = aheads[i] * shape[_TOKENS] + used - shape[_USED]
        found[i] = max(number, np.int64(-1))
    return -1
