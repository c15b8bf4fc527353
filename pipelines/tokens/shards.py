"""Token shards: what Megatron-Core reads, the way back to the documents, and a checksum a page.

`.bin` is the tokens, little-endian. `.idx` is Megatron-Core's IndexedDataset index, version 1: magic, u64
version, u8 dtype code, u64 sequences, u64 document bounds, i32 lengths, i64 byte pointers, i64 document
bounds; here a document is one sequence. `.docs.parquet` says which document each is; a row without id is
padding of a packed shard. `.crc` is a
little-endian u32 CRC-32C for every 16 KiB of `.bin`, so that a ranged read can be checked by itself.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

import crc32c
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.errors import IntegrityError

PAGE_BYTES = 16 * 1024
_DOCS_ROW_GROUP = 16_384  # so that one token's document is found without reading all
_MAGIC = b"MMIDIDX\x00\x00"
_HEADER = struct.Struct("<9sQBQQ")
_DTYPE_CODES = {4: np.dtype("<i4"), 8: np.dtype("<u2")}

DOCS = pa.schema(
    [
        ("document", pa.int64()),
        ("id", pa.string()),
        ("part", pa.string()),
        ("row", pa.int64()),
        ("first_token", pa.int64()),
        ("tokens", pa.int64()),
    ]
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Shard:
    """The four files of one shard."""

    tokens: bytes  # .bin
    index: bytes  # .idx
    docs: bytes  # .docs.parquet
    checksums: bytes  # .crc


def firsts_of(lengths: np.ndarray) -> np.ndarray:
    """(n,) int64: where runs of these lengths begin that lie one after another."""
    firsts = np.zeros(len(lengths), np.int64)
    np.cumsum(lengths[:-1], out=firsts[1:])
    return firsts


def build_shard(tokens: np.ndarray, lengths: np.ndarray, ids: pa.Array, parts: pa.Array, rows: np.ndarray) -> Shard:
    """A shard of documents in the order given; `tokens` is flat and lengths sum to it."""
    if int(lengths.sum()) != len(tokens):
        raise IntegrityError(f"lengths sum to {int(lengths.sum())} tokens, the shard holds {len(tokens)}")
    body = np.ascontiguousarray(tokens, tokens.dtype.newbyteorder("<")).tobytes()
    firsts = firsts_of(lengths)
    docs = pa.table(
        [np.arange(len(lengths)), ids, parts, rows.astype(np.int64), firsts, lengths.astype(np.int64)],
        schema=DOCS,
    )
    sink = pa.BufferOutputStream()
    pq.write_table(
        docs, sink, compression="zstd", write_page_checksum=True, store_schema=False, row_group_size=_DOCS_ROW_GROUP
    )
    return Shard(
        tokens=body,
        index=write_index(lengths, tokens.dtype),
        docs=sink.getvalue().to_pybytes(),
        checksums=page_checksums(body),
    )


def write_index(lengths: np.ndarray, dtype: np.dtype) -> bytes:
    """The `.idx` of documents of these lengths, in tokens."""
    codes = {found: code for code, found in _DTYPE_CODES.items()}
    pointers = np.zeros(len(lengths), "<i8")
    np.cumsum(lengths[:-1] * dtype.itemsize, out=pointers[1:])
    bounds = np.arange(len(lengths) + 1, dtype="<i8")
    header = _HEADER.pack(_MAGIC, 1, codes[dtype.newbyteorder("<")], len(lengths), len(bounds))
    return header + lengths.astype("<i4").tobytes() + pointers.tobytes() + bounds.tobytes()


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardIndex:
    """A parsed `.idx`."""

    dtype: np.dtype
    lengths: np.ndarray  # (sequences,) int32, tokens
    pointers: np.ndarray  # (sequences,) int64, bytes
    document_bounds: np.ndarray  # (documents + 1,) int64, in sequences

    @property
    def tokens(self) -> int:
        """Tokens in the shard."""
        return int(self.lengths.sum(dtype=np.int64))


def read_index(body: bytes) -> ShardIndex:
    """Parse an `.idx`; IntegrityError where it is not one, is cut, or does not add up."""
    if len(body) < _HEADER.size or body[:9] != _MAGIC:
        raise IntegrityError(f"not a Megatron index: starts with {body[:9]!r}, expected {_MAGIC!r}")
    _, version, code, sequences, bounds = _HEADER.unpack_from(body)
    if version != 1 or code not in _DTYPE_CODES:
        raise IntegrityError(
            f"index version {version}, dtype code {code}; expected version 1, codes {list(_DTYPE_CODES)}"
        )
    expected = _HEADER.size + 12 * sequences + 8 * bounds
    if len(body) != expected:
        raise IntegrityError(f"the index of {sequences} sequences has {len(body)} bytes, expected {expected}")
    at = _HEADER.size
    lengths = np.frombuffer(body, "<i4", sequences, at)
    pointers = np.frombuffer(body, "<i8", sequences, at + 4 * sequences)
    return ShardIndex(
        dtype=_DTYPE_CODES[code],
        lengths=lengths,
        pointers=pointers,
        document_bounds=np.frombuffer(body, "<i8", bounds, at + 12 * sequences),
    )


def page_checksums(body: bytes | memoryview) -> bytes:
    """The `.crc` of a `.bin`: CRC-32C of each page, the last one short."""
    view = memoryview(body)
    return b"".join(
        struct.pack("<I", crc32c.crc32c(view[start : start + PAGE_BYTES])) for start in range(0, len(body), PAGE_BYTES)
    )


def page_range(first_token: int, tokens: int, itemsize: int) -> tuple[int, int]:
    """[first, last) page numbers that cover these tokens."""
    return first_token * itemsize // PAGE_BYTES, -(-(first_token + tokens) * itemsize // PAGE_BYTES)


def damaged_pages(body: bytes, first_page: int, checksums: bytes) -> list[int]:
    """Page numbers within `body`, which starts at `first_page`, that do not match the shard's checksums.

    A page that the checksums do not know, because `body` is longer than the shard, counts as damaged.
    """
    view = memoryview(body)
    damaged = []
    for i, start in enumerate(range(0, len(body), PAGE_BYTES)):
        found = struct.pack("<I", crc32c.crc32c(view[start : start + PAGE_BYTES]))
        page = first_page + i
        if found != checksums[4 * page : 4 * page + 4]:
            damaged.append(page)
    return damaged


def read_documents(shard: Shard) -> list[np.ndarray]:
    """Tokens of each document, after checking every page and the index against the tokens."""
    if damaged := damaged_pages(shard.tokens, 0, shard.checksums):
        raise IntegrityError(f"pages {damaged[:8]} do not match their checksums", mend="fetch the shard again")
    index = read_index(shard.index)
    tokens = np.frombuffer(shard.tokens, index.dtype)
    if index.tokens != len(tokens):
        raise IntegrityError(f"the index counts {index.tokens} tokens, the shard holds {len(tokens)}")
    starts = index.pointers // index.dtype.itemsize
    return [tokens[start : start + length] for start, length in zip(starts, index.lengths, strict=True)]
