"""Rounds of comparison, and the kept set: the lexicographically first independent set in the survivor order.

Round 1 compares the best document of each bucket with the others. Whoever is removed has a verified edge to a document
that is kept. Whoever is still kept in a bucket whose best failed against it, or is gone, meets the best of those that
are left in the next round. What a document is compared with, and so its fate after each round, follows from the better
documents alone: an appended crawl, whose documents are all worse, cannot change it.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from pipelines.dedup.buckets import EDGES, edges_table
from pipelines.dedup.marks import are_marked
from pipelines.kernels import kernel

ROUNDS = 3
UNLIKE = 10  # added to the round of LINKS that were compared and found too unlike; decisions know none of them


def round_edges(buckets: pa.Table, removed: Sequence[np.ndarray], fresh_from: int) -> pa.Table:
    """EDGES (not distinct) of the round after those whose removed documents are given as bits.

    Only edges to a member from `fresh_from` on: earlier documents were compared before.
    """
    if buckets.num_rows == 0:
        return EDGES.empty_table()
    centre, alive = _stand(buckets, removed)
    node, start = buckets["node"].to_numpy(), buckets["start"].to_numpy(zero_copy_only=False)
    of_bucket = centre[np.cumsum(start) - 1]
    member = np.flatnonzero(alive & (np.arange(len(node)) != of_bucket) & (node >= fresh_from))
    order = np.column_stack([buckets[name].to_numpy() for name in ("place", "tie", "node")])
    return edges_table(order, of_bucket[member], member)


def uncompared(buckets: pa.Table, removed: Sequence[np.ndarray], fresh_from: int) -> np.ndarray:
    """Nodes from `fresh_from` on that a further round would compare with a better one."""
    if buckets.num_rows == 0:
        return np.zeros(0, np.int64)
    return np.unique(round_edges(buckets, removed, fresh_from)["member"].to_numpy())


def _stand(buckets: pa.Table, removed: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """(row of each bucket's centre in this round or -1, (n,) bool: takes part, the centre too)."""
    node, start = buckets["node"].to_numpy(), buckets["start"].to_numpy(zero_copy_only=False)
    bucket = np.cumsum(start) - 1
    centre = np.flatnonzero(start)
    alive = np.ones(len(node), bool)
    spent = start.copy()
    for bits in removed:
        alive = ~spent & ~are_marked(bits, node)
        rows = np.flatnonzero(alive)[::-1]
        centre = np.full(len(centre), -1)
        centre[bucket[rows]] = rows  # the last write is the first row
        spent[centre[centre >= 0]] = True
    return centre, alive


def distinct_edges(edges: np.ndarray, earlier: np.ndarray) -> np.ndarray:
    """(m, 6) rows of EDGES once each, sorted, without the (k, 2) pairs that an earlier round compared."""
    edges = edges[np.lexsort((edges[:, 1], edges[:, 0]))]
    first = np.ones(len(edges), bool)
    first[1:] = (edges[1:, :2] != edges[:-1, :2]).any(axis=1)
    edges = edges[first]
    if len(earlier) == 0 or len(edges) == 0:
        return edges
    both = np.concatenate([earlier, edges[:, :2]])
    order = np.lexsort((np.arange(len(both)), both[:, 1], both[:, 0]))
    known = np.zeros(len(both), bool)
    known[1:] = (both[order][1:] == both[order][:-1]).all(axis=1)
    seen = np.zeros(len(both), bool)
    seen[order] = known
    return edges[~seen[len(earlier) :]]


def recalled(edges: np.ndarray, known: pa.Table, number: int) -> tuple[np.ndarray, pa.Table]:
    """((m, 6) rows of EDGES that are not `known`, LINKS of those that are, as compared in this round).

    `edges` are distinct and sorted by both ends. What was too unlike, by its round (`links.UNLIKE`), stays so.
    """
    ends = [known[name].to_numpy() for name in ("centre", "member")]
    order = np.lexsort(ends[::-1])
    pairs = np.column_stack(ends)[order]
    both = np.concatenate([pairs, edges[:, :2]])
    by = np.lexsort((np.arange(len(both)), both[:, 1], both[:, 0]))
    repeats = np.zeros(len(both), bool)
    repeats[1:] = (both[by][1:] == both[by][:-1]).all(axis=1)
    seen = np.zeros(len(both), bool)
    seen[by] = repeats
    source = np.zeros(len(both), np.int64)
    source[by[1:]] = by[:-1]
    found = np.flatnonzero(seen[len(pairs) :])
    rows = order[source[len(pairs) + found]]
    links = known.take(pa.array(rows))
    unlike = links["round"].to_numpy() // UNLIKE * UNLIKE
    links = links.set_column(links.schema.get_field_index("round"), "round", pa.array(unlike + number))
    return np.delete(edges, found, axis=0), links


@kernel
def _remove(worse, better, edge_order, decided, removed):
    for k in range(len(edge_order)):
        e = edge_order[k]
        if not decided[worse[e]] and not removed[better[e]]:
            removed[worse[e]] = True


def remove(better: np.ndarray, worse: np.ndarray, decided: np.ndarray, removed: np.ndarray) -> np.ndarray:
    """(n,) bool: who is removed, of documents numbered in the survivor order, by edges from better to worse.

    A document stays unless an edge leads to a better one that stays. Those `decided` keep what `removed` says.
    """
    out = np.where(decided, removed, False)
    _remove(worse.astype(np.int64), better.astype(np.int64), np.argsort(worse, kind="stable"), decided, out)
    return out
