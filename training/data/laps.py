"""The token stream of a cell: laps of permuted stretches, then the tails; growth in mid-lap.

Lap e is the cell's n stretches in permuted order followed by the tail stream, exactly all of its tokens.
When an appended crawl extends the cell with the cursor inside a lap, the lap gets a new *stage*: the rest
of the open stretch, a fresh permutation of what is left and what is new, the rest of the tails. Stages
nest; every one is a bijection onto what the earlier ones left over, so no token comes twice in a lap and
none is lost, and the inverse walks the same stages. The state is two integers, (lap, used); the stages
follow from the plan's earlier segments. Here is how they come about; `compiled` says which token is where.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache

from pipelines.errors import ConfigError, IntegrityError
from training.data.cells import CellGeometry
from training.data.permutation import Permutation, round_keys


@dataclass(frozen=True, slots=True)
class Stage:
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
    stages: tuple[Stage, ...]

    @classmethod
    def begin(cls, seed: int, geometry: CellGeometry, lap: int = 0) -> CellStream:
        """The stream at the start of a lap."""
        return cls(seed, geometry, lap, 0, (plain_lap(geometry),))

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
        stages = (plain_lap(self.geometry),) if laps else self.stages
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

    def item(self, stages: tuple[Stage, ...], lap: int, growth: int, item: int) -> int:
        """The stretch at place `item` of a stage's permutation."""
        while True:
            stage = stages[growth]
            y = _permutation(stage.items, self.seed, lap, growth, self.geometry.name).forward(item)
            if y >= stage.carried:
                return stage.stretches_before + y - stage.carried
            growth, item = growth - 1, stage.first_item + y


def plain_lap(geometry: CellGeometry) -> Stage:
    """The one stage of a lap that nothing has grown into."""
    return Stage(
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


def _next_stage(stage: Stage, stream: CellStream, newer: CellGeometry) -> Stage:
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
            stretch = stream.item(stream.stages, stream.lap, len(stream.stages) - 1, first_item)
            head = (stretch, offset, size - offset)
            first_item += 1
    carried = stage.items - first_item
    before = stream.geometry.stretches
    return Stage(
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
