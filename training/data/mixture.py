"""Which cell the next row comes from: earliest deadline first over blocks of 65,536 slots.

Row j of a cell with n of M slots is released at floor(j M / n) and due by ceil((j + 1) M / n); walking the
slots by earliest deadline keeps every cell within one row of its share at *every* prefix. (Rounding
cumulative weights instead is not monotone: a cell would lose rows.) Tables have the block's size and never
grow with the corpus.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Mapping, Sequence
from fractions import Fraction

import numpy as np
import numpy.typing as npt

from pipelines.errors import ConfigError
from pipelines.kernels import kernel

BLOCK_SLOTS = 65_536


def integer_shares(weights: Sequence[float | int | Fraction], slots: int = BLOCK_SLOTS) -> tuple[int, ...]:
    """Shares with sum `slots`, by largest remainder; ties go to the lower cell number."""
    exact = [Fraction(weight) for weight in weights]
    total = sum(exact)
    if not exact or total <= 0 or min(exact) < 0:
        raise ConfigError(f"weights are {list(weights)}; expected at least one, none negative, not all zero")
    quotas = [weight * slots / total for weight in exact]
    shares = [int(quota) for quota in quotas]
    by_remainder = sorted(range(len(quotas)), key=lambda c: (shares[c] - quotas[c], c))
    for cell in by_remainder[: slots - sum(shares)]:
        shares[cell] += 1
    return tuple(shares)


def cell_weights(weights: Mapping[str, float], tokens: Mapping[str, int]) -> dict[str, float]:
    """Weights by cell from weights by name or pattern (`en.web.*`); empty: every cell by its tokens.

    A pattern's weight goes to the cells that match and are not named themselves, by their tokens. ConfigError where a
    name or pattern fits no cell, or a cell fits two patterns.
    """
    if not weights:
        return {cell: float(count) for cell, count in tokens.items() if count}
    named = {name: float(weight) for name, weight in weights.items() if name in tokens}
    given = dict(named)
    by_pattern: dict[str, str] = {}
    for pattern in (name for name in weights if name not in tokens):
        matching = [cell for cell in fnmatch.filter(tokens, pattern) if cell not in named and tokens[cell]]
        if not matching:
            raise ConfigError(
                f"weights name {pattern!r}, which fits no cell with tokens; there are {sorted(tokens)}",
                mend="give weights of the cells that you have, or of patterns such as en.web.*",
            )
        if twice := [cell for cell in matching if cell in by_pattern]:
            raise ConfigError(f"cell {twice[0]!r} fits both {by_pattern[twice[0]]!r} and {pattern!r}: name it itself")
        by_pattern |= dict.fromkeys(matching, pattern)
        total = sum(tokens[cell] for cell in matching)
        given |= {cell: weights[pattern] * tokens[cell] / total for cell in matching}
    return given


class Mixture:
    """The interleaving of cells for a segment; q counts positions from the segment's start."""

    def __init__(self, shares: Sequence[int]) -> None:
        """Build the tables: some milliseconds."""
        if sum(shares) != BLOCK_SLOTS or min(shares, default=-1) < 0:
            raise ConfigError(
                f"shares {list(shares)} sum to {sum(shares)}; expected {BLOCK_SLOTS}, none negative"
            )
        self.shares = tuple(int(share) for share in shares)
        self._cell = np.empty(BLOCK_SLOTS, np.int32)
        _earliest_deadline(np.array(self.shares, np.int64), self._cell)
        self._slots = [np.flatnonzero(self._cell == c).astype(np.int32) for c in range(len(self.shares))]
        self._rank = np.empty(BLOCK_SLOTS, dtype=np.int32)
        for slots in self._slots:
            self._rank[slots] = np.arange(slots.size, dtype=np.int32)
        self._one_cell, self._one_rank = memoryview(self._cell), memoryview(self._rank)  # faster one at a time

    def locate(self, q: int) -> tuple[int, int]:
        """Position -> (cell, row number k of the cell)."""
        block, i = divmod(q, BLOCK_SLOTS)
        cell = self._one_cell[i]
        return cell, block * self.shares[cell] + self._one_rank[i]

    def locate_many(self, q: npt.NDArray[np.int64]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """`locate` of every element: (cells, rows), each (m,)."""
        block, i = np.divmod(np.asarray(q, dtype=np.int64), BLOCK_SLOTS)
        cell = self._cell[i].astype(np.int64)
        return cell, block * np.asarray(self.shares, dtype=np.int64)[cell] + self._rank[i]

    def position(self, cell: int, k: int) -> int:
        """(cell, k) -> position; the inverse of `locate`."""
        block, j = divmod(k, self.shares[cell])
        return block * BLOCK_SLOTS + int(self._slots[cell][j])

    def slots(self, cell: int) -> npt.NDArray[np.int32]:
        """(share,) the slots of a block that are the cell's, ascending."""
        return self._slots[cell]

    def count_before(self, cell: int, q: int) -> int:
        """Rows of the cell among the first q positions: the K_c(q) of the specification."""
        block, i = divmod(q, BLOCK_SLOTS)
        return block * self.shares[cell] + int(np.searchsorted(self._slots[cell], i))


@kernel
def _earliest_deadline(shares, cells):
    """The cell of each slot: of those whose next row is released the one that is due first, ties to the lower."""
    slots = len(cells)
    served = np.zeros(len(shares), np.int64)
    for slot in range(slots):
        best, earliest = -1, np.int64(0)
        for c in range(len(shares)):
            if served[c] < shares[c] and served[c] * slots // shares[c] <= slot:
                due = ((served[c] + 1) * slots + shares[c] - 1) // shares[c]
                if best < 0 or due < earliest:
                    best, earliest = c, due
        cells[slot] = best
        served[best] += 1
