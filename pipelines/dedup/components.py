"""Buckets to star edges, edges to components: union-find over arrays, 8 bytes a document.

Everything here takes dense integers (the rank of a document in the survivor order, or its node number) and
gives a result that depends on the sets alone, not on the order of rows or on how they were partitioned.
"""

from __future__ import annotations

import numpy as np

from pipelines.kernels import kernel


def star_edges(key: np.ndarray, order: np.ndarray, node: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(centre, member) of every bucket of equal `key`: the best copy, least by (order, node), to each other.

    Linear in the bucket, where all pairs would be quadratic. `key` is (n,) or (n, k); a bucket of one gives
    no edge. Edges are sorted by (centre, member).
    """
    if len(node) == 0:
        return np.zeros(0, np.int64), np.zeros(0, np.int64)
    keys = key.reshape(len(node), -1)
    by = np.lexsort((node, order, *keys.T[::-1]))
    keys, node = keys[by], node[by]
    first = np.ones(len(node), bool)
    first[1:] = (keys[1:] != keys[:-1]).any(axis=1)
    centre = node[first][np.cumsum(first) - 1]
    centre, member = centre[~first], node[~first]
    by = np.lexsort((member, centre))
    return centre[by], member[by]


@kernel
def _find(parent, x):
    while parent[x] != x:
        parent[x] = parent[parent[x]]
        x = parent[x]
    return x


@kernel
def _cluster(generation, left, right, edge_order, root):
    parent = np.arange(len(generation))
    done = 0
    edge = 0
    while done < len(generation):
        now = generation[done]
        while edge < len(edge_order):
            e = edge_order[edge]
            if generation[max(left[e], right[e])] > now:
                break
            a = _find(parent, left[e])
            b = _find(parent, right[e])
            if a < b:
                parent[b] = a
            else:
                parent[a] = b
            edge += 1
        while done < len(generation) and generation[done] == now:
            root[done] = _find(parent, done)
            done += 1


def clusters(generation: np.ndarray, left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """(n,) int64: for each document, numbered in the survivor order, the best member of its cluster.

    `generation` is non-decreasing (it is the first key of the order). A document's cluster is taken from the
    edges among its own and earlier generations: what an appended crawl brings never changes an earlier
    decision, and the whole computed anew equals the appends one by one.
    """
    root = np.zeros(len(generation), np.int64)
    left, right = np.asarray(left, np.int64), np.asarray(right, np.int64)
    edge_order = np.argsort(np.maximum(left, right), kind="stable")
    _cluster(np.asarray(generation, np.int64), left, right, edge_order, root)
    return root
