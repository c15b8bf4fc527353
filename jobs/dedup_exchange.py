"""Who brings the rows of a bucket together: Spark's shuffle, or one process.

Both run the functions of `pipelines.dedup` and store tables under content-named keys; the driver sees keys and counts
only. Through Spark's shuffle go binary parcels, one for each part and target, so the JVM is paid by the byte: 32 bytes
a document and band, 40 for the exact digest, 48 for the URL, 48 an edge, never a text or a sketch.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import pyarrow as pa

from pipelines.datasets.parts import read_parquet
from pipelines.datasets.ranged import read_columns
from pipelines.datasets.store import Store, open_store
from pipelines.dedup.buckets import (
    EDGES,
    band_rows,
    bucket_table,
    copy_edges,
    exact_rows,
    parcels,
    resolved,
    targets_of,
    unpacked,
    without_hot,
    without_hot_copies,
)
from pipelines.dedup.links import compared_links
from pipelines.dedup.marks import read_all_marks
from pipelines.dedup.matrices import as_rows, as_table
from pipelines.dedup.nodes import put_table, read_tables, table_body
from pipelines.dedup.rounds import UNLIKE, distinct_edges, recalled, round_edges
from pipelines.dedup.signed import BANDS_PER_COLUMN
from pipelines.dedup.survivors import LINKS
from pipelines.dedup.urls import URL, url_rows

if TYPE_CHECKING:
    from pyspark import RDD
    from pyspark.sql import SparkSession

Stored = list[dict[str, Any]]  # {"kind", "target", "key", "rows"} of each stored table; PARCELS: bytes for rows
Parcel = tuple[int, bytes]
TARGET_BYTES = 64 * 1024 * 1024  # of parcels, in the task that sorts them
MAX_TARGETS = 20_000
PARCELS = "parcels"  # kind of a row that tells bytes, not a table
RECALLED, RECALLED_UNLIKE = "recalled", "recalled-unlike"  # kinds of edges that were compared before
TARGETS = "targets"  # kind of a row that tells into how many targets was cut
FOLD_BYTES = 4 * TARGET_BYTES  # of one target, from which on buckets are cut before all of them is there
HOT_IN_PART = 1000  # equal digests in one part, above which only the best of them travels
_WIDTHS = {"copies": 5, "captures": 6}  # numbers in a row
_EDGE_TARGETS = 8  # the same in every round, whatever cluster goes on with it


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """What every wide step must know: all but `prefix` decide the result."""

    prefix: str
    generation_starts: tuple[int, ...]
    fresh_from: int
    bucket_cap: int
    apart: bool  # generations are not compared with each other

    @property
    def starts(self) -> np.ndarray:
        """For `searchsorted`."""
        return np.array(self.generation_starts, np.int64)


class Exchange(Protocol):
    """Bring parcels of one target together: `make` gives them for each input, `take` gets whole targets."""

    parallelism: int

    def run(self, inputs: list[Any], make: Make, take: Take, targets: int, fold: Fold | None = None) -> Stored:
        """What `take` stored; `fold` may make less of a target's parcels while they arrive."""
        ...


Make = Callable[[Store, Any, int], Iterable[Parcel]]  # (store, input, targets)
Take = Callable[[Store, int, list[bytes]], Stored]  # (store, target, its parcels)
Fold = Callable[[list[bytes]], bytes]  # parcels to one of which `take` makes the same


class Pile:
    """Parcels of one target: `fold` is tried at FOLD_BYTES, and each time that they have doubled since."""

    def __init__(self, fold: Fold | None) -> None:
        """Empty."""
        self.blobs: list[bytes] = []
        self.brought = 0  # bytes
        self._fold, self._held, self._limit = fold, 0, FOLD_BYTES

    def add(self, blob: bytes) -> None:
        """Another parcel."""
        self.blobs.append(blob)
        self.brought += len(blob)
        self._held += len(blob)
        if self._fold is not None and self._held > self._limit:
            self.blobs = [self._fold(self.blobs)]
            self._held = len(self.blobs[0])
            self._limit = max(FOLD_BYTES, 2 * self._held)


class ProcessExchange:
    """In this process, all at once: tens of millions of documents."""

    def __init__(self, store: Store) -> None:
        """Parcels stay in memory."""
        self._store = store

    parallelism = 1

    def run(self, inputs: list[Any], make: Make, take: Take, targets: int, fold: Fold | None = None) -> Stored:
        """What `take` stored."""
        held: dict[int, Pile] = defaultdict(partial(Pile, fold))
        for one in inputs:
            for target, blob in make(self._store, one, targets):
                held[target].add(blob)
        return [stored for target in sorted(held) for stored in _taken(self._store, take, target, held[target])]


class SparkExchange:
    """By a shuffle of parcels."""

    def __init__(self, spark: SparkSession, store: Store) -> None:
        """Executors open the store by its location."""
        self._context, self._location = spark.sparkContext, store.location
        self.parallelism = self._context.defaultParallelism

    def run(self, inputs: list[Any], make: Make, take: Take, targets: int, fold: Fold | None = None) -> Stored:
        """What `take` stored."""
        rows: RDD[Any] = self._context.parallelize(inputs, max(1, min(len(inputs), 2000)))
        made = rows.mapPartitions(partial(_make, self._location, make, targets))
        stored = made.partitionBy(targets, int).mapPartitions(partial(_take, self._location, take, fold)).collect()
        return sorted(stored, key=lambda row: (row["kind"], row["target"], row["key"]))


def _make(location: str, make: Make, targets: int, inputs: Iterable[Any]) -> Iterator[Parcel]:
    store = open_store(location)
    for one in inputs:
        yield from make(store, one, targets)


def _take(location: str, take: Take, fold: Fold | None, rows: Iterable[Parcel]) -> Iterator[dict[str, Any]]:
    held: dict[int, Pile] = defaultdict(partial(Pile, fold))
    for target, blob in rows:
        held[target].add(blob)
    store = open_store(location)
    for target in sorted(held):
        yield from _taken(store, take, target, held[target])


def _taken(store: Store, take: Take, target: int, pile: Pile) -> Stored:
    """What `take` stored, and a row that tells the bytes that were brought together for it."""
    return [*take(store, target, pile.blobs), {"kind": PARCELS, "target": target, "key": "", "rows": pile.brought}]


def _targets(size_bytes: int, least: int) -> int:
    return max(least, min(MAX_TARGETS, 1 + size_bytes // TARGET_BYTES))


def least_targets(size_bytes: int) -> int:
    """How many targets for so many bytes, the same whatever cluster goes on with it."""
    return _targets(size_bytes, _EDGE_TARGETS)


def exchange_captures(exchange: Exchange, terms: Terms, parts: pa.Table, policy: str) -> Stored:
    """EDGES from the capture of each URL that stays to the others."""
    targets = _copy_targets(exchange, "captures", parts)
    make, take = partial(_make_captures, terms, policy), partial(_take_copies, terms, "captures")
    return [*exchange.run(parts.to_pylist(), make, take, targets), _told(targets)]


def exchange_copies(exchange: Exchange, terms: Terms, parts: pa.Table, captures: str | None) -> Stored:
    """EDGES from the best document of each exact digest to its copies, without the marked captures."""
    targets = _copy_targets(exchange, "copies", parts)
    make, take = partial(_make_copies, terms, captures), partial(_take_copies, terms, "copies")
    return [*exchange.run(parts.to_pylist(), make, take, targets), _told(targets)]


def _copy_targets(exchange: Exchange, kind: str, parts: pa.Table) -> int:
    return _targets(8 * _WIDTHS[kind] * sum(parts["rows"].to_pylist()), exchange.parallelism)


def _told(targets: int) -> dict[str, Any]:
    return {"kind": TARGETS, "target": 0, "key": "", "rows": targets}


def hot_copies_folder(prefix: str, kind: str) -> str:
    """Where parts lay what they have of digests that would crowd the exchange of `captures` or `copies`."""
    return f"{prefix}/hot-{kind}"


def resolve_copies(store: Store, prefix: str, kind: str, name: str) -> None:
    """EDGES of one object of that folder, below `resolved-KIND/`, under the same name."""
    hot = read_parquet(store.get(f"{hot_copies_folder(prefix, kind)}/{name}"))
    stored = json.loads(store.get(step_key(prefix, kind)))
    (targets,) = (row["rows"] for row in stored if row["kind"] == TARGETS)
    homes = set(targets_of(hot["digest"].to_numpy(), targets).tolist())
    keys = [row["key"] for row in stored if row["kind"] == kind and row["target"] in homes]
    store.put(f"{prefix}/resolved-{kind}/{name}", table_body(resolved(hot, read_tables(store, keys, EDGES))))


def step_key(prefix: str, name: str) -> str:
    """Key of the done record of an exchange: what it stored."""
    return f"{prefix}/steps/{name}.json"


def exchange_bands(exchange: Exchange, terms: Terms, parts: pa.Table, column: str, copies: str) -> Stored:
    """BUCKETS (and HOT, where there are such) of the bands of one column."""
    targets = _targets(32 * BANDS_PER_COLUMN * sum(parts["rows"].to_pylist()), exchange.parallelism)
    make, take = partial(_make_bands, terms, column, copies), partial(_take_bands, terms, column)
    return exchange.run(parts.to_pylist(), make, take, targets, partial(_fold_bands, terms))


def exchange_edges(
    exchange: Exchange,
    terms: Terms,
    buckets: Stored,
    removed: list[str],
    earlier: list[Stored],
    known: Stored,
    chunk_rows: int,
) -> Stored:
    """Distinct EDGES of the round after those whose marks are named, without the edges of those rounds, in chunks.

    `earlier`: what this gave in each of those rounds. Edges of one centre stay together within a target. Those that
    are `known` (of `exchange_known`) are of the kinds RECALLED and RECALLED_UNLIKE, as LINKS.
    """
    targets = edge_targets(buckets)
    before, recall = ({}, {})  # type: tuple[dict[int, list[str]], dict[int, list[str]]]
    for tables, homes in (([table for stored in earlier for table in stored], before), (known, recall)):
        for table in tables:
            homes.setdefault(table["target"], []).append(table["key"])
    make = partial(_make_edges, terms, tuple(removed))
    take = partial(_take_edges, terms, before, recall, len(removed) + 1, chunk_rows)
    return exchange.run([table["key"] for table in buckets], make, take, targets)


def edge_targets(buckets: Stored) -> int:
    """Targets of the edges of these buckets, the same in every round."""
    return least_targets(48 * sum(table["rows"] for table in buckets))


def exchange_known(
    exchange: Exchange, terms: Terms, known: list[dict[str, Any]], parts: pa.Table, targets: int
) -> Stored:
    """LINKS of what was compared before, from rows of KNOWN, where the edges between the same will be."""
    return exchange.run(known, partial(_make_known, parts), partial(_take_known, terms), targets)


def _make_known(parts: pa.Table, store: Store, row: dict[str, Any], targets: int) -> Iterator[Parcel]:
    links, _ = compared_links(store, row, parts)
    rows = as_rows(links.filter(pa.array(links["round"].to_numpy() > 0)))
    # Without a generation between them, the other one may be the better of the two.
    yield from parcels(np.concatenate([rows, rows[:, [1, 0, 4, 5, 2, 3, 6, 7]]]), targets)


def _take_known(terms: Terms, store: Store, target: int, blobs: list[bytes]) -> Stored:
    return _put(store, terms, "known", target, as_table(unpacked(blobs, len(LINKS)), LINKS))


def _make_captures(terms: Terms, policy: str, store: Store, part: dict[str, Any], targets: int) -> Iterator[Parcel]:
    signatures = read_columns(store, part["signatures"], [URL, "place", "tie"])
    rows = url_rows(signatures, part["first_node"], part["generation"], policy=policy, apart=terms.apart)
    yield from _copy_parcels(terms, "captures", store, part, rows, targets)


def _make_copies(
    terms: Terms, captures: str | None, store: Store, part: dict[str, Any], targets: int
) -> Iterator[Parcel]:
    rows = exact_rows(store, part, captures, apart=terms.apart)
    yield from _copy_parcels(terms, "copies", store, part, rows, targets)


def _copy_parcels(
    terms: Terms, kind: str, store: Store, part: dict[str, Any], rows: np.ndarray, targets: int
) -> Iterator[Parcel]:
    """Parcels of a part's rows; copies of what it has very often do not travel."""
    rows, hot = without_hot_copies(rows, terms.starts, terms.fresh_from, HOT_IN_PART)
    if hot.num_rows:
        key = f"{hot_copies_folder(terms.prefix, kind)}/{part['first_node']}-{hot.num_rows}.parquet"
        store.put(key, table_body(hot))
    yield from parcels(rows, targets)


def _take_copies(terms: Terms, kind: str, store: Store, target: int, blobs: list[bytes]) -> Stored:
    edges = copy_edges(unpacked(blobs, _WIDTHS[kind]), terms.starts, terms.fresh_from)
    return _put(store, terms, kind, target, edges)


def _make_bands(
    terms: Terms, column: str, copies: str, store: Store, part: dict[str, Any], targets: int
) -> Iterator[Parcel]:
    rows = band_rows(store, part, column, copies, apart=terms.apart)
    if part["rows"] > terms.bucket_cap + 1:  # a document has a digest once
        rows = without_hot(rows, terms.starts, terms.bucket_cap)
    yield from parcels(rows, targets)


def _fold_bands(terms: Terms, blobs: list[bytes]) -> bytes:
    return without_hot(unpacked(blobs, 4), terms.starts, terms.bucket_cap).tobytes()


def _take_bands(terms: Terms, column: str, store: Store, target: int, blobs: list[bytes]) -> Stored:
    buckets, hot = bucket_table(unpacked(blobs, 4), terms.starts, terms.fresh_from, terms.bucket_cap)
    return _put(store, terms, f"buckets-{column}", target, buckets) + _put(store, terms, f"hot-{column}", target, hot)


def _make_edges(terms: Terms, removed: tuple[str, ...], store: Store, key: str, targets: int) -> Iterator[Parcel]:
    bits = [read_all_marks(store, name) for name in removed]
    edges = round_edges(read_parquet(store.get(key)), bits, terms.fresh_from)
    rows = np.column_stack([edges[name].to_numpy() for name in EDGES.names])
    yield from parcels(distinct_edges(rows, np.zeros((0, 2), np.int64)), targets)


def _take_edges(
    terms: Terms,
    before: dict[int, list[str]],
    recall: dict[int, list[str]],
    number: int,
    chunk_rows: int,
    store: Store,
    target: int,
    blobs: list[bytes],
) -> Stored:
    tables = [read_parquet(store.get(key), ["centre", "member"]) for key in before.get(target, [])]
    known = [np.column_stack([t["centre"].to_numpy(), t["member"].to_numpy()]) for t in tables]
    rows = distinct_edges(unpacked(blobs, 6), np.concatenate([np.zeros((0, 2), np.int64), *known]))
    made: Stored = []
    if target in recall:
        rows, links = recalled(rows, read_tables(store, recall[target], LINKS), number)
        unlike = links["round"].to_numpy() >= UNLIKE
        for kind, some in ((RECALLED, ~unlike), (RECALLED_UNLIKE, unlike)):
            made += _put(store, terms, kind, target, links.filter(pa.array(some)))
    edges = pa.table([pa.array(np.ascontiguousarray(column)) for column in rows.T], schema=EDGES)
    for start in range(0, edges.num_rows, chunk_rows):
        made += _put(store, terms, "edges", target, edges.slice(start, chunk_rows))
    return made


def _put(store: Store, terms: Terms, kind: str, target: int, table: pa.Table) -> Stored:
    if not table.num_rows:
        return []
    return [{"kind": kind, "target": target, **put_table(store, f"{terms.prefix}/tables/{kind}", table)}]
