"""Cells and shard ranges: where a document's tokens lie.

A cell is what a mixture can weigh: language x source type x quality bucket, or other columns. Within a cell a document
goes to the shard whose range holds the 64-bit hash of its id, and stands there in the order of the hash: a seeded
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

CELL_COLUMNS = ("language", "source_type", "quality", "source", "domain")
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


def check_columns(columns: Sequence[str], domains: Sequence[str]) -> None:
    """Refuse what no cells can be made of: unknown or repeated columns, domains without their column."""
    if not columns or len(set(columns)) < len(columns) or set(columns) - set(CELL_COLUMNS):
        raise ConfigError(f"cells is {list(columns)}; expected some of {', '.join(CELL_COLUMNS)}, none twice")
    if ("domain" in columns) != bool(domains):
        raise ConfigError(
            f"cells is {list(columns)} and cell_domains {list(domains)}; expected domain in cells, and names for it",
            mend="a cell for every domain would be a shard for every domain: name those to be weighed",
        )


def cell_column(columns: Sequence[pa.Array]) -> pa.DictionaryArray:
    """The cell of each document: the plain names of its values, joined by dots, such as `en.web.q1`.

    `columns` hold strings, or are dictionaries of them. Names are lower-case ASCII letters, digits, `_` and `-`,
    whatever the columns hold.
    """
    made = [column if isinstance(column, pa.DictionaryArray) else _encoded(column) for column in columns]
    codes = [np.asarray(column.indices).astype(np.int64) for column in made]
    sizes = tuple(max(1, len(column.dictionary)) for column in made)
    found, where = np.unique(np.ravel_multi_index(codes, sizes), return_inverse=True)
    values = [[plain_name(value) for value in column.dictionary.to_pylist()] for column in made]
    rows = np.stack(np.unravel_index(found, sizes), axis=1).tolist()
    names = [".".join(names[code] for names, code in zip(values, row, strict=True)) for row in rows]
    plain = sorted(set(names))
    place = np.array([plain.index(name) for name in names], np.int32)
    return pa.DictionaryArray.from_arrays(place[where.reshape(-1)], pa.array(plain, pa.string()))


def _encoded(column: pa.Array) -> pa.DictionaryArray:
    return pc.dictionary_encode(pc.fill_null(column, ""))


def named_domains(domains: pa.Array, named: Sequence[str]) -> pa.Array:
    """The `named` ones of the domains; the others are "other"."""
    return pc.if_else(pc.is_in(domains, pa.array(named, domains.type)), domains, "other")


def quality_names(buckets: np.ndarray) -> pa.DictionaryArray:
    """(n,) `q<bucket>` of `quality_buckets`, `qx` for a document without one."""
    names = pa.array(["qx", *(f"q{bucket}" for bucket in range(int(buckets.max(initial=-1)) + 1))])
    return pa.DictionaryArray.from_arrays(pa.array((buckets + 1).astype(np.int32)), names)


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
