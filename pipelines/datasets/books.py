"""The books: what was counted, and the equations that must hold before anything is committed.

A counter is a number and, where records are counted by key, the sum mod 2^128 of the hashes of their keys;
so one lost and one doubled record do not cancel. Names nest with dots: `documents.rejected.too_short`
belongs to the account `rejected` of the equation `documents`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from pipelines.datasets.content import key_sum
from pipelines.errors import IntegrityError

_MASK = (1 << 128) - 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Equation:
    """`total = sum of terms`, for the numbers and, where keys were given, for their sums."""

    total: str
    terms: tuple[str, ...]


class Counters:
    """Counters of one unit."""

    def __init__(self) -> None:
        self.values: dict[str, tuple[int, int]] = {}

    def add(self, name: str, keys: Iterable[bytes]) -> None:
        """Count records by their keys (`file NUL offset`, or an id)."""
        listed = list(keys)
        self._add(name, len(listed), key_sum(listed))

    def add_sum(self, name: str, n: int, total: int) -> None:
        """Count records of whose keys the sum of hashes is known already."""
        self._add(name, n, total)

    def add_count(self, name: str, n: int) -> None:
        """Count without keys: characters, tokens, documents by language."""
        self._add(name, int(n), 0)

    def _add(self, name: str, n: int, total: int) -> None:
        have, have_sum = self.values.get(name, (0, 0))
        self.values[name] = (have + n, (have_sum + total) & _MASK)

    def rows(self) -> list[dict[str, Any]]:
        """As the `counters` column of a part list holds them, by name."""
        return [
            {"name": name, "value": n, "sum": total.to_bytes(16, "big")}
            for name, (n, total) in sorted(self.values.items())
        ]


def total_counters(column: pa.ChunkedArray) -> dict[str, tuple[int, int]]:
    """Totals over a `counters` column, without a Python object a unit."""
    totals: dict[str, tuple[int, int]] = {}
    for chunk in column.chunks:
        flat = chunk.flatten()
        if not len(flat):
            continue
        names = flat.field("name").dictionary_encode()
        codes = np.asarray(names.indices)
        order = np.argsort(codes, kind="stable")
        starts = np.flatnonzero(np.diff(codes[order], prepend=-1))
        numbers = np.add.reduceat(np.asarray(flat.field("value"))[order], starts)
        raw = flat.field("sum").fill_null(bytes(16))
        limbs = np.frombuffer(raw.buffers()[1], np.uint8)[raw.offset * 16 : (raw.offset + len(raw)) * 16]
        limbs = limbs.view(">u4").reshape(-1, 4).astype(np.uint64)[order]
        sums = np.add.reduceat(limbs, starts, axis=0)
        for code, n, parts in zip(codes[order][starts].tolist(), numbers.tolist(), sums.tolist(), strict=True):
            name = names.dictionary[code].as_py()
            have, have_sum = totals.get(name, (0, 0))
            value = sum(int(p) << (32 * (3 - i)) for i, p in enumerate(parts))
            totals[name] = (have + n, (have_sum + value) & _MASK)
    return totals


def check_books(where: str, counters: Mapping[str, tuple[int, int]], equations: Mapping[str, Equation]) -> None:
    """IntegrityError that prints the two sides, where an equation does not hold."""
    for name, equation in equations.items():
        total = _account(counters, name, equation.total)
        terms = [_account(counters, name, t) for t in equation.terms]
        right = (sum(n for n, _ in terms), sum(s for _, s in terms) & _MASK)
        if total != right:
            sides = " + ".join(f"{t} {n}" for t, (n, _) in zip(equation.terms, terms, strict=True))
            kind = "counts" if total[0] != right[0] else "counts agree, but not the records: key sums"
            raise IntegrityError(
                f"the books of {where} do not balance: {name}: {equation.total} {total[0]} = {sides} ({kind})",
                mend="nothing was committed; this is a fault of the job, please report it with this line",
            )


def books_value(counters: Mapping[str, tuple[int, int]], equations: Mapping[str, Equation]) -> dict[str, Any]:
    """The manifest's `books`: nested numbers and the key sum of each total."""
    books: dict[str, Any] = {}
    for name, equation in equations.items():
        book: dict[str, Any] = {}
        for account in (equation.total, *equation.terms):
            n, _ = _account(counters, name, account)
            nested = {
                k.removeprefix(f"{name}.{account}."): v[0]
                for k, v in counters.items()
                if k.startswith(f"{name}.{account}.") and v[0]  # what a retry settled is back at nought
            }
            book[account] = dict(sorted(nested.items())) if nested else n
        book["set_sum"] = f"{_account(counters, name, equation.total)[1]:032x}"
        books[name] = book
    return books


def _account(counters: Mapping[str, tuple[int, int]], equation: str, account: str) -> tuple[int, int]:
    prefix = f"{equation}.{account}"
    found = [v for k, v in counters.items() if k == prefix or k.startswith(prefix + ".")]
    return sum(n for n, _ in found), sum(s for _, s in found) & _MASK
