"""Paragraphs and sentences that recur over a corpus: from texts to digests, from counts to the spans that leave.

Texts are read twice in the generation that brings them, once for digests and once for spans, and never again: an
appended crawl is counted with the stored digests of those before it, 8 bytes a paragraph or sentence.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipelines.datasets.parts import read_parquet
from pipelines.datasets.store import Store
from pipelines.dedup.frequency import FREQUENT, Frequent, Sketch, SketchShape, exact_counts
from pipelines.dedup.normalize import utf8_of
from pipelines.dedup.order import survivor_places, survivor_ties
from pipelines.dedup.paragraphs import PARAGRAPH, UnitRules, find_units
from pipelines.dedup.spans import Span, in_characters, tidy_spans

RULES = ("repeated_paragraph", "repeated_sentence")  # by level
POLICIES = ("keep_first", "drop_everywhere")
READ_COLUMNS = ("id", "text", "date", "file", "offset")
DIGESTS = pa.schema(
    [
        pa.field("id", pa.string(), metadata={"doc": "document id"}),
        pa.field("place", pa.int64(), metadata={"doc": "length and date in the survivor order; smaller is better"}),
        pa.field("tie", pa.int64(), metadata={"doc": "the order where places are equal"}),
        pa.field("digests", pa.binary(), metadata={"doc": "8 bytes a unit, sorted; null: the document is not counted"}),
    ]
)


def digest_lines(
    documents: pa.Table,
    counted: np.ndarray,
    rules: UnitRules,
    *,
    per_document: bool,
    order: tuple[np.ndarray, np.ndarray] | None = None,
) -> pa.Table:
    """DIGESTS of documents (READ_COLUMNS); those not `counted` (a copy that another stands for) have none.

    `order`: place and tie, each (n,) int64, where they are not those of `survivor_columns`. With `per_document` a
    unit that stands twice in a document is one.
    """
    texts = pc.if_else(pa.array(counted), documents["text"], pa.scalar(None, documents["text"].type))
    units = find_units(texts, rules)
    by = np.lexsort((units.digest, units.text))
    text, digest = units.text[by], units.digest[by]
    if per_document and len(by):
        fresh = np.ones(len(by), bool)
        fresh[1:] = (text[1:] != text[:-1]) | (digest[1:] != digest[:-1])
        text, digest = text[fresh], digest[fresh]
    sizes = np.bincount(text, minlength=documents.num_rows)
    offsets = np.concatenate([[0], np.cumsum(sizes) * 8]).astype(np.int64)
    packed = pa.Array.from_buffers(
        pa.large_binary(),
        documents.num_rows,
        [None, pa.py_buffer(offsets), pa.py_buffer(np.ascontiguousarray(digest, "<u8"))],
    )
    packed = pc.if_else(pa.array(counted), packed, pa.scalar(None, pa.large_binary())).cast(pa.binary())
    place, tie = order or survivor_columns(documents)
    return pa.table([documents["id"].combine_chunks(), pa.array(place), pa.array(tie), packed], schema=DIGESTS)


def survivor_columns(documents: pa.Table) -> tuple[np.ndarray, np.ndarray]:
    """(place, tie), each (n,) int64, of documents with READ_COLUMNS."""
    characters = pc.fill_null(pc.utf8_length(documents["text"]), 0).cast(pa.int64()).combine_chunks()
    tie = survivor_ties(*(documents[name].to_pylist() for name in ("id", "file", "offset")))
    return survivor_places(characters, documents["date"]), tie


def unpack_digests(column: pa.ChunkedArray) -> tuple[np.ndarray, np.ndarray]:
    """((n,) uint64 digests, (n,) row of each) of a `digests` column."""
    packed = column.combine_chunks().cast(pa.large_binary()).fill_null(b"")
    if isinstance(packed, pa.ChunkedArray):
        packed = packed.combine_chunks()
    sizes = np.asarray(pc.binary_length(packed)) // 8
    body = b"".join(packed.to_pylist())
    return np.frombuffer(body, "<u8"), np.repeat(np.arange(len(sizes)), sizes)


def sketch_parts(store: Store, keys: Iterable[str], shape: SketchShape) -> Sketch:
    """The sketch of these parts of DIGESTS, one in memory at a time."""
    sketch = Sketch(shape)
    for key in keys:
        sketch.add(unpack_digests(read_parquet(store.get(key), ["digests"])["digests"])[0])
    return sketch


def count_parts(
    store: Store, keys: Iterable[str], generation: int, frequent: Frequent, partitions: int
) -> Iterator[tuple[int, pa.Table]]:
    """(partition, COUNTS) of the candidates among these parts' digests; a partition is a range of digests."""
    found: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
    for key in keys:
        table = read_parquet(store.get(key), ["digests", "place", "tie"])
        digests, rows = unpack_digests(table["digests"])
        held = frequent.holds(digests)
        rows = rows[held]
        found.append((digests[held], table["place"].to_numpy()[rows], table["tie"].to_numpy()[rows]))
    if not found:
        return
    digests, place, tie = (np.concatenate(column) for column in zip(*found, strict=True))
    counts = exact_counts(digests, place, tie, generation)
    owner = partition_of(counts["digest"].to_numpy(), partitions)
    for number in np.unique(owner).tolist():
        yield number, counts.filter(pa.array(owner == number))


def partition_of(digests: np.ndarray, partitions: int) -> np.ndarray:
    """(n,) int64 in [0, partitions), which is a power of two: the leading bits, so that partitions are ranges."""
    bits = partitions.bit_length() - 1
    return (digests >> np.uint64(64 - bits)).astype(np.int64) if bits else np.zeros(len(digests), np.int64)


class FrequentUnits:
    """The tables of FREQUENT units of all partitions; kept in memory together only where they are small."""

    def __init__(self, store: Store, keys: Sequence[str], *, most_kept_rows: int = 1 << 23) -> None:
        """`keys` name one table a partition, in order; most_kept_rows * 40 bytes may be kept."""
        self._store, self._keys, self._most = store, list(keys), most_kept_rows
        self._kept: dict[str, pa.Table] = {}
        self._rows = 0

    def find(self, digests: np.ndarray) -> pa.Table:
        """FREQUENT rows of these digests with `at`, the place of each in `digests`; others have no row."""
        found = [FREQUENT.append(pa.field("at", pa.int64())).empty_table()]
        owner = partition_of(digests, len(self._keys)) if self._keys else np.zeros(0, np.int64)
        for number in np.unique(owner).tolist():
            table = self._table(self._keys[number])
            at = np.flatnonzero(owner == number)
            known = table["digest"].to_numpy()
            place = np.searchsorted(known, digests[at])
            hit = place < len(known)
            hit[hit] = known[place[hit]] == digests[at][hit]
            rows = table.take(pa.array(place[hit]))
            found.append(rows.append_column("at", pa.array(at[hit])))
        return pa.concat_tables(found)

    def _table(self, key: str) -> pa.Table:
        if (known := self._kept.get(key)) is not None:
            return known
        table = read_parquet(self._store.get(key))
        if self._rows + table.num_rows <= self._most:
            self._kept[key] = table
            self._rows += table.num_rows
        return table


def line_spans(
    texts: pa.ChunkedArray, digests: pa.Table, generation: int, frequent: FrequentUnits, rules: UnitRules, policy: str
) -> list[list[Span]]:
    """For each text the spans in characters that leave: paragraphs first, then sentences of those that stay.

    `digests` are the DIGESTS of the same documents. A unit leaves where it was frequent at the document's
    generation; by `keep_first` its first occurrence in the first document that holds it stays.
    """
    counted = pc.is_valid(digests["digests"])
    texts = pc.if_else(counted, texts, pa.scalar(None, texts.type))
    units = find_units(texts, rules)
    found = frequent.find(units.digest)
    found = found.filter(pc.less_equal(found["since"], generation))
    at = found["at"].to_numpy()
    rows = units.text[at]
    leaves = np.ones(len(at), bool)
    if policy == "keep_first":
        holder = found["generation"].to_numpy() == generation
        for name in ("place", "tie"):
            holder &= found[name].to_numpy() == digests[name].to_numpy()[rows]
        mine = np.flatnonzero(holder)
        by = mine[np.lexsort((at[mine], units.digest[at[mine]], rows[mine]))]
        first = np.ones(len(by), bool)
        first[1:] = (units.digest[at[by[1:]]] != units.digest[at[by[:-1]]]) | (rows[by[1:]] != rows[by[:-1]])
        leaves[by[first]] = False
    spans: list[list[Span]] = [[] for _ in range(len(texts))]
    chosen = np.sort(at[leaves])
    utf8, offsets = utf8_of(texts)
    starts = np.flatnonzero(np.diff(units.text[chosen], prepend=-1))
    for group in np.split(chosen, starts[1:]) if len(chosen) else ():
        row = int(units.text[group[0]])
        text = utf8[offsets[row] : offsets[row + 1]]
        spans[row] = in_characters(text, tidy_spans(text, _without_nested(units, group)))
    return spans


def _without_nested(units: Any, group: np.ndarray) -> list[Span]:
    """Spans in bytes, of units in their order; sentences within a paragraph that goes are part of it."""
    spans: list[Span] = []
    reached = 0
    for start, end, level in zip(
        units.start[group].tolist(), units.end[group].tolist(), units.level[group].tolist(), strict=True
    ):
        if start < reached:
            continue
        spans.append((start, end, RULES[level]))
        if level == PARAGRAPH:
            reached = end
    return spans
