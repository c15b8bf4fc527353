"""Several scores as one: each becomes the number of its equal-mass bucket over a corpus, then the largest or the mean.

Scores of different models do not compare; their ranks over one corpus do (CCI4.0 takes 20 buckets and the maximum: a
page that one of its judges likes stays). The edges are fixed with the artifact, so a crawl that is added later is
judged by the same ones.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from pipelines.errors import ConfigError

GRID = 10_001  # a score stands on a grid of 1e-4
HOW = ("max", "mean")


def histogram(scores: pa.Array | pa.ChunkedArray) -> np.ndarray:
    """(GRID,) int64 documents at each value of the grid; nulls are left out."""
    values = np.asarray(scores.drop_null(), np.float64)
    places = np.clip(np.rint(values * (GRID - 1)), 0, GRID - 1).astype(np.int64)
    return np.bincount(places, minlength=GRID)


def equal_mass_edges(counts: np.ndarray, buckets: int) -> list[float]:
    """(buckets - 1,) scores at which a bucket begins, each bucket with as near as can be the same share of documents.

    Where many documents have one score some buckets are empty and their edges equal.
    """
    if buckets < 2:
        raise ConfigError(f"{buckets} buckets", mend="2 or more; CCI4.0 has 20")
    total = int(counts.sum())
    if total == 0:
        raise ConfigError("no document has a score", mend="run score_quality first")
    reached = np.cumsum(counts)
    wanted = np.arange(1, buckets) * total / buckets
    places = np.searchsorted(reached, wanted, side="left") + 1  # the bucket begins above the value that fills the last
    return np.round(np.minimum(places, GRID - 1) / (GRID - 1), 4).tolist()


def combine(columns: Sequence[pa.Array], edges: Sequence[Sequence[float]], how: str) -> pa.DoubleArray:
    """Columns of scores, (n,) each -> (n,) in [0, 1]: bucket over the number of buckets less one, largest or mean.

    Of what members have no score only the others count; null where none has one.
    """
    if how not in HOW:
        raise ConfigError(f"how is {how!r}", mend=f"one of {', '.join(HOW)}")
    ranks, known = [], []
    for column, bounds in zip(columns, edges, strict=True):
        values = np.asarray(column.fill_null(-1.0), np.float64)
        ranks.append(np.searchsorted(np.array(bounds), values + 1e-9, side="right") / len(bounds))
        known.append(values >= 0)
    rank, has = np.stack(ranks), np.stack(known)
    some = has.any(axis=0)
    if how == "max":
        found = np.where(has, rank, 0.0).max(axis=0)
    else:
        found = np.where(has, rank, 0.0).sum(axis=0) / np.maximum(has.sum(axis=0), 1)
    return pa.array(np.round(found, 4), mask=~some)
