"""The token stream of a cell: laps of permuted stretches, then the tails; growth in mid-lap.

Lap e is the cell's n stretches in permuted order followed by the tail stream, exactly all of its tokens.
When an appended crawl extends the cell with the cursor inside a lap, the lap gets a new *stage*: the rest
of the open stretch, a fresh permutation of what is left and what is new, the rest of the tails. Stages
nest; every one is a bijection onto what the earlier ones left over, so no token comes twice in a lap and
none is lost, and the inverse walks the same stages. The state is two integers, (lap, used); the stages
follow from the plan's earlier segments.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Literal

from pipelines.errors import ConfigError, IntegrityError
from training.data.cells import CellGeometry, Place, Span
from training.data.permutation import Permutation, round_keys


@dataclass(frozen=True, slots=True)
class Piece:
    """A run of tokens of one lap from one stretch, or from the tail stream (stretch 0)."""

    lap: int
    kind: Literal["stretch", "tail"]
    stretch: int
    offset: int
    tokens: int


@dataclass(frozen=True, slots=True)
class _Stage:
    """One order of what a lap had left when the stage began, at token `start` of the lap.

    Layout: `head_tokens` of the stretch that was open, then `items` permuted stretches, then the tail stream
    from `tail_start`.  Place y < `carried` of the permutation is item `first_item` + y of the stage before,
    the others are the appended stretches, numbered from `stretches_before` on.
    """

    start: int
    head_stretch: int
    head_offset: int
    head_tokens: int
    first_item: int
    carried: int
    stretches_before: int
    items: int
    tail_start: int


@dataclass(frozen=True, slots=True)
class CellStream:
    """A cell's tokens from a cursor on; immutable, every move returns another stream."""

    seed: int
    geometry: CellGeometry
    lap: int
    used: int
    stages: tuple[_Stage, ...]

    @classmethod
    def begin(cls, seed: int, geometry: CellGeometry, lap: int = 0) -> CellStream:
        """The stream at the start of a lap."""
        return cls(seed, geometry, lap, 0, (_plain_lap(geometry),))

    @property
    def cursor(self) -> tuple[int, int]:
        """(lap, tokens of it used)."""
        return self.lap, self.used

    def advanced(self, tokens: int) -> CellStream:
        """The stream after `tokens` more."""
        if tokens and not self.geometry.tokens:
            raise ConfigError(f"cell {self.geometry.name!r} is empty and cannot give {tokens} tokens")
        if not tokens:
            return self
        laps, used = divmod(self.used + tokens, self.geometry.tokens)
        stages = (_plain_lap(self.geometry),) if laps else self.stages
        return replace(self, lap=self.lap + laps, used=used, stages=stages)

    def grown(self, newer: CellGeometry) -> CellStream:
        """The stream over a version that extends this one: the open lap goes on in a new stage."""
        if not newer.is_extension_of(self.geometry):
            raise IntegrityError(
                f"cell {newer.name!r}: the new version does not begin with the "
                f"{len(self.geometry.shard_tokens)} shards of the old one",
                mend="a refiltered or retokenized version needs a cell name of its own",
            )
        stage = _next_stage(self.stages[-1], self, newer)
        return replace(self, geometry=newer, stages=(*self.stages, stage))

    def restretched(self, newer: CellGeometry) -> CellStream:
        """The stream with another stretch length; only where a lap starts."""
        if self.used:
            raise ConfigError(
                f"cell {newer.name!r}: stretch_tokens changes from {self.geometry.stretch_tokens} to "
                f"{newer.stretch_tokens} with {self.used} tokens of lap {self.lap} used; it may change only "
                "at a lap's start"
            )
        return CellStream.begin(self.seed, newer, self.lap)

    def pieces(self, first: int, tokens: int) -> list[Piece]:
        """Tokens [first, first + tokens) after the cursor."""
        if tokens and not self.geometry.tokens:
            raise ConfigError(f"cell {self.geometry.name!r} is empty and cannot give {tokens} tokens")
        found: list[Piece] = []
        at = self.used + first
        while tokens > 0:
            ahead, used = divmod(at, self.geometry.tokens)
            piece = self._piece(ahead, used, tokens)
            found.append(piece)
            at, tokens = at + piece.tokens, tokens - piece.tokens
        return found

    def spans(self, piece: Piece) -> list[Span]:
        """Where a piece lies in the shards; a tail piece gives one span for every shard it touches."""
        if piece.kind == "tail":
            return self.geometry.tail_spans(piece.offset, piece.tokens)
        return [self.geometry.stretch_span(piece.stretch, piece.offset, piece.tokens)]

    def find(self, place: Place, lap: int) -> int | None:
        """The token number after the cursor at which `lap` shows this place; None if it is passed."""
        if lap < self.lap:
            return None
        stages = self.stages if lap == self.lap else (_plain_lap(self.geometry),)
        used = self._find_in_lap(place, lap, stages)
        after = (lap - self.lap) * self.geometry.tokens + used - self.used
        return after if after >= 0 else None

    def _piece(self, ahead: int, used: int, tokens: int) -> Piece:
        """The longest piece at token `used` of the lap `ahead` laps after the open one."""
        lap = self.lap + ahead
        stages = self.stages if not ahead else (_plain_lap(self.geometry),)
        stage, size = stages[-1], self.geometry.stretch_tokens
        v = used - stage.start
        if v < stage.head_tokens:
            return Piece(
                lap, "stretch", stage.head_stretch, stage.head_offset + v, min(tokens, stage.head_tokens - v)
            )
        item, offset = divmod(v - stage.head_tokens, size)
        if item < stage.items:
            stretch = self._item(stages, lap, len(stages) - 1, item)
            return Piece(lap, "stretch", stretch, offset, min(tokens, size - offset))
        at = stage.tail_start + v - stage.head_tokens - stage.items * size
        return Piece(lap, "tail", 0, at, min(tokens, self.geometry.tail_tokens - at))

    def _item(self, stages: tuple[_Stage, ...], lap: int, growth: int, item: int) -> int:
        """The stretch at place `item` of a stage's permutation."""
        while True:
            stage = stages[growth]
            y = self._permutation(stage, lap, growth).forward(item)
            if y >= stage.carried:
                return stage.stretches_before + y - stage.carried
            growth, item = growth - 1, stage.first_item + y

    def _find_in_lap(self, place: Place, lap: int, stages: tuple[_Stage, ...]) -> int:
        """The token number in the lap: the earliest stage that still reaches the place."""
        size = self.geometry.stretch_tokens
        item: int | None = None
        for growth, stage in enumerate(stages):
            end = stages[growth + 1].start if growth + 1 < len(stages) else None
            if place.kind == "tail":
                v = stage.head_tokens + stage.items * size + place.offset - stage.tail_start
            elif stage.head_tokens and place.stretch == stage.head_stretch:
                v = place.offset - stage.head_offset
            else:
                item = self._place_in_stage(stage, lap, growth, place.stretch, item)
                if item is None:  # a stretch that a later version brings
                    continue
                v = stage.head_tokens + item * size + place.offset
            if end is None or stage.start + v < end:
                return stage.start + v
        raise IndexError(f"cell {self.geometry.name!r}: {place} is not in the geometry")

    def _place_in_stage(
        self, stage: _Stage, lap: int, growth: int, stretch: int, before: int | None
    ) -> int | None:
        if stretch >= stage.stretches_before:
            y = stage.carried + stretch - stage.stretches_before
        elif before is not None:
            y = before - stage.first_item
        else:
            return None
        return self._permutation(stage, lap, growth).inverse(y) if 0 <= y < stage.items else None

    def _permutation(self, stage: _Stage, lap: int, growth: int) -> Permutation:
        return _permutation(stage.items, self.seed, lap, growth, self.geometry.name)


def _plain_lap(geometry: CellGeometry) -> _Stage:
    return _Stage(
        start=0,
        head_stretch=-1,
        head_offset=0,
        head_tokens=0,
        first_item=0,
        carried=0,
        stretches_before=0,
        items=geometry.stretches,
        tail_start=0,
    )


def _next_stage(stage: _Stage, stream: CellStream, newer: CellGeometry) -> _Stage:
    """What stream.used of the lap leaves of `stage`, and the stretches that `newer` adds."""
    size = newer.stretch_tokens
    head = (-1, 0, 0)
    tail_start = stage.tail_start
    v = stream.used - stage.start
    if v < stage.head_tokens:
        head = (stage.head_stretch, stage.head_offset + v, stage.head_tokens - v)
        first_item = 0
    else:
        first_item, offset = divmod(v - stage.head_tokens, size)
        if first_item >= stage.items:
            first_item = stage.items
            tail_start += v - stage.head_tokens - stage.items * size
        elif offset:
            stretch = stream._item(stream.stages, stream.lap, len(stream.stages) - 1, first_item)
            head = (stretch, offset, size - offset)
            first_item += 1
    carried = stage.items - first_item
    before = stream.geometry.stretches
    return _Stage(
        start=stream.used,
        head_stretch=head[0],
        head_offset=head[1],
        head_tokens=head[2],
        first_item=first_item,
        carried=carried,
        stretches_before=before,
        items=carried + newer.stretches - before,
        tail_start=tail_start,
    )


@lru_cache(maxsize=4096)
def _permutation(items: int, seed: int, lap: int, growth: int, cell: str) -> Permutation:
    return Permutation(items, round_keys(seed=seed, lap=lap, growth=growth, cell=cell))
