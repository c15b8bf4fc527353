"""The index of the evaluation sets, and what of it stands in documents."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa

from pipelines.decontamination.benchmarks import Example
from pipelines.decontamination.grams import units_of, windows

CONTAMINATION = pa.schema(
    [
        pa.field("id", pa.string(), metadata={"doc": "document id, as a check of the alignment"}),
        pa.field("contamination.hits", pa.int64(), metadata={"doc": "n-grams of evaluation sets; not guarded ones"}),
        pa.field("contamination.share", pa.float64(), metadata={"doc": "share of the text's units in them, on 1e-4"}),
        pa.field("contamination.benchmark", pa.string(), metadata={"doc": "the set with most of them"}),
        pa.field("contamination.example", pa.string(), metadata={"doc": "its example with most of them"}),
        pa.field(
            "contamination.example_share", pa.float64(), metadata={"doc": "share of that example's n-grams, on 1e-4"}
        ),
    ]
)


@dataclass(frozen=True)
class Index:
    """`digests` sorted (uint64); by digest the example (int32) and place (int32) where it stands first."""

    digests: np.ndarray
    owner: np.ndarray
    place: np.ndarray
    size: np.ndarray
    grams: np.ndarray  # by example, how many n-grams it has
    examples: Sequence[Example]

    @cached_property
    def units(self) -> dict[int, list[str]]:
        """Units of the examples that were asked for."""
        return {}

    def window(self, row: int) -> list[str]:
        """The units of the n-gram in this row."""
        owner = int(self.owner[row])
        if owner not in self.units:
            self.units[owner] = units_of(self.examples[owner].text)
        return self.units[owner][self.place[row] : self.place[row] + self.size[row]]

    def to_tables(self) -> tuple[pa.Table, pa.Table]:
        """(n-grams, examples) as they are stored for the workers."""
        grams = pa.table({"digest": self.digests, "owner": self.owner, "place": self.place, "size": self.size})
        examples = pa.table(
            {
                "benchmark": [e.benchmark for e in self.examples],
                "name": [e.name for e in self.examples],
                "text": [e.text for e in self.examples],
                "grams": self.grams,
            }
        )
        return grams, examples

    @staticmethod
    def from_tables(grams: pa.Table, examples: pa.Table) -> Index:
        """What `to_tables` gave."""
        columns = {name: np.asarray(grams[name].combine_chunks()) for name in grams.column_names}
        rows = examples.drop_columns(["grams"]).to_pylist()
        return Index(
            digests=columns["digest"], owner=columns["owner"], place=columns["place"], size=columns["size"],
            grams=np.asarray(examples["grams"].combine_chunks()), examples=[Example(**row) for row in rows],
        )  # fmt: skip


def build_index(examples: Sequence[Example]) -> Index:
    """Every n-gram of the examples, once."""
    found = windows(pa.array([example.text for example in examples], pa.large_string()))
    digests, first = np.unique(found.value, return_index=True)
    grams = np.bincount(found.row, minlength=len(examples))
    return Index(digests, found.row[first], found.place[first], found.size[first], grams, examples)


def count_hits(texts: pa.Array | pa.ChunkedArray, counted: np.ndarray, index: Index) -> tuple[np.ndarray, np.ndarray]:
    """(rows of the index, documents of `texts` that hold it); `counted` (n,) bool: the others are left out."""
    found = windows(texts, index.digests)
    mine = counted[found.row]
    pairs = np.unique(np.stack([found.row[mine].astype(np.int64), found.value[mine].astype(np.int64)]), axis=1)
    return np.unique(pairs[1], return_counts=True)


def annotate(ids: pa.ChunkedArray, texts: pa.ChunkedArray, index: Index, guarded: np.ndarray) -> pa.Table:
    """The annotations (CONTAMINATION) of documents; `guarded` (rows of the index,) bool: n-grams that count nothing.

    A hit is compared unit by unit before it counts.
    """
    found = windows(texts, index.digests)
    by_text: dict[int, list[int]] = defaultdict(list)
    for at in np.flatnonzero(~guarded[found.value.astype(np.int64)]).tolist():
        by_text[int(found.row[at])].append(at)
    rows: list[dict[str, Any]] = []
    for number, name in enumerate(ids.to_pylist()):
        row: dict[str, Any] = {"id": name, "contamination.hits": 0, "contamination.share": 0.0}
        if number in by_text:
            row |= _told(texts[number].as_py(), by_text[number], found, index)
        rows.append(row)
    return pa.Table.from_pylist(rows, schema=CONTAMINATION)


def _told(text: str, hits: list[int], found: Any, index: Index) -> dict[str, Any]:
    units = units_of(text)
    covered = np.zeros(len(units), bool)
    owners: Counter[int] = Counter()
    seen: set[int] = set()
    true = 0
    for at in hits:
        gram, place, size = int(found.value[at]), int(found.place[at]), int(found.size[at])
        if units[place : place + size] != index.window(gram):
            continue  # another n-gram of the same digest
        true += 1
        covered[place : place + size] = True
        if gram not in seen:
            seen.add(gram)
            owners[int(index.owner[gram])] += 1
    if not true:
        return {}
    best = min(owners, key=lambda owner: (-owners[owner], owner))
    example = index.examples[best]
    sets: Counter[str] = Counter()
    for owner, count in owners.items():
        sets[index.examples[owner].benchmark] += count
    benchmark = min(sets, key=lambda name: (-sets[name], name))
    return {
        "contamination.hits": true,
        "contamination.share": round(float(covered.mean()), 4),
        "contamination.benchmark": benchmark,
        "contamination.example": f"{example.benchmark}/{example.name}",
        "contamination.example_share": round(min(1.0, owners[best] / max(1, int(index.grams[best]))), 4),
    }
