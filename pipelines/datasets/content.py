"""Sums that prove equality of content whatever the order, the parts and the library version.

`content_sum` of a table: the row count and the sum mod 2^128 of xxh3-128 over canonical rows. A canonical row
joins, in order of the column names, `name type-tag length value` of each column that is not null; so a null
column is as good as absent, and versions add and subtract. `rows_sum`: an ordered hash of a part's ids.
"""

from __future__ import annotations

import itertools
import struct
from collections.abc import Iterable

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import xxhash

from pipelines.errors import IntegrityError

_MASK = (1 << 128) - 1


def table_content_sum(table: pa.Table) -> str:
    """`<rows>-<32 hex>` of a table of strings, binaries, booleans, integers and floats."""
    total = 0
    for batch in table.to_batches(max_chunksize=8192):
        rows = _canonical_rows(batch)
        view = memoryview(rows.buffers()[2] or b"")
        ends = np.frombuffer(rows.buffers()[1], np.int64)[rows.offset : rows.offset + len(rows) + 1].tolist()
        digest = xxhash.xxh3_128_intdigest
        for start, end in itertools.pairwise(ends):
            total += digest(view[start:end])
    return format_sum(table.num_rows, total)


def bytes_content_sum(body: bytes, rows: int) -> str:
    """`<rows>-<32 hex>` of an opaque object: a token shard, a model."""
    return format_sum(rows, xxhash.xxh3_128_intdigest(body))


class OrderedIds:
    """`rows_sum` of ids that come in pieces."""

    def __init__(self) -> None:
        """No ids yet."""
        self._hasher = xxhash.xxh3_128()

    def add(self, ids: Iterable[str | None]) -> None:
        """The next ids in order; a null id (a tombstone) counts as empty."""
        self._hasher.update("".join([f"{i or ''}\n" for i in ids]).encode())

    def hexdigest(self) -> str:
        """32 hex."""
        return self._hasher.hexdigest()


def rows_sum(ids: Iterable[str | None]) -> str:
    """32 hex of the ids in their order; a null id (a tombstone) counts as empty."""
    ordered = OrderedIds()
    ordered.add(ids)
    return ordered.hexdigest()


def key_hashes(keys: Iterable[bytes]) -> list[int]:
    """The hash of each record key, which books and their accounts add up."""
    return list(map(xxhash.xxh3_128_intdigest, keys))


def key_sum(keys: Iterable[bytes]) -> int:
    """Sum mod 2^128 of the hashes of record keys: one lost and one doubled record do not cancel."""
    return sum(key_hashes(keys)) & _MASK


def format_sum(rows: int, total: int) -> str:
    """Text form of a content sum."""
    return f"{rows}-{total & _MASK:032x}"


def add_sums(sums: Iterable[str]) -> str:
    """Sum of content sums: of the parts of a dataset."""
    rows = total = 0
    for s in sums:
        count, _, digest = s.partition("-")
        rows += int(count)
        total += int(digest, 16)
    return format_sum(rows, total)


def _canonical_rows(batch: pa.RecordBatch) -> pa.LargeBinaryArray:
    """(n,) binary.  Neighbouring columns of numbers without nulls have one width, and are laid side by side at once."""
    columns: list[pa.Array | pa.Scalar] = []
    block: list[tuple[str, pa.Array]] = []
    for name in sorted(batch.schema.names):
        column = batch.column(name)
        if column.null_count == len(column) and len(column):
            continue
        if column.null_count == 0 and _is_number(column.type):
            block.append((name, column))
            continue
        if block:
            columns.append(_number_block(block, batch.num_rows))
            block = []
        columns += _canonical_column(name, column)
    if block:
        columns.append(_number_block(block, batch.num_rows))
    if not columns:
        return pa.array([b""] * batch.num_rows, pa.large_binary())
    if len(columns) == 1:
        return columns[0].fill_null(b"")
    empty = pa.scalar(b"", pa.large_binary())
    return pc.binary_join_element_wise(*columns, empty, null_handling="replace", null_replacement=b"")


def _is_number(kind: pa.DataType) -> bool:
    return pa.types.is_integer(kind) or pa.types.is_boolean(kind) or pa.types.is_floating(kind)


def _number_block(block: list[tuple[str, pa.Array]], rows: int) -> pa.LargeBinaryArray:
    """The canonical form of number columns without nulls, joined: each row has the same names, tags and lengths."""
    heads = [
        struct.pack("<H", len(name.encode())) + name.encode() + (b"f" if pa.types.is_floating(c.type) else b"i")
        + struct.pack("<q", 8)
        for name, c in block
    ]  # fmt: skip
    width = sum(len(head) + 8 for head in heads)
    laid = np.empty((rows, width), np.uint8)
    laid[:] = np.frombuffer(b"".join(head + bytes(8) for head in heads), np.uint8)
    at = 0
    for head, (_, column) in zip(heads, block, strict=True):
        at += len(head)
        laid[:, at : at + 8] = _eight_bytes(column).view(np.uint8).reshape(rows, 8)
        at += 8
    offsets = pa.py_buffer(np.arange(rows + 1, dtype=np.int64) * width)
    return pa.Array.from_buffers(pa.large_binary(), rows, [None, offsets, pa.py_buffer(laid)])


def _eight_bytes(column: pa.Array) -> np.ndarray:
    """(n,) 8-byte numbers as they are hashed: no -0.0, one NaN."""
    if pa.types.is_floating(column.type):
        clean = np.asarray(column.cast(pa.float64())) + 0.0
        clean[np.isnan(clean)] = np.nan
        return np.ascontiguousarray(clean)
    unsigned = pa.types.is_uint64(column.type)
    return np.ascontiguousarray(np.asarray(column.cast(pa.uint64() if unsigned else pa.int64())))


def _canonical_column(name: str, column: pa.Array) -> list[pa.Array | pa.Scalar]:
    """What is joined for a column: name, tag, length, value; each null where the column is null."""
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    kind = column.type
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        tag, value = b"s", column.cast(pa.large_string()).cast(pa.large_binary())
    elif pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_fixed_size_binary(kind):
        value = column.cast(pa.binary()) if pa.types.is_fixed_size_binary(kind) else column
        tag, value = b"b", value.cast(pa.large_binary())
    elif pa.types.is_integer(kind) or pa.types.is_boolean(kind):
        unsigned = pa.types.is_uint64(kind)
        tag, value = b"i", _fixed(column.cast(pa.uint64() if unsigned else pa.int64()))
    elif pa.types.is_floating(kind):
        numbers = column.cast(pa.float64())
        clean = np.asarray(numbers.fill_null(0.0)) + 0.0  # -0.0 becomes 0.0
        clean[np.isnan(clean)] = np.nan  # one NaN
        tag, value = b"f", _fixed(pa.array(clean, mask=np.asarray(numbers.is_null())))
    elif pa.types.is_null(kind):
        return []
    else:
        raise IntegrityError(f"column {name!r} of type {kind} has no content sum", mend="store plain columns only")
    lengths = _fixed(pc.binary_length(value).cast(pa.int64()))
    head = pa.scalar(struct.pack("<H", len(name.encode())) + name.encode() + tag, pa.large_binary())
    if column.null_count:
        head = pc.if_else(column.is_valid(), head, pa.scalar(None, pa.large_binary()))
    return [head, lengths, value]


def _fixed(column: pa.Array) -> pa.Array:
    """8-byte little-endian values as binary; nulls stay null."""
    values = np.ascontiguousarray(np.asarray(column.fill_null(0)))
    n = len(values)
    offsets = pa.py_buffer(np.arange(n + 1, dtype=np.int64) * 8)
    plain = pa.Array.from_buffers(pa.large_binary(), n, [None, offsets, pa.py_buffer(values.tobytes())])
    return pc.if_else(column.is_valid(), plain, pa.scalar(None, pa.large_binary())) if column.null_count else plain
