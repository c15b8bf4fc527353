"""The spill between encoding and sharding: one file a corpus part, its documents sorted by (cell, hash).

A shard reads from each spill only the row groups that its range of hashes touches, so its memory is bounded
by the shard, not by the corpus. The tokens are stored as the bytes that the shard will hold.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipelines.datasets.parts import sorted_rows
from pipelines.datasets.store import Store
from pipelines.tokens.encode import Encoded
from pipelines.tokens.shards import Shard, build_shard

SPILL = pa.schema(
    [
        ("cell", pa.string()),
        ("hash", pa.uint64()),
        ("id", pa.string()),
        ("row", pa.int64()),
        ("tokens", pa.large_binary()),
    ]
)
_ROW_GROUP_BYTES = 1 << 20


def spill_table(encoded: Encoded, cells: Sequence[str], hashes: np.ndarray, ids: pa.Array) -> pa.Table:
    """SPILL of the documents that have tokens; the other columns are those of the whole batch."""
    itemsize = encoded.tokens.dtype.itemsize
    ends = np.zeros(len(encoded.lengths) + 1, np.int64)
    np.cumsum(encoded.lengths * itemsize, out=ends[1:])
    body = pa.py_buffer(np.ascontiguousarray(encoded.tokens).tobytes())
    tokens = pa.Array.from_buffers(pa.large_binary(), len(encoded.lengths), [None, pa.py_buffer(ends), body])
    rows = pa.array(encoded.rows)
    table = pa.table(
        [pa.array(cells, pa.string()).take(rows), pa.array(hashes).take(rows), ids.take(rows), rows, tokens],
        schema=SPILL,
    )
    return sorted_rows(table, [(name, "ascending") for name in ("cell", "hash", "id", "row")])


def encode_spill(table: pa.Table) -> bytes:
    """As it is stored: small row groups, so that a range of hashes is a range of bytes."""
    sink = pa.BufferOutputStream()
    per_row = max(1, table.nbytes // max(1, table.num_rows))
    pq.write_table(
        table,
        sink,
        compression="zstd",
        write_page_checksum=True,
        row_group_size=max(1, _ROW_GROUP_BYTES // per_row),
    )
    return sink.getvalue().to_pybytes()


def read_range(store: Store, key: str, cell: str, first: int, last: int) -> pa.Table:
    """Rows of one cell with hashes from `first` to `last`, both inclusive; reads only row groups with such."""
    file = pq.ParquetFile(pa.PythonFile(StoredFile(store, key), mode="r"), page_checksum_verification=True)
    wanted = [
        group for group in range(file.num_row_groups) if _may_hold(file.metadata.row_group(group), cell, first, last)
    ]
    # On this thread: a Python file that Arrow's threads hold at exit ends the interpreter with an abort.
    table = file.read_row_groups(wanted, use_threads=False) if wanted else SPILL.empty_table()
    inside = pc.and_(
        pc.equal(table["cell"], cell),
        pc.and_(
            pc.greater_equal(table["hash"], pa.scalar(first, pa.uint64())),
            pc.less_equal(table["hash"], pa.scalar(last, pa.uint64())),
        ),
    )
    return table.filter(inside)


def _may_hold(group: Any, cell: str, first: int, last: int) -> bool:
    cells, hashes = group.column(0).statistics, group.column(1).statistics
    if cells is None or not cells.has_min_max or cells.min > cell or cells.max < cell:
        return cells is None or not cells.has_min_max
    if cells.min != cells.max or hashes is None or not hashes.has_min_max:
        return True
    return hashes.min <= last and hashes.max >= first


def gather_shard(
    store: Store, spills: Iterator[tuple[str, str]], cell: str, first: int, last: int, dtype: np.dtype
) -> tuple[Shard, pa.Table] | None:
    """The shard of a cell's range, from (spill key, corpus part key), with the SPILL columns of its documents.

    Documents stand in the order of (hash, id, part, row). None where the range is empty.
    """
    tables = []
    for key, part in spills:
        table = read_range(store, key, cell, first, last)
        if table.num_rows:
            tables.append(table.append_column("part", pa.array([part] * table.num_rows, pa.string())))
    if not tables:
        return None
    table = pa.concat_tables(tables)
    order = pc.sort_indices(table, [(name, "ascending") for name in ("hash", "id", "part", "row")])
    table = table.take(order).combine_chunks()
    tokens = table["tokens"].combine_chunks()
    lengths = pc.binary_length(tokens).to_numpy() // dtype.itemsize
    flat = np.frombuffer(b"".join(tokens.to_pylist()), dtype)
    shard = build_shard(
        flat,
        lengths,
        table["id"].combine_chunks(),
        table["part"].combine_chunks(),
        table["row"].to_numpy(),
    )
    return shard, table


class StoredFile(io.RawIOBase):
    """A stored object as a file that reads by ranges, for Parquet's footers and row groups."""

    def __init__(self, store: Store, key: str) -> None:
        """The object must exist; it is read as it is asked for."""
        super().__init__()
        found = store.head(key)
        self._store, self._key, self._at = store, key, 0
        self._size = found.size_bytes if found else len(store.get(key))

    def readable(self) -> bool:
        """Always."""
        return True

    def seekable(self) -> bool:
        """Always."""
        return True

    def size(self) -> int:
        """Bytes in the object."""
        return self._size

    def tell(self) -> int:
        """Position."""
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Move; returns the position."""
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence]
        self._at = start + offset
        return self._at

    def read(self, size: int = -1) -> bytes:
        """The next bytes, fewer at the end."""
        end = self._size if size is None or size < 0 else min(self._size, self._at + size)
        if end <= self._at:
            return b""
        (body,) = self._store.get_ranges(self._key, [(self._at, end)])
        self._at += len(body)
        return body
