"""Parts: one unit's rows as a Parquet object, named by its content.

zstd, page checksums, row groups of about 16 MiB of column data: DuckDB, pandas, Polars and HF datasets read
them as they lie. Bytes are finished before the upload, so a key always holds the same bytes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipelines.datasets.content import OrderedIds, add_sums, bytes_content_sum, table_content_sum
from pipelines.datasets.names import home
from pipelines.errors import IntegrityError

ROW_GROUP_BYTES = 16 * 1024 * 1024
_ALL_DIFFERENT = frozenset(
    {"id", "text", "original_text", "url", "title", "offset", "detail", "excerpt", "place", "tie"}
)
_FOLDERS = {"part": "parts", "ledger": "ledger", "retried": "ledger", "file": "files"}


@dataclass(frozen=True, slots=True, kw_only=True)
class EncodedObject:
    """Finished bytes of one durable object, with all that the part list tells of it."""

    key: str
    role: str
    body: bytes
    rows: int
    sha256: str
    content_sum: str
    rows_sum: str | None = None
    cell: str | None = None
    tokens: int | None = None


class PartWriter:
    """A part or a ledger object that is written table by table, so that only compressed rows are held.

    Row groups hold whole tables, up to about 16 MiB together.  With a schema, missing columns become nulls and the
    rest is cast to it.
    """

    def __init__(self, schema: pa.Schema) -> None:
        """Nothing is written yet."""
        self.schema = schema
        self.rows = 0
        self._sink = pa.BufferOutputStream()
        self._writer = pq.ParquetWriter(
            self._sink,
            schema,
            compression="zstd",
            write_page_checksum=True,
            store_schema=True,
            # A dictionary of texts, ids or digests is built, found too large and thrown away.
            use_dictionary=[
                f.name for f in schema if f.name not in _ALL_DIFFERENT and not pa.types.is_fixed_size_binary(f.type)
            ],
        )
        self._held: list[pa.Table] = []
        self._held_bytes = 0
        self._sums: list[str] = []
        self._ids = OrderedIds()

    def write(self, table: pa.Table) -> None:
        """Append rows."""
        if not table.num_rows:
            return
        if table.schema is not self.schema and not table.schema.equals(self.schema, check_metadata=True):
            table = conform(table, self.schema)
        self.rows += table.num_rows
        if "id" in self.schema.names:
            self._ids.add(table["id"].to_pylist())
        if self._held and self._held_bytes + table.nbytes > ROW_GROUP_BYTES:
            self._flush()
        self._held.append(table)
        self._held_bytes += table.nbytes

    def finish(self, dataset: str, unit: str, role: str) -> EncodedObject:
        """The object, named by its bytes."""
        self._flush()
        self._writer.close()
        body = self._sink.getvalue().to_pybytes()
        ids = self._ids.hexdigest() if "id" in self.schema.names and role == "part" else None
        return _named(dataset, unit, role, ".parquet", body, self.rows, add_sums(self._sums), ids)

    def _flush(self) -> None:
        if self._held:
            table = pa.concat_tables(self._held).combine_chunks()  # once, for the sum and for the pages
            self._sums.append(table_content_sum(table))
            per_row = max(1, table.nbytes // table.num_rows)
            self._writer.write_table(table, row_group_size=max(1, ROW_GROUP_BYTES // per_row))
        self._held, self._held_bytes = [], 0


def encode_table(dataset: str, unit: str, role: str, table: pa.Table, schema: pa.Schema | None = None) -> EncodedObject:
    """A part or a ledger object of one table."""
    writer = PartWriter(schema if schema is not None else table.schema)
    writer.write(table)
    return writer.finish(dataset, unit, role)


def encode_file(
    dataset: str,
    unit: str,
    role: str,
    suffix: str,
    body: bytes,
    rows: int,
    *,
    cell: str | None,
    tokens: int | None,
) -> EncodedObject:
    """An opaque object: a token shard, its index, a model file."""
    content = bytes_content_sum(body, rows)
    return _named(dataset, unit, role, suffix, body, rows, content, None, cell, tokens)


def read_parquet(body: bytes, columns: Sequence[str] | None = None) -> pa.Table:
    """A Parquet object in memory, page checksums verified; columns in the order asked for.

    Not `pq.read_table`: that scans through Arrow's dataset engine, whose read-ahead may still run on a pool thread
    when the process exits, and then aborts it.
    """
    try:
        file = pq.ParquetFile(pa.BufferReader(body), page_checksum_verification=True)
        table = file.read(columns=list(columns) if columns else None)
    except OSError as e:
        raise IntegrityError(f"a Parquet object cannot be read: {e}") from e
    return table.select(list(columns)) if columns else table


def sorted_rows(table: pa.Table, keys: Sequence[tuple[str, str]]) -> pa.Table:
    """The rows in order of (column, ascending or descending) keys; `Table.sort_by` is of the same engine."""
    return table.take(pc.sort_indices(table, sort_keys=list(keys)))


def conform(table: pa.Table, schema: pa.Schema) -> pa.Table:
    """Columns of the schema, in its order; absent ones are null; a column the schema lacks is an error of ours."""
    unknown = set(table.schema.names) - set(schema.names)
    if unknown:
        raise ValueError(f"columns {sorted(unknown)} are not in the schema")
    columns = [
        table[f.name].cast(f.type) if f.name in table.schema.names else pa.nulls(table.num_rows, f.type) for f in schema
    ]
    return pa.Table.from_arrays(
        [c if isinstance(c, pa.ChunkedArray) else pa.chunked_array([c]) for c in columns], schema=schema
    )


def _named(
    dataset: str,
    unit: str,
    role: str,
    suffix: str,
    body: bytes,
    rows: int,
    content_sum: str,
    ids: str | None,
    cell: str | None = None,
    tokens: int | None = None,
) -> EncodedObject:
    digest = hashlib.sha256(body).hexdigest()
    key = f"{home(dataset)}/{_FOLDERS.get(role, 'shards')}/{unit}-{digest[:16]}{suffix}"
    return EncodedObject(
        key=key,
        role=role,
        body=body,
        rows=rows,
        sha256=digest,
        content_sum=content_sum,
        rows_sum=ids,
        cell=cell,
        tokens=tokens,
    )
