"""Who brings the rows of a bucket together: Spark's shuffle, or one process.

Both run the functions of `pipelines.dedup` and store tables under content-named keys; the driver sees keys and counts
only. Through Spark's shuffle go binary parcels, one for each part and target, so the JVM is paid by the byte: 32 bytes
a document and band, 40 for the exact digest, 48 for the URL, 48 an edge, never a text or a sketch.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import pyarrow as pa

from pipelines.datasets.parts import read_parquet
from pipelines.datasets.store import Store, open_store
from pipelines.dedup.buckets import EDGES, band_rows, bucket_table, copy_edges, exact_rows, parcels, unpacked
from pipelines.dedup.marks import read_all_marks
from pipelines.dedup.nodes import put_table
from pipelines.dedup.rounds import distinct_edges, round_edges
from pipelines.dedup.signed import BANDS_PER_COLUMN
from pipelines.dedup.urls import URL, url_rows

if TYPE_CHECKING:
    from pyspark import RDD
    from pyspark.sql import SparkSession

Stored = list[dict[str, Any]]  # {"kind", "target", "key", "rows"} of each stored table; PARCELS: bytes for rows
Parcel = tuple[int, bytes]
TARGET_BYTES = 64 * 1024 * 1024  # of parcels, in the task that sorts them
MAX_TARGETS = 20_000
PARCELS = "parcels"  # kind of a row that tells bytes, not a table
_COPY_WIDTH, _CAPTURE_WIDTH = 5, 6  # numbers in a row
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

    def run(self, inputs: list[Any], make: Make, take: Take, targets: int) -> Stored:
        """What `take` stored."""
        ...


Make = Callable[[Store, Any, int], Iterable[Parcel]]  # (store, input, targets)
Take = Callable[[Store, int, list[bytes]], Stored]  # (store, target, its parcels)


class ProcessExchange:
    """In this process, all at once: tens of millions of documents."""

    def __init__(self, store: Store) -> None:
        """Parcels stay in memory."""
        self._store = store

    parallelism = 1

    def run(self, inputs: list[Any], make: Make, take: Take, targets: int) -> Stored:
        """What `take` stored."""
        held = defaultdict(list)
        for one in inputs:
            for target, blob in make(self._store, one, targets):
                held[target].append(blob)
        return [stored for target in sorted(held) for stored in _taken(self._store, take, target, held[target])]


class SparkExchange:
    """By a shuffle of parcels."""

    def __init__(self, spark: SparkSession, store: Store) -> None:
        """Executors open the store by its location."""
        self._context, self._location = spark.sparkContext, store.location
        self.parallelism = self._context.defaultParallelism

    def run(self, inputs: list[Any], make: Make, take: Take, targets: int) -> Stored:
        """What `take` stored."""
        rows: RDD[Any] = self._context.parallelize(inputs, max(1, min(len(inputs), 2000)))
        made = rows.mapPartitions(partial(_make, self._location, make, targets))
        stored = made.partitionBy(targets, int).mapPartitions(partial(_take, self._location, take)).collect()
        return sorted(stored, key=lambda row: (row["kind"], row["target"], row["key"]))


def _make(location: str, make: Make, targets: int, inputs: Iterable[Any]) -> Iterator[Parcel]:
    store = open_store(location)
    for one in inputs:
        yield from make(store, one, targets)


def _take(location: str, take: Take, rows: Iterable[Parcel]) -> Iterator[dict[str, Any]]:
    held = defaultdict(list)
    for target, blob in rows:
        held[target].append(blob)
    store = open_store(location)
    for target in sorted(held):
        yield from _taken(store, take, target, held[target])


def _taken(store: Store, take: Take, target: int, blobs: list[bytes]) -> Stored:
    """What `take` stored, and a row that tells the bytes that were brought together for it."""
    return [*take(store, target, blobs), {"kind": PARCELS, "target": target, "key": "", "rows": sum(map(len, blobs))}]


def _targets(size_bytes: int, least: int) -> int:
    return max(least, min(MAX_TARGETS, 1 + size_bytes // TARGET_BYTES))


def exchange_captures(exchange: Exchange, terms: Terms, parts: pa.Table, policy: str) -> Stored:
    """EDGES from the capture of each URL that stays to the others."""
    targets = _targets(8 * _CAPTURE_WIDTH * sum(parts["rows"].to_pylist()), exchange.parallelism)
    make, take = partial(_make_captures, terms, policy), partial(_take_copies, terms, "captures")
    return exchange.run(parts.to_pylist(), make, take, targets)


def exchange_copies(exchange: Exchange, terms: Terms, parts: pa.Table, captures: str | None) -> Stored:
    """EDGES from the best document of each exact digest to its copies, without the marked captures."""
    targets = _targets(8 * _COPY_WIDTH * sum(parts["rows"].to_pylist()), exchange.parallelism)
    make, take = partial(_make_copies, terms, captures), partial(_take_copies, terms, "copies")
    return exchange.run(parts.to_pylist(), make, take, targets)


def exchange_bands(exchange: Exchange, terms: Terms, parts: pa.Table, column: str, copies: str) -> Stored:
    """BUCKETS (and HOT, where there are such) of the bands of one column."""
    targets = _targets(32 * BANDS_PER_COLUMN * sum(parts["rows"].to_pylist()), exchange.parallelism)
    make = partial(_make_bands, terms, column, copies)
    return exchange.run(parts.to_pylist(), make, partial(_take_bands, terms, column), targets)


def exchange_edges(
    exchange: Exchange, terms: Terms, buckets: Stored, removed: list[str], earlier: list[Stored], chunk_rows: int
) -> Stored:
    """Distinct EDGES of the round after those whose marks are named, without the edges of those rounds, in chunks.

    `earlier`: what this gave in each of those rounds. Edges of one centre stay together within a target.
    """
    targets = _targets(48 * sum(table["rows"] for table in buckets), _EDGE_TARGETS)
    before: dict[int, list[str]] = defaultdict(list)
    for stored in earlier:
        for table in stored:
            before[table["target"]].append(table["key"])
    make = partial(_make_edges, terms, tuple(removed))
    take = partial(_take_edges, terms, dict(before), chunk_rows)
    return exchange.run([table["key"] for table in buckets], make, take, targets)


def _make_captures(terms: Terms, policy: str, store: Store, part: dict[str, Any], targets: int) -> Iterator[Parcel]:
    signatures = read_parquet(store.get(part["signatures"]), [URL, "place", "tie"])
    rows = url_rows(signatures, part["first_node"], part["generation"], policy=policy, apart=terms.apart)
    yield from parcels(rows, targets)


def _make_copies(
    terms: Terms, captures: str | None, store: Store, part: dict[str, Any], targets: int
) -> Iterator[Parcel]:
    yield from parcels(exact_rows(store, part, captures, apart=terms.apart), targets)


def _take_copies(terms: Terms, kind: str, store: Store, target: int, blobs: list[bytes]) -> Stored:
    width = _CAPTURE_WIDTH if kind == "captures" else _COPY_WIDTH
    edges = copy_edges(unpacked(blobs, width), terms.starts, terms.fresh_from)
    return _put(store, terms, kind, target, edges)


def _make_bands(
    terms: Terms, column: str, copies: str, store: Store, part: dict[str, Any], targets: int
) -> Iterator[Parcel]:
    yield from parcels(band_rows(store, part, column, copies, apart=terms.apart), targets)


def _take_bands(terms: Terms, column: str, store: Store, target: int, blobs: list[bytes]) -> Stored:
    buckets, hot = bucket_table(unpacked(blobs, 4), terms.starts, terms.fresh_from, terms.bucket_cap)
    return _put(store, terms, f"buckets-{column}", target, buckets) + _put(store, terms, f"hot-{column}", target, hot)


def _make_edges(terms: Terms, removed: tuple[str, ...], store: Store, key: str, targets: int) -> Iterator[Parcel]:
    bits = [read_all_marks(store, name) for name in removed]
    edges = round_edges(read_parquet(store.get(key)), bits, terms.fresh_from)
    rows = np.column_stack([edges[name].to_numpy() for name in EDGES.names])
    yield from parcels(distinct_edges(rows, np.zeros((0, 2), np.int64)), targets)


def _take_edges(
    terms: Terms, before: dict[int, list[str]], chunk_rows: int, store: Store, target: int, blobs: list[bytes]
) -> Stored:
    tables = [read_parquet(store.get(key), ["centre", "member"]) for key in before.get(target, [])]
    known = [np.column_stack([t["centre"].to_numpy(), t["member"].to_numpy()]) for t in tables]
    rows = distinct_edges(unpacked(blobs, 6), np.concatenate([np.zeros((0, 2), np.int64), *known]))
    edges = pa.table([pa.array(np.ascontiguousarray(column)) for column in rows.T], schema=EDGES)
    made: Stored = []
    for start in range(0, edges.num_rows, chunk_rows):
        made += _put(store, terms, "edges", target, edges.slice(start, chunk_rows))
    return made


def _put(store: Store, terms: Terms, kind: str, target: int, table: pa.Table) -> Stored:
    if not table.num_rows:
        return []
    return [{"kind": kind, "target": target, **put_table(store, f"{terms.prefix}/tables/{kind}", table)}]
