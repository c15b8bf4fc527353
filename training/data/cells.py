"""The geometry of a cell: its shards, cut into full stretches and a stream of tails.

Full stretches are numbered shard by shard in manifest order; what is left of every shard (fewer than S
tokens each) is joined, in the same order, into the tail stream. Appended shards come last, so neither a
stretch number nor a place in the tail stream ever changes when a crawl is appended.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import accumulate

from pipelines.errors import ConfigError


@dataclass(frozen=True, slots=True, eq=False)
class CellGeometry:
    """Shard sizes in tokens, in manifest order, and the stretch; `units` names the shards."""

    name: str
    shard_tokens: tuple[int, ...]
    stretch_tokens: int
    units: tuple[str, ...] = ()
    stretches: int = field(init=False)
    tail_tokens: int = field(init=False)
    tokens: int = field(init=False)  # of the cell, that is of one lap
    stretch_ends: tuple[int, ...] = field(init=False, repr=False)  # full stretches up to each shard's end
    tail_ends: tuple[int, ...] = field(init=False, repr=False)  # tail tokens up to each shard's end

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
        if self.shard_tokens and min(self.shard_tokens) < 0:
            raise ConfigError(f"cell {self.name!r}: a shard has {min(self.shard_tokens)} tokens")
        stretch_ends = tuple(accumulate(tokens // self.stretch_tokens for tokens in self.shard_tokens))
        tail_ends = tuple(accumulate(tokens % self.stretch_tokens for tokens in self.shard_tokens))
        object.__setattr__(self, "stretch_ends", stretch_ends)
        object.__setattr__(self, "tail_ends", tail_ends)
        object.__setattr__(self, "stretches", stretch_ends[-1] if stretch_ends else 0)
        object.__setattr__(self, "tail_tokens", tail_ends[-1] if tail_ends else 0)
        object.__setattr__(self, "tokens", self.stretches * self.stretch_tokens + self.tail_tokens)

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
