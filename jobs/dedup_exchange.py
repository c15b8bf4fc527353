"""Who brings the rows of a bucket together: Spark's shuffle, or one process.

Both run the functions of `pipelines.dedup.buckets` and store edges under content-named keys; the driver sees
keys and counts only. Through Spark's shuffle go 24 bytes a document and band (32 for the exact digest), never
a text.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

import pyarrow as pa

from pipelines.datasets.store import Store, open_store
from pipelines.dedup.buckets import (
    EDGES,
    bucket_rows,
    bucket_schema,
    candidate_edges,
    key_names,
    star_table,
)
from pipelines.dedup.nodes import put_table, read_tables

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

Stored = list[dict[str, Any]]  # {"key", "rows"} of each stored table
PARTITION_ROWS = 2_000_000  # about 64 MB in the task that sorts them
_SPARK_STORED = "key string, rows long"
_SPARK_EDGES = "centre long, member long"


class Exchange(Protocol):
    """The two wide steps."""

    def stars(self, parts: pa.Table, columns: Sequence[str]) -> Stored:
        """EDGES of all buckets of the exact digests or of some bands."""
        ...

    def candidates(self, exact: Stored, bands: Stored, chunk_rows: int) -> Stored:
        """Candidate EDGES, in tables of at most `chunk_rows`."""
        ...


class ProcessExchange:
    """In this process: 24 bytes a document at a time, so tens of millions of documents."""

    def __init__(self, store: Store, prefix: str) -> None:
        """Tables are stored below `prefix`."""
        self._store, self._prefix = store, prefix

    def stars(self, parts: pa.Table, columns: Sequence[str]) -> Stored:
        """EDGES of all buckets of the exact digests or of some bands."""
        tables = [bucket_rows(self._store, part, columns) for part in parts.to_pylist()]
        return _put(self._store, self._prefix, star_table(pa.concat_tables(tables)))

    def candidates(self, exact: Stored, bands: Stored, chunk_rows: int) -> Stored:
        """Candidate EDGES, in tables of at most `chunk_rows`."""
        edges = candidate_edges(_read(self._store, bands), _read(self._store, exact))
        return _put(self._store, self._prefix, edges, chunk_rows)


class SparkExchange:
    """By Spark DataFrames of integers."""

    def __init__(self, spark: SparkSession, store: Store, prefix: str) -> None:
        """Tables are stored below `prefix` by the executors, which open the store by its location."""
        self._spark, self._location, self._prefix = spark, store.location, prefix

    def stars(self, parts: pa.Table, columns: Sequence[str]) -> Stored:
        """EDGES of all buckets of the exact digests or of some bands."""
        fields = ", ".join(f"{name} long" for name in bucket_schema(columns).names)
        rows = self._frame(parts).mapInArrow(partial(_read_buckets, self._location, tuple(columns)), fields)
        partitions = 1 + len(columns) * sum(parts["rows"].to_pylist()) // PARTITION_ROWS
        whole = rows.repartition(max(partitions, self._spark.sparkContext.defaultParallelism), *key_names(columns))
        stored = whole.mapInArrow(partial(_store_stars, self._location, self._prefix, tuple(columns)), _SPARK_STORED)
        return _collect(stored)

    def candidates(self, exact: Stored, bands: Stored, chunk_rows: int) -> Stored:
        """Candidate EDGES, in tables of at most `chunk_rows`."""
        copies = self._edges(exact).select("member").distinct()
        fresh = self._edges(bands).join(copies, "member", "left_anti").select("centre", "member").distinct()
        partitions = 1 + sum(table["rows"] for table in bands) // PARTITION_ROWS
        together = fresh.repartition(max(partitions, self._spark.sparkContext.defaultParallelism), "centre")
        stored = together.sortWithinPartitions("centre", "member").mapInArrow(
            partial(_store_chunks, self._location, self._prefix, chunk_rows), _SPARK_STORED
        )
        return _collect(stored)

    def _edges(self, stored: Stored) -> DataFrame:
        if not stored:
            return self._spark.createDataFrame([], _SPARK_EDGES)
        frame = self._frame(pa.Table.from_pylist(stored))
        return frame.mapInArrow(partial(_read_edges, self._location), _SPARK_EDGES)

    def _frame(self, table: pa.Table) -> DataFrame:
        """A small table of keys, a task each up to a bound."""
        rows = [tuple(row.values()) for row in table.to_pylist()]
        kinds = {pa.string(): "string", pa.int64(): "long"}
        columns = ", ".join(f"{field.name} {kinds[field.type]}" for field in table.schema)
        slices = max(1, min(len(rows), 2000))
        return self._spark.createDataFrame(self._spark.sparkContext.parallelize(rows, slices), columns)


def _put(store: Store, prefix: str, edges: pa.Table, chunk_rows: int | None = None) -> Stored:
    step = chunk_rows or max(1, edges.num_rows)
    return [put_table(store, prefix, edges.slice(start, step)) for start in range(0, edges.num_rows, step)]


def _read(store: Store, stored: Stored) -> pa.Table:
    return read_tables(store, [table["key"] for table in stored], EDGES)


def _collect(frame: DataFrame) -> Stored:
    """Keys and counts: one row a stored table."""
    return sorted((row.asDict() for row in frame.collect()), key=lambda row: row["key"])


def _read_buckets(
    location: str, columns: tuple[str, ...], batches: Iterable[pa.RecordBatch]
) -> Iterator[pa.RecordBatch]:
    store = open_store(location)
    for batch in batches:
        for part in batch.to_pylist():
            yield from bucket_rows(store, part, columns).to_batches()


def _store_stars(
    location: str, prefix: str, columns: tuple[str, ...], batches: Iterable[pa.RecordBatch]
) -> Iterator[pa.RecordBatch]:
    rows = pa.Table.from_batches(batches, bucket_schema(columns))
    yield from _stored(_put(open_store(location), prefix, star_table(rows)))


def _store_chunks(
    location: str, prefix: str, chunk_rows: int, batches: Iterable[pa.RecordBatch]
) -> Iterator[pa.RecordBatch]:
    edges = pa.Table.from_batches(batches, EDGES)
    yield from _stored(_put(open_store(location), prefix, edges, chunk_rows))


def _read_edges(location: str, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    store = open_store(location)
    for batch in batches:
        for stored in batch.to_pylist():
            yield from _read(store, [stored]).to_batches()


def _stored(tables: Stored) -> list[pa.RecordBatch]:
    schema = pa.schema([("key", pa.string()), ("rows", pa.int64())])
    return pa.Table.from_pylist(tables, schema=schema).to_batches()
