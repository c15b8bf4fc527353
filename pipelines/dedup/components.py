"""Edges to components: union-find over arrays, 4 bytes a document (8 above 2^31).

Everything here takes dense integers (the rank of a document in the survivor order, or its node number) and
gives a result that depends on the sets alone, not on the order of rows or on how they were partitioned.
"""

from __future__ import annotations

import numpy as np

from pipelines.kernels import kernel

_ODD = np.uint64(0x9E3779B97F4A7C15)


@kernel
def _find(parent, x):
    while parent[x] != x:
        parent[x] = parent[parent[x]]
        x = parent[x]
    return x


@kernel
def _unite(parent, left, right):
    for e in range(len(left)):
        a = _find(parent, left[e])
        b = _find(parent, right[e])
        if a < b:
            parent[b] = a
        elif b < a:
            parent[a] = b
    for i in range(len(parent)):
        parent[i] = parent[parent[i]]  # a parent is never greater, so its own root is known by now


def components(count: int, left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """(count,) int32 (int64 from 2^31 on): the least node of the component of each node 0 .. count - 1.

    Takes nothing but the result, so edges may come in any number of tables: `unite` adds one.
    """
    parent = alone(count)
    unite(parent, left, right)
    return parent


def alone(count: int) -> np.ndarray:
    """The state of `unite` before any edge."""
    return np.arange(count, dtype=np.int32 if count < 2**31 else np.int64)


def unite(parent: np.ndarray, left: np.ndarray, right: np.ndarray) -> None:
    """Add edges; afterwards `parent` holds the least node of each node's component, over all edges so far."""
    _unite(parent, np.asarray(left), np.asarray(right))


@kernel
def _dense(high, low, slots, keys, out):
    """Number equal 128-bit ids by their first occurrence; returns how many there are.

    Ids lie in `keys` in the order of their numbers, both halves in one cache line, so a look-up misses twice.
    """
    mask = np.uint64(len(slots) - 1)
    count = 0
    for i in range(len(high)):
        ours, theirs = high[i], low[i]
        h = (ours ^ (theirs * _ODD)) * _ODD
        slot = (h ^ (h >> np.uint64(32))) & mask
        while True:
            at = slots[slot]
            if at < 0:
                slots[slot] = count
                keys[count, 0] = ours
                keys[count, 1] = theirs
                out[i] = count
                count += 1
                break
            if keys[at, 0] == ours and keys[at, 1] == theirs:
                out[i] = at
                break
            slot = (slot + np.uint64(1)) & mask
    return count


def dense_ids(high: np.ndarray, low: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """((m, 2) uint64 different ids by first occurrence, (n,) their numbers for each row) of (n,) uint64 halves."""
    bits = max(4, int(1.4 * len(high)).bit_length())  # at most 0.71 full, though each id occurs once
    kind = np.int32 if len(high) < 2**31 else np.int64
    slots = np.full(1 << bits, -1, kind)
    keys = np.empty((len(high), 2), np.uint64)
    numbers = np.empty(len(high), kind)
    count = _dense(high.view(np.uint64), low.view(np.uint64), slots, keys, numbers)
    return keys[:count], numbers


@kernel
def _least_ids(root, high, low, least):
    """For each root the place of the least id of its component."""
    for i in range(len(root)):
        at = least[root[i]]
        if at < 0 or high[i] < high[at] or (high[i] == high[at] and low[i] < low[at]):
            least[root[i]] = i


def id_components(
    left: tuple[np.ndarray, np.ndarray], right: tuple[np.ndarray, np.ndarray]
) -> tuple[tuple[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]:
    """(node, root), each two (m,) uint64 halves: the least id of the component of each id that has an edge.

    Rows are in the order in which the ids occur; which root an id has does not depend on that order.
    """
    high = np.concatenate([left[0], right[0]]).view(np.uint64)
    low = np.concatenate([left[1], right[1]]).view(np.uint64)
    keys, numbers = dense_ids(high, low)
    high, low = np.ascontiguousarray(keys[:, 0]), np.ascontiguousarray(keys[:, 1])
    edges = len(left[0])
    root = components(len(high), numbers[:edges], numbers[edges:])
    least = np.full(len(root), -1, root.dtype)
    _least_ids(root, high, low, least)
    named = least[root]
    return (high, low), (high[named], low[named])


def large_star(centre: np.ndarray, member: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """One round on all edges of some nodes, in both directions: each greater neighbour goes to the least known.

    Kiveris, Lattanzi, Mirrokni, Rastogi, Vassilvitskii, "Connected Components in MapReduce and Beyond" (2014). The
    rows of one `centre` must be together; returned edges run from the lesser to the greater node.
    """
    by = np.lexsort((member, centre))
    centre, member = centre[by], member[by]
    first = np.ones(len(centre), bool)
    first[1:] = centre[1:] != centre[:-1]
    least = np.minimum(member[first], centre[first])[np.cumsum(first) - 1]
    greater = member > centre
    return _ordered(least[greater], member[greater])


def small_star(centre: np.ndarray, member: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """One round on edges from each node to its lesser neighbours: all of them and the node go to the least."""
    by = np.lexsort((member, centre))
    centre, member = centre[by], member[by]
    first = np.ones(len(centre), bool)
    first[1:] = centre[1:] != centre[:-1]
    least = member[first][np.cumsum(first) - 1]
    return _ordered(np.concatenate([least, least[first]]), np.concatenate([member, centre[first]]))


def _ordered(lesser: np.ndarray, greater: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Distinct edges without loops, in order."""
    real = lesser != greater
    by = np.lexsort((greater[real], lesser[real]))
    lesser, greater = lesser[real][by], greater[real][by]
    fresh = np.ones(len(lesser), bool)
    fresh[1:] = (lesser[1:] != lesser[:-1]) | (greater[1:] != greater[:-1])
    return lesser[fresh], greater[fresh]


@kernel
def _cluster(generation, left, right, edge_order, size, earliest, root, sizes, first_seen):
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
            if a != b:
                if a > b:
                    a, b = b, a
                parent[b] = a
                size[a] += size[b]
                earliest[a] = min(earliest[a], earliest[b])
            edge += 1
        while done < len(generation) and generation[done] == now:
            best = _find(parent, done)
            root[done] = best
            sizes[done] = size[best]
            first_seen[done] = earliest[best]
            done += 1


def clusters(
    generation: np.ndarray, left: np.ndarray, right: np.ndarray, minutes: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(n,) int64 each: for documents numbered in the survivor order, the best member of the cluster, its size, and the
    earliest of `minutes` in it.

    `generation` is non-decreasing (it is the first key of the order). A document's cluster is taken from the
    edges among its own and earlier generations: what an appended crawl brings never changes an earlier
    decision, and the whole computed anew equals the appends one by one.
    """
    n = len(generation)
    left, right = np.asarray(left, np.int64), np.asarray(right, np.int64)
    edge_order = np.argsort(np.maximum(left, right), kind="stable")
    root, sizes, first_seen = (np.zeros(n, np.int64) for _ in range(3))
    earliest = np.array(minutes, np.int64)
    _cluster(
        np.asarray(generation, np.int64), left, right, edge_order,
        np.ones(n, np.int64), earliest, root, sizes, first_seen,
    )  # fmt: skip
    return root, sizes, first_seen
