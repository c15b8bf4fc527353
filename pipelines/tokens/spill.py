"""The spill between encoding and sharding: one file a corpus part, its documents sorted by (cell, hash).

A shard reads from each spill only the row groups that its range of hashes touches, so its memory is bounded
by the shard, not by the corpus. The tokens are stored as the bytes that the shard will hold.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipelines.datasets.store import Store
from pipelines.tokens.encode import Encoded
from pipelines.tokens.packing import Layout, best_fit, cut_documents, one_after_another
from pipelines.tokens.runs import copy_runs
from pipelines.tokens.shards import Shard, build_shard, firsts_of
from pipelines.tokens.stored import StoredFile
from pipelines.tokens.tokenizer import PAD_ID

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


def spill_table(encoded: Encoded, cells: pa.DictionaryArray, hashes: np.ndarray, ids: pa.Array) -> pa.Table:
    """SPILL of the documents that have tokens, by cell, hash, row; the other columns are those of the whole batch."""
    rows, dictionary = encoded.rows, cells.dictionary
    rank = np.argsort(np.argsort(dictionary.to_numpy(zero_copy_only=False)))
    codes = np.asarray(cells.indices)[rows] if len(rows) else np.zeros(0, np.int64)
    ranks = rank[codes] if len(rows) else np.zeros(0, np.int64)
    order = np.lexsort((rows, hashes[rows], ranks))
    lengths = encoded.lengths[order]
    body = np.empty(len(encoded.tokens), encoded.tokens.dtype)
    copy_runs(encoded.tokens, firsts_of(encoded.lengths)[order], lengths, body, firsts_of(lengths))
    ends = np.concatenate([[0], np.cumsum(lengths * body.dtype.itemsize)]).astype(np.int64)
    tokens = pa.Array.from_buffers(pa.large_binary(), len(order), [None, pa.py_buffer(ends), pa.py_buffer(body)])
    placed = pa.array(rows[order])
    names = pa.DictionaryArray.from_arrays(pa.array(codes[order].astype(np.int32)), dictionary).cast(pa.string())
    return pa.table([names, pa.array(hashes[rows[order]]), ids.take(placed), placed, tokens], schema=SPILL)


def encode_spill(table: pa.Table) -> bytes:
    """As it is stored: small row groups, so that a range of hashes is a range of bytes; it lives minutes."""
    sink = pa.BufferOutputStream()
    per_row = max(1, table.nbytes // max(1, table.num_rows))
    pq.write_table(
        table,
        sink,
        compression="none",
        use_dictionary=["cell"],
        write_statistics=["cell", "hash"],
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
    hashes = table["hash"].to_numpy()
    inside = np.flatnonzero(np.asarray(pc.equal(table["cell"], cell)) & (hashes >= first) & (hashes <= last))
    return table.slice(inside[0], len(inside)) if len(inside) else SPILL.empty_table()  # they stand together


def _may_hold(group: Any, cell: str, first: int, last: int) -> bool:
    cells, hashes = group.column(0).statistics, group.column(1).statistics
    if cells is None or not cells.has_min_max or cells.min > cell or cells.max < cell:
        return cells is None or not cells.has_min_max
    if cells.min != cells.max or hashes is None or not hashes.has_min_max:
        return True
    return hashes.min <= last and hashes.max >= first


@dataclass(frozen=True, slots=True, kw_only=True)
class Gathered:
    """A shard and what it was made of."""

    shard: Shard
    ids: pa.Array  # of its documents, in order
    tokens: int  # of documents; the shard holds `padding` more
    padding: int
    cut: int  # documents in more than one row of `row_tokens`
    cut_unpacked: int  # the same, had they been laid one after another


def gather_shard(
    store: Store,
    spills: Iterator[tuple[str, str]],
    cell: str,
    first: int,
    last: int,
    dtype: np.dtype,
    *,
    row_tokens: int = 0,
) -> Gathered | None:
    """The shard of a cell's range, from (spill key, corpus part key).

    Documents stand in the order of (hash, id, part, row) or, where `row_tokens` is given, packed into rows of so many.
    None where the range is empty. Holds the shard's tokens twice, whatever the corpus has.
    """
    heads, bodies = [], []
    for key, part in spills:
        table = read_range(store, key, cell, first, last)
        if table.num_rows:
            body, lengths = _flat(table["tokens"], dtype)
            bodies.append((body, lengths))
            head = table.select(["hash", "id", "row"]).append_column("tokens", pa.array(lengths))
            heads.append(head.append_column("part", pa.array([part] * table.num_rows, pa.string())))
    if not heads:
        return None
    head = pa.concat_tables(heads)
    order = np.asarray(pc.sort_indices(head, [(name, "ascending") for name in ("hash", "id", "part", "row")]))
    lengths = head["tokens"].to_numpy()[order]
    plain = one_after_another(lengths)
    layout = best_fit(lengths, row_tokens) if row_tokens else plain
    flat = np.full(layout.tokens, PAD_ID, dtype)
    places = np.empty(len(order), np.int64)
    places[order] = layout.firsts
    at = 0
    while bodies:
        body, sizes = bodies.pop(0)
        copy_runs(body, firsts_of(sizes), sizes, flat, places[at : at + len(sizes)])
        at += len(sizes)
    table = head.take(pa.array(order)).combine_chunks()
    columns = [table[name].combine_chunks() for name in ("id", "part")]
    return Gathered(
        shard=_with_gaps(flat, layout, lengths, *columns, table["row"].to_numpy()),
        ids=columns[0],
        tokens=int(lengths.sum()),
        padding=layout.tokens - int(lengths.sum()),
        cut=cut_documents(layout.firsts, lengths, row_tokens) if row_tokens else 0,
        cut_unpacked=cut_documents(plain.firsts, lengths, row_tokens) if row_tokens else 0,
    )


def _flat(column: pa.ChunkedArray, dtype: np.dtype) -> tuple[np.ndarray, np.ndarray]:
    """(tokens, lengths) of a column of tokens' bytes."""
    bodies, lengths = [], []
    for chunk in column.chunks:
        _, ends, body = chunk.buffers()
        offsets = np.frombuffer(ends, np.int64)[chunk.offset : chunk.offset + len(chunk) + 1]
        bodies.append(np.frombuffer(body, np.uint8)[offsets[0] : offsets[-1]].view(dtype))
        lengths.append(np.diff(offsets) // dtype.itemsize)
    return (np.concatenate(bodies) if len(bodies) > 1 else bodies[0]), np.concatenate(lengths)


def _with_gaps(
    flat: np.ndarray, layout: Layout, lengths: np.ndarray, ids: pa.Array, parts: pa.Array, rows: np.ndarray
) -> Shard:
    """The shard by place; a gap is a document of padding without id, part or row."""
    firsts = np.concatenate([layout.firsts, layout.gaps[:, 0]])
    order = np.argsort(firsts, kind="stable")
    none = pa.nulls(len(layout.gaps), pa.string())
    return build_shard(
        flat,
        np.concatenate([lengths, layout.gaps[:, 1]])[order],
        pa.concat_arrays([ids, none]).take(pa.array(order)),
        pa.concat_arrays([parts, none]).take(pa.array(order)),
        np.concatenate([rows, np.full(len(layout.gaps), -1)])[order],
    )
