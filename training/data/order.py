"""position -> (cell, row) -> spans of shards, and back: the order as a pure function of the plan.

The cursors that the plan states are recomputed from its earlier segments, growth in mid-lap included, and a
mismatch is refused: a plan and its data that drifted apart must not train. Nothing here grows with the
corpus but the shard tables.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator
from functools import lru_cache
from typing import NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from pipelines.errors import ConfigError, IntegrityError
from training.data.cells import CellGeometry
from training.data.compiled import CompiledSegment, RowSpans
from training.data.laps import CellStream
from training.data.mixture import Mixture
from training.data.plan import CellPlan, DatasetPin, Plan, Segment


class ShardSizes(Protocol):
    """What the order needs to know of the data: a cell's geometry in one dataset version."""

    def geometry(self, pin: DatasetPin, cell: str, name: str, stretch_tokens: int) -> CellGeometry:
        """The cell `cell` of the pinned version, under the order's name for it."""
        ...


class RowSpan(NamedTuple):
    """Tokens [first, first + tokens) of shard number `shard` of cell `cell` in dataset number `dataset`."""

    dataset: int
    cell: str
    shard: int
    first: int
    tokens: int


class Row(NamedTuple):
    """Where one row comes from.  `spans` are in reading order; each starts a new document."""

    position: int
    segment: int
    cell: int
    k: int
    spans: tuple[RowSpan, ...]


class Order:
    """The order of one plan over its data."""

    def __init__(self, plan: Plan, sizes: ShardSizes) -> None:
        """Recompute every cursor; refuse a plan whose stated ones differ."""
        self.plan = plan
        self._starts = [segment.from_position for segment in plan.segments]
        self._mixtures: list[Mixture] = []
        self._streams: list[list[CellStream]] = []
        self._compiled: list[CompiledSegment | None] = [None] * len(plan.segments)
        known: dict[str, CellStream] = {}
        for number, segment in enumerate(plan.segments):
            self._require_all_cells(known, segment)
            streams = [self._enter(known.get(cell.name), cell, segment, sizes) for cell in segment.cells]
            mixture = _mixture(tuple(cell.share for cell in segment.cells))
            self._mixtures.append(mixture)
            self._streams.append(streams)
            rows = plan.segment_end(number) - segment.from_position
            for c, (cell, stream) in enumerate(zip(segment.cells, streams, strict=True)):
                tokens = mixture.count_before(c, rows) * segment.sequence_length
                known[cell.name] = stream.advanced(tokens)
                self._require_cap(cell, known[cell.name], segment)
        self.cursors = {name: stream.cursor for name, stream in known.items()}

    def row(self, position: int) -> Row:
        """The row at a position."""
        number = self.segment_of(position)
        segment = self.plan.segments[number]
        c, k = self._mixtures[number].locate(position - self._starts[number])
        cell = segment.cells[c]
        dataset, name = cell.dataset, cell.cell
        spans = [RowSpan(dataset, name, *span) for span in self.compiled(number).row(c, k)]
        return Row(position, number, c, k, tuple(spans))

    def stream(self, number: int, cell: int) -> CellStream:
        """The stream of cell number `cell` of segment `number`, at the segment's start."""
        return self._streams[number][cell]

    def rows_before(self, number: int, cell: int, q: int) -> int:
        """Rows of the cell among the first q positions of the segment."""
        return self._mixtures[number].count_before(cell, q)

    def compiled(self, number: int) -> CompiledSegment:
        """Segment `number` for whole batches of positions, made when it is first asked for."""
        if self._compiled[number] is None:
            length = self.plan.segments[number].sequence_length
            self._compiled[number] = CompiledSegment(self._mixtures[number], self._streams[number], length)
        return self._compiled[number]

    def spans(self, positions: npt.NDArray[np.int64]) -> RowSpans:
        """What `row` says of each position, which all lie in one segment; `RowSpans.cell` counts in its cells."""
        number = self.segment_of(int(positions[0]))
        for position in (int(positions.min()), int(positions.max())):
            if self.segment_of(position) != number:
                raise ConfigError(f"positions {int(positions[0])} and {position} are of two segments")
        return self.compiled(number).spans(positions - self.plan.segments[number].from_position)

    def cells_of(self, positions: npt.NDArray[np.int64]) -> list[str]:
        """The name of the cell that each position, all of one segment, reads; (m,) -> m names."""
        if not len(positions):
            return []
        number = self.segment_of(int(positions[0]))
        cells, _ = self._mixtures[number].locate_many(positions - self._starts[number])
        return [self.plan.segments[number].cells[cell].name for cell in cells.tolist()]

    def segment_of(self, position: int) -> int:
        """The number of the segment that holds the position."""
        if not 0 <= position < self.plan.end_position:
            raise IndexError(f"position {position} is outside 0..{self.plan.end_position - 1}")
        return bisect_right(self._starts, position) - 1

    def seen_at(self, name: str, shard: int, token: int) -> Iterator[tuple[int, int]]:
        """Every (position, offset in the row) that shows this token of a cell, skipped rows included."""
        for number, segment in enumerate(self.plan.segments):
            c = next((i for i, cell in enumerate(segment.cells) if cell.name == name), None)
            if c is None or not segment.cells[c].share:
                continue
            stream, mixture = self._streams[number][c], self._mixtures[number]
            if shard >= len(stream.geometry.shard_tokens):
                continue
            rows = mixture.count_before(c, self.plan.segment_end(number) - segment.from_position)
            end = rows * segment.sequence_length
            compiled, last = self.compiled(number), self.plan.segment_end(number) - segment.from_position
            for ahead in range(-(-(stream.used + end) // stream.geometry.tokens)):
                found = compiled.position(c, shard, token, ahead)
                if found is not None and found[0] < last:
                    yield segment.from_position + found[0], found[1]

    def laps_read(self) -> dict[str, float]:
        """Laps of every cell that the whole plan consumes; the last one as a share of its tokens."""
        laps: dict[str, float] = {}
        for segment, streams in zip(self.plan.segments, self._streams, strict=True):
            for cell, stream in zip(segment.cells, streams, strict=True):
                lap, used = self.cursors[cell.name]
                laps[cell.name] = lap + (used / stream.geometry.tokens if used else 0.0)
        return laps

    def _enter(
        self, before: CellStream | None, cell: CellPlan, segment: Segment, sizes: ShardSizes
    ) -> CellStream:
        """The cell's stream at the segment's start."""
        geometry = sizes.geometry(segment.datasets[cell.dataset], cell.cell, cell.name, cell.stretch_tokens)
        if cell.share and not geometry.tokens:
            raise ConfigError(f"cell {cell.name!r} has a share of {cell.share} and no tokens")
        if before is None:
            stream = CellStream.begin(self.plan.seed, geometry)
        elif before.geometry.stretch_tokens != geometry.stretch_tokens:
            stream = before.restretched(geometry)
        elif before.geometry.equals(geometry):
            stream = before
        else:
            stream = before.grown(geometry)
        if stream.cursor != (cell.lap, cell.used):
            raise IntegrityError(
                f"segment from {segment.from_position}, cell {cell.name!r}: the plan states lap {cell.lap}, "
                f"token {cell.used}; its earlier segments lead to lap {stream.lap}, token {stream.used}",
                mend="the plan was not written for these datasets; write the revision again",
            )
        return stream

    def _require_all_cells(self, known: dict[str, CellStream], segment: Segment) -> None:
        missing = sorted(set(known) - {cell.name for cell in segment.cells})
        if missing:
            raise ConfigError(
                f"segment from {segment.from_position} leaves out cells {missing}; all keep their cursors",
                mend="list them with share 0",
            )

    def _require_cap(self, cell: CellPlan, stream: CellStream, segment: Segment) -> None:
        if cell.lap_cap is not None and (stream.lap, stream.used) > (cell.lap_cap, 0):
            raise ConfigError(
                f"segment from {segment.from_position} reads cell {cell.name!r} up to lap {stream.lap}, "
                f"token {stream.used}; its cap is {cell.lap_cap} laps of {stream.geometry.tokens} tokens",
                mend="fewer steps, a smaller weight for the cell, or a higher cap",
            )


@lru_cache(maxsize=64)
def _mixture(shares: tuple[int, ...]) -> Mixture:
    """Segments of one plan often have the same shares; the tables are 0.7 MB."""
    return Mixture(shares)
