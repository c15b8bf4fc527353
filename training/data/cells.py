"""The geometry of a cell: its shards, cut into full stretches and a stream of tails.

Full stretches are numbered shard by shard in manifest order; what is left of every shard (fewer than S
tokens each) is joined, in the same order, into the tail stream. Appended shards come last, so neither a
stretch number nor a place in the tail stream ever changes when a crawl is appended.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import numpy.typing as npt

from pipelines.errors import ConfigError


@dataclass(frozen=True, slots=True)
class Span:
    """Tokens [first, first + tokens) of one shard of the cell."""

    shard: int
    first: int
    tokens: int


@dataclass(frozen=True, slots=True)
class Place:
    """Where a token lies in the geometry; a tail token's offset counts in the tail stream (stretch 0)."""

    kind: Literal["stretch", "tail"]
    stretch: int
    offset: int


@dataclass(frozen=True, slots=True, eq=False)
class CellGeometry:
    """Shard sizes in tokens, in manifest order, and the stretch; `units` names the shards."""

    name: str
    shard_tokens: tuple[int, ...]
    stretch_tokens: int
    units: tuple[str, ...] = ()
    _stretch_ends: npt.NDArray[np.int64] = field(init=False, repr=False)
    _tail_ends: npt.NDArray[np.int64] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        """Build the two cumulative tables, one entry a shard."""
        if self.stretch_tokens < 1:
            raise ConfigError(
                f"cell {self.name!r}: stretch_tokens is {self.stretch_tokens}; expected at least 1"
            )
        if self.units and len(self.units) != len(self.shard_tokens):
            raise ConfigError(
                f"cell {self.name!r}: {len(self.units)} units for {len(self.shard_tokens)} shards"
            )
        tokens = np.asarray(self.shard_tokens, dtype=np.int64)
        if tokens.size and tokens.min() < 0:
            raise ConfigError(f"cell {self.name!r}: a shard has {tokens.min()} tokens")
        object.__setattr__(self, "_stretch_ends", np.cumsum(tokens // self.stretch_tokens))
        object.__setattr__(self, "_tail_ends", np.cumsum(tokens % self.stretch_tokens))

    @property
    def stretches(self) -> int:
        """Full stretches in the cell."""
        return int(self._stretch_ends[-1]) if self.shard_tokens else 0

    @property
    def tail_tokens(self) -> int:
        """Tokens of the tail stream."""
        return int(self._tail_ends[-1]) if self.shard_tokens else 0

    @property
    def tokens(self) -> int:
        """Tokens of the cell, that is of one lap."""
        return self.stretches * self.stretch_tokens + self.tail_tokens

    def stretch_span(self, stretch: int, offset: int, tokens: int) -> Span:
        """Where tokens [offset, offset + tokens) of a full stretch lie."""
        shard = int(np.searchsorted(self._stretch_ends, stretch, side="right"))
        before = int(self._stretch_ends[shard - 1]) if shard else 0
        return Span(shard, (stretch - before) * self.stretch_tokens + offset, tokens)

    def tail_spans(self, offset: int, tokens: int) -> list[Span]:
        """Where tokens [offset, offset + tokens) of the tail stream lie: one span for every shard touched."""
        spans: list[Span] = []
        while tokens > 0:
            shard = int(np.searchsorted(self._tail_ends, offset, side="right"))
            before = int(self._tail_ends[shard - 1]) if shard else 0
            size = self.shard_tokens[shard]
            taken = min(tokens, int(self._tail_ends[shard]) - offset)
            first = size - size % self.stretch_tokens + offset - before
            spans.append(Span(shard, first, taken))
            offset, tokens = offset + taken, tokens - taken
        return spans

    def place(self, shard: int, token: int) -> Place:
        """The inverse of both: the stretch or tail place of a shard's token."""
        size = self.shard_tokens[shard]
        if not 0 <= token < size:
            raise IndexError(f"cell {self.name!r}: shard {shard} has {size} tokens, not {token + 1}")
        full = size - size % self.stretch_tokens
        if token < full:
            before = int(self._stretch_ends[shard - 1]) if shard else 0
            return Place("stretch", before + token // self.stretch_tokens, token % self.stretch_tokens)
        before = int(self._tail_ends[shard - 1]) if shard else 0
        return Place("tail", 0, before + token - full)

    def is_extension_of(self, older: CellGeometry) -> bool:
        """Same stretch, the same shards in the same order first; equal geometries count."""
        n = len(older.shard_tokens)
        return (
            self.name == older.name
            and self.stretch_tokens == older.stretch_tokens
            and self.shard_tokens[:n] == older.shard_tokens
            and self.units[: len(older.units)] == older.units
        )

    def equals(self, other: CellGeometry) -> bool:
        """Same shards, same stretch."""
        return self.is_extension_of(other) and other.is_extension_of(self)


def geometry(
    name: str, shard_tokens: Sequence[int], stretch_tokens: int, units: Sequence[str] = ()
) -> CellGeometry:
    """A CellGeometry from any sequences."""
    return CellGeometry(name, tuple(int(n) for n in shard_tokens), stretch_tokens, tuple(units))
