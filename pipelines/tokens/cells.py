"""Cells and shard ranges: where a document's tokens lie.

A cell is what a mixture can weigh: language x source type x quality bucket. Within a cell a document goes to
the shard whose range holds the 64-bit hash of its id, and stands there in the order of the hash: a seeded
external shuffle, done once, that needs no memory and does not depend on who wrote what. The ranges are cut where the
tokens counted by leading bits of the hash say, so that shards are equal in tokens.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipelines.errors import ConfigError
from pipelines.tokens.sampling import id_hash

BUCKET_BITS = 12
BUCKETS = 1 << BUCKET_BITS
_FEW_DOCUMENTS = 64
_NAME = re.compile(r"[^a-z0-9_-]+")


def check_edges(edges: Sequence[float]) -> None:
    """Refuse quality edges that do not rise."""
    if list(edges) != sorted(set(edges)):
        raise ConfigError(
            f"quality_edges is {list(edges)}; expected rising numbers",
            mend="for three buckets: quality_edges=[0.3, 0.7]",
        )


def cell_column(language: pa.Array, source_type: pa.Array, buckets: np.ndarray | None) -> pa.DictionaryArray:
    """`language.source_type.q<bucket>` of each document.

    `buckets`: of `quality_buckets`; without scores all are in `qx`. Names are lower-case ASCII letters, digits, `_` and
    `-`, whatever the columns hold.
    """
    tongues, kinds = (pc.dictionary_encode(pc.fill_null(column, "")) for column in (language, source_type))
    scored = np.full(len(language), -1) if buckets is None else buckets
    codes = np.stack([np.asarray(tongues.indices), np.asarray(kinds.indices), scored], axis=1).astype(np.int64)
    found, where = np.unique(codes, axis=0, return_inverse=True)
    names = [
        f"{plain_name(tongues.dictionary[a].as_py())}.{plain_name(kinds.dictionary[b].as_py())}.q{'x' if c < 0 else c}"
        for a, b, c in found.tolist()
    ]
    plain = sorted(set(names))
    place = np.array([plain.index(name) for name in names], np.int32)
    return pa.DictionaryArray.from_arrays(place[where.reshape(-1)], pa.array(plain, pa.string()))


def quality_buckets(scores: pa.Array | pa.ChunkedArray, edges: Sequence[float]) -> np.ndarray:
    """(n,) int64: bucket b holds scores from edges[b - 1] (inclusive) to edges[b]; -1 for a document without one."""
    values = np.asarray(pc.fill_null(scores, float("nan")), np.float64)
    found = np.searchsorted(np.asarray(edges, np.float64), values, side="right").astype(np.int64)
    return np.where(np.isnan(values), -1, found)


def plain_name(value: str | None) -> str:
    """Lower-case ASCII letters, digits, `_` and `-` of a value, 40 at most; "unknown" for nothing."""
    return _NAME.sub("-", (value or "").lower()).strip("-")[:40] or "unknown"


def id_hashes(ids: pa.Array, seed: int) -> np.ndarray:
    """(n,) uint64."""
    return np.array([id_hash(document, seed) for document in ids.to_pylist()], np.uint64)


def shard_count(tokens: int, shard_tokens: int) -> int:
    """Shards of a cell: as many as come nearest to `shard_tokens` each, at least one."""
    return max(1, (tokens + shard_tokens // 2) // shard_tokens)


def token_buckets(hashes: np.ndarray, lengths: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(BUCKETS,) int64 tokens and documents of one cell by the leading bits of the hashes."""
    bucket = (hashes >> np.uint64(64 - BUCKET_BITS)).astype(np.int64)
    tokens = np.bincount(bucket, weights=lengths, minlength=BUCKETS).astype(np.int64)
    return tokens, np.bincount(bucket, minlength=BUCKETS).astype(np.int64)


def shard_ranges(tokens: np.ndarray, documents: np.ndarray, count: int) -> list[tuple[int, int]]:
    """[first, last] of each shard's hashes, both inclusive, so that the shards hold about equal numbers of tokens.

    The ranges tile the 64-bit space. A border falls on a bucket's edge or, where a bucket holds many documents, within
    it in proportion: hashes are even. Fewer than `count` ranges come back where single documents are larger than a
    shard's share.
    """
    before = np.concatenate([[0], np.cumsum(tokens)])
    total, bounds, held = int(before[-1]), [0], 0.0
    for i in range(1, count):
        wanted = total * i // count
        bucket = int(np.searchsorted(before, wanted, side="right")) - 1
        inside = (wanted - int(before[bucket])) / max(1, int(before[bucket + 1] - before[bucket])) if total else 0.0
        if documents[min(bucket, BUCKETS - 1)] <= _FEW_DOCUMENTS:
            inside = float(round(inside))
        bound = (bucket << 64 - BUCKET_BITS) + int(inside * (1 << 64 - BUCKET_BITS))
        reached = float(before[bucket]) + inside * float(tokens[min(bucket, BUCKETS - 1)])
        if held < reached < total:
            bounds.append(bound)
            held = reached
    bounds.append(2**64)
    return [(first, after - 1) for first, after in itertools.pairwise(bounds)]
