"""The spill between encoding and sharding: of each corpus part its documents' tokens, sorted by (cell, hash).

Two objects, `KEY.rows.parquet` and `KEY.tokens`: as the order is that of the shards, a shard's documents are one run of
rows and one run of bytes, so it reads those alone and its memory is bounded by the shard, not by the corpus. The tokens
are the bytes that the shard will hold, with a CRC a page.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipelines.datasets.store import Store
from pipelines.errors import IntegrityError
from pipelines.tokens.encode import Encoded
from pipelines.tokens.packing import Layout, best_fit, cut_documents, one_after_another
from pipelines.tokens.runs import copy_runs
from pipelines.tokens.shards import PAGE_BYTES, Shard, build_shard, damaged_pages, firsts_of, page_checksums, page_range
from pipelines.tokens.stored import StoredFile
from pipelines.tokens.tokenizer import PAD_ID

ROWS = pa.schema(
    [
        ("cell", pa.string()),
        ("hash", pa.uint64()),
        ("id", pa.string()),
        ("row", pa.int64()),
        ("first", pa.int64()),  # of its tokens in KEY.tokens
        ("tokens", pa.int64()),
    ]
)
_GROUP_ROWS = 1024
_CRC = b"crc"


@dataclass(frozen=True, slots=True, kw_only=True)
class Spill:
    """ROWS by cell, hash, row, and the tokens that they count, one document after another."""

    rows: pa.Table
    tokens: np.ndarray


def spill_of(encoded: Encoded, cells: pa.DictionaryArray, hashes: np.ndarray, ids: pa.Array) -> Spill:
    """Of the documents that have tokens; the other columns are those of the whole batch."""
    rows, dictionary = encoded.rows, cells.dictionary
    rank = np.argsort(np.argsort(dictionary.to_numpy(zero_copy_only=False)))
    codes = np.asarray(cells.indices)[rows] if len(rows) else np.zeros(0, np.int64)
    ranks = rank[codes] if len(rows) else np.zeros(0, np.int64)
    order = np.lexsort((rows, hashes[rows], ranks))
    lengths = encoded.lengths[order]
    firsts, body = firsts_of(lengths), np.empty(len(encoded.tokens), encoded.tokens.dtype)
    copy_runs(encoded.tokens, firsts_of(encoded.lengths)[order], lengths, body, firsts)
    placed = pa.array(rows[order])
    names = pa.DictionaryArray.from_arrays(pa.array(codes[order].astype(np.int32)), dictionary).cast(pa.string())
    columns = [names, pa.array(hashes[rows[order]]), ids.take(placed), placed, pa.array(firsts), pa.array(lengths)]
    return Spill(rows=pa.table(columns, schema=ROWS), tokens=body)


def put_spill(store: Store, key: str, spill: Spill) -> None:
    """Store both objects, the rows last; small row groups, so that a range of hashes is a range of bytes."""
    body = memoryview(np.ascontiguousarray(spill.tokens).view(np.uint8))
    sink = pa.BufferOutputStream()
    pq.write_table(
        spill.rows.replace_schema_metadata({_CRC: base64.b64encode(page_checksums(body))}),
        sink,
        compression="none",
        use_dictionary=["cell"],
        write_statistics=["cell", "hash"],
        write_page_checksum=True,
        row_group_size=_GROUP_ROWS,
    )
    store.put(f"{key}.tokens", body)
    store.put(f"{key}.rows.parquet", sink.getvalue().to_pybytes())


def read_range(store: Store, key: str, cell: str, first: int, last: int, dtype: np.dtype) -> Spill:
    """What one cell has of hashes from `first` to `last`, both inclusive; reads only what holds such.

    IntegrityError where a page of the tokens is damaged.
    """
    rows_file = StoredFile(store, f"{key}.rows.parquet")
    file = pq.ParquetFile(pa.PythonFile(rows_file, mode="r"), page_checksum_verification=True)
    wanted = [
        group for group in range(file.num_row_groups) if _may_hold(file.metadata.row_group(group), cell, first, last)
    ]
    # On this thread: a Python file that Arrow's threads hold at exit ends the interpreter with an abort.
    table = file.read_row_groups(wanted, use_threads=False) if wanted else ROWS.empty_table()
    hashes = table["hash"].to_numpy()
    inside = np.flatnonzero(np.asarray(pc.equal(table["cell"], cell)) & (hashes >= first) & (hashes <= last))
    if not len(inside):
        return Spill(rows=ROWS.empty_table(), tokens=np.zeros(0, dtype))
    rows = table.slice(inside[0], len(inside))  # they stand together
    start = rows["first"][0].as_py()
    count = rows["first"][-1].as_py() + rows["tokens"][-1].as_py() - start
    pages = page_range(start, count, dtype.itemsize)
    (body,) = store.get_ranges(f"{key}.tokens", [(pages[0] * PAGE_BYTES, pages[1] * PAGE_BYTES)])
    if damaged := damaged_pages(body, pages[0], base64.b64decode(file.schema_arrow.metadata[_CRC])):
        raise IntegrityError(f"{key}: damaged pages {damaged[:8]}", key=key, mend="run the same command again")
    skipped = start - pages[0] * PAGE_BYTES // dtype.itemsize
    return Spill(rows=rows, tokens=np.frombuffer(body, dtype, count, skipped * dtype.itemsize))


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
        found = read_range(store, key, cell, first, last, dtype)
        if found.rows.num_rows:
            bodies.append((found.tokens, found.rows["tokens"].to_numpy()))
            head = found.rows.select(["hash", "id", "row", "tokens"])
            heads.append(head.append_column("part", pa.array([part] * head.num_rows, pa.string())))
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
