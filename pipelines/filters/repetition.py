"""Repetition within a text: duplicate lines and paragraphs, frequent and repeated n-grams (Gopher, table A1).

n counts words; in a script without spaces a word is taken as two characters, so the published bounds keep
their meaning.  N-grams are numbered exactly (no hashes): gram(a+b) is the pair of gram(a) and gram(b).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def duplicate_fraction(pieces: Sequence[str]) -> float:
    """Pieces equal to an earlier piece, over pieces; 0.0 for none."""
    return (len(pieces) - len(set(pieces))) / len(pieces) if pieces else 0.0


def duplicate_characters(pieces: Sequence[str]) -> float:
    """Characters in pieces equal to an earlier piece, over characters; 0.0 for none."""
    whole = sum(map(len, pieces))
    return (whole - sum(map(len, set(pieces)))) / whole if whole else 0.0


class Grams:
    """Exact n-gram statistics of one sequence of units."""

    def __init__(self, units: Sequence[str], *, step: int = 1) -> None:
        """`step` units make one word."""
        numbers: dict[str, int] = {}
        self._step = step
        self._lengths = np.array([len(unit) for unit in units], dtype=np.int64)
        self._ends = np.concatenate([[0], np.cumsum(self._lengths)])
        numbered = [numbers.setdefault(unit, len(numbers)) for unit in units]
        self._grams = {1: np.array(numbered, dtype=np.int64)}
        self._no_repeat_from = len(units) + 1  # no n-gram of this size or more occurs twice

    def top_fraction(self, words: int) -> float:
        """Characters in occurrences of the most frequent n-gram, over characters; 0.0 if none occurs twice.

        Overlapping occurrences count once; of equally frequent n-grams the one with most characters counts.
        """
        if words * self._step >= self._no_repeat_from:
            return 0.0
        grams = self._numbered(words * self._step)
        counts = np.bincount(grams)
        most = counts.max()
        if most < 2:
            self._no_repeat_from = words * self._step
            return 0.0
        best = 0
        for gram in np.flatnonzero(counts == most)[:64]:
            best = max(best, self._covered(np.flatnonzero(grams == gram), words * self._step))
        return best / int(self._ends[-1])

    def repeated_fraction(self, words: int) -> float:
        """Characters in n-grams that occurred before, over characters; each character counts once."""
        size = words * self._step
        if size >= self._no_repeat_from:
            return 0.0
        grams = self._numbered(size)
        first_of_each = np.zeros(len(grams), dtype=bool)
        first_of_each[np.unique(grams, return_index=True)[1]] = True
        if first_of_each.all():
            self._no_repeat_from = size
            return 0.0
        return self._covered(np.flatnonzero(~first_of_each), size) / int(self._ends[-1])

    def _covered(self, starts: np.ndarray, size: int) -> int:
        """Characters of all units in [start, start + size) of any start."""
        marks = np.zeros(len(self._lengths) + 1, dtype=np.int64)
        np.add.at(marks, starts, 1)
        np.add.at(marks, starts + size, -1)
        return int(self._lengths[np.cumsum(marks[:-1]) > 0].sum())

    def _numbered(self, size: int) -> np.ndarray:
        """For each start the number of the n-gram there; equal n-grams have equal numbers."""
        if size not in self._grams:
            left, right = self._numbered(size - size // 2), self._numbered(size // 2)
            rows = len(self._lengths) - size + 1
            if rows <= 0:
                self._grams[size] = np.empty(0, dtype=np.int64)
            else:
                pairs = left[:rows] * (int(right.max()) + 1) + right[size - size // 2 :][:rows]
                self._grams[size] = np.unique(pairs, return_inverse=True)[1].astype(np.int64)
        return self._grams[size]
