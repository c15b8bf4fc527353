"""Cells and shard ranges: where a document's tokens lie.

A cell is what a mixture can weigh: language x source type x quality bucket. Within a cell a document goes to
the shard whose range holds the 64-bit hash of its id, and stands there in the order of the hash: a seeded
external shuffle, done once, that needs no memory and does not depend on who wrote what.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from pipelines.errors import ConfigError
from pipelines.tokens.sampling import id_hash

_NAME = re.compile(r"[^a-z0-9_-]+")


def check_edges(edges: Sequence[float]) -> None:
    """Refuse quality edges that do not rise."""
    if list(edges) != sorted(set(edges)):
        raise ConfigError(
            f"quality_edges is {list(edges)}; expected rising numbers",
            mend="for three buckets: quality_edges=[0.3, 0.7]",
        )


def cell_names(
    language: Sequence[str | None],
    source_type: Sequence[str | None],
    quality: Sequence[float | None] | None,
    edges: Sequence[float],
) -> list[str]:
    """`language.source_type.q<bucket>` of each document.

    Bucket b holds scores from edges[b - 1] (inclusive) to edges[b]; a document without a score is in `qx`.
    Names are lower-case ASCII letters, digits, `_` and `-`, whatever the columns hold.
    """
    scores = [None] * len(language) if quality is None else quality
    return [
        f"{plain_name(tongue)}.{plain_name(kind)}.{_bucket(score, edges)}"
        for tongue, kind, score in zip(language, source_type, scores, strict=True)
    ]


def plain_name(value: str | None) -> str:
    """Lower-case ASCII letters, digits, `_` and `-` of a value, 40 at most; "unknown" for nothing."""
    return _NAME.sub("-", (value or "").lower()).strip("-")[:40] or "unknown"


def _bucket(score: float | None, edges: Sequence[float]) -> str:
    return "qx" if score is None else f"q{int(np.searchsorted(edges, score, side='right'))}"


def id_hashes(ids: pa.Array, seed: int) -> np.ndarray:
    """(n,) uint64."""
    return np.array([id_hash(document, seed) for document in ids.to_pylist()], np.uint64)


def shard_count(tokens: int, shard_tokens: int) -> int:
    """Shards of a cell: as many as come nearest to `shard_tokens` each, at least one."""
    return max(1, (tokens + shard_tokens // 2) // shard_tokens)


def shard_ranges(count: int) -> list[tuple[int, int]]:
    """[first, last] of each shard's hashes, both inclusive: the 64-bit space in equal parts."""
    bounds = [i * 2**64 // count for i in range(count + 1)]
    return [(bounds[i], bounds[i + 1] - 1) for i in range(count)]
