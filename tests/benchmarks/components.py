"""Connected components: our union-find beside scipy's, ids included, and whether both are right.

`python -m tests.benchmarks.components [--edges N]` prints a table on stderr and one JSON line on stdout. The graph has
a chain of 100,000 nodes, a star and many small clusters, its edges in random order, in numbers and in 128-bit ids.
`--rounds-edges` of them also go through star rounds alone, each round a pass over all edges, as Spark would do it.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from pipelines.dedup.components import alone, components, id_components, large_star, small_star
from tests.benchmarks.filters import note

ROUNDS = 5
CHAIN = 100_000


def graph(edges: int, seed: int = 0) -> tuple[int, np.ndarray, np.ndarray, np.ndarray]:
    """(nodes, left, right, expected root of each node): a chain, a star, clusters of 2 to 30 nodes."""
    rng = np.random.default_rng(seed)
    chain = min(CHAIN, edges // 4)
    star = edges // 10
    sizes = rng.integers(2, 31, edges)
    sizes = sizes[: np.searchsorted(np.cumsum(sizes), edges - chain - star)]
    lefts, rights, roots = [np.arange(chain)], [np.arange(chain) + 1], [np.zeros(chain + 1, np.int64)]
    at = chain + 1
    lefts.append(np.full(star, at))
    rights.append(at + 1 + np.arange(star))
    roots.append(np.full(star + 1, at))
    at += star + 1
    starts = at + np.cumsum(sizes) - sizes
    owner = np.repeat(np.arange(len(sizes)), sizes)
    place = np.arange(len(owner)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    inner = place > 0  # each node to some earlier one of its cluster
    lefts.append((starts[owner] + (rng.random(len(owner)) * place).astype(np.int64))[inner])
    rights.append((starts[owner] + place)[inner])
    roots.append(starts[owner])
    nodes = at + int(sizes.sum())
    left, right, root = (np.concatenate(c).astype(np.int64) for c in (lefts, rights, roots))
    extra = rng.choice(len(left), max(0, edges - len(left)))  # edges that are seen again
    left, right = np.concatenate([left, left[extra]]), np.concatenate([right, right[extra]])
    by, swap = rng.permutation(len(left)), rng.random(len(left)) < 0.5
    left, right = left[by], right[by]
    return nodes, np.where(swap, right, left), np.where(swap, left, right), root


def shuffled(nodes: int, left: np.ndarray, right: np.ndarray, root: np.ndarray) -> tuple[np.ndarray, ...]:
    """The same graph with its nodes renamed at random, as ids are; the expected root is the least new name."""
    name = np.random.default_rng(1).permutation(nodes)
    least = np.full(nodes, nodes, np.int64)
    np.minimum.at(least, root, name)
    expected = np.empty(nodes, np.int64)
    expected[name] = least[root]
    return name[left], name[right], expected


def seconds(step: Callable[[], Any]) -> float:
    """CPU seconds of this process."""
    begun = time.process_time()
    step()
    return time.process_time() - begun


def by_star_rounds(left: np.ndarray, right: np.ndarray, limit: int = 60) -> tuple[np.ndarray, np.ndarray, int]:
    """(lesser, greater, rounds) once nothing changes: every node hangs at its root."""
    lesser, greater = np.minimum(left, right), np.maximum(left, right)
    for number in range(limit):
        grown = large_star(np.concatenate([lesser, greater]), np.concatenate([greater, lesser]))
        after = small_star(grown[1], grown[0])
        if len(after[0]) == len(lesser) and (after[0] == lesser).all() and (after[1] == greater).all():
            return lesser, greater, number
        lesser, greater = after
    raise RuntimeError("the rounds did not end")


def main() -> None:
    """Ours and scipy in turn, then ids, then star rounds."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--edges", type=int, default=10_000_000)
    parser.add_argument("--rounds-edges", type=int, default=1_000_000)
    options = parser.parse_args()
    nodes, left, right, root = graph(options.edges)
    left, right, root = shuffled(nodes, left, right, root)
    found: dict[str, Any] = {}
    times: dict[str, list[float]] = {"ours": [], "scipy": []}

    def ours() -> None:
        found["ours"] = components(nodes, left, right)

    def scipy() -> None:
        found["scipy"] = connected_components(
            coo_matrix((np.ones(len(left), np.int8), (left, right)), shape=(nodes, nodes)), directed=False
        )[1]

    try:
        from scipy.sparse import coo_matrix
        from scipy.sparse.csgraph import connected_components
    except ImportError as error:
        note(f"scipy is not installed ({error}): its figure is null")
        times.pop("scipy")
    for number in range(ROUNDS + 1):
        for name, step in (("ours", ours), ("scipy", scipy)):
            if name in times:
                spent = seconds(step)
                times[name] += [spent] if number else []  # the first is the warm-up
    right_roots = bool((found["ours"] == root).all())
    if "scipy" in times:
        right_roots &= len(np.unique(found["ours"] * np.int64(nodes) + found["scipy"])) == len(np.unique(root))
    mine = statistics.median(times["ours"])
    vs_scipy = statistics.median(times["scipy"]) / mine if "scipy" in times else None
    note(f"{options.edges:,} edges, {nodes:,} nodes: {options.edges / mine / 1e6:.1f} million edges/s from integers")
    note(f"scipy takes {'null' if vs_scipy is None else f'{vs_scipy:.2f}'} times as long")

    rng = np.random.default_rng(2)
    high, low = (np.sort(rng.integers(0, 2**63, nodes)).astype(np.uint64), rng.integers(0, 2**63, nodes))
    low = low.astype(np.uint64)

    ids = (high[left], low[left]), (high[right], low[right])

    def with_ids() -> None:
        found["ids"] = id_components(*ids)

    with_ids()
    spent = statistics.median(seconds(with_ids) for _ in range(3))
    (node, _), (id_root, _) = found["ids"]
    seen = np.unique(np.concatenate([left, right]))
    by = np.argsort(node)
    right_ids = bool((node[by] == high[seen]).all() and (id_root[by] == high[root[seen]]).all())
    note(f"from 128-bit ids: {options.edges / spent / 1e6:.2f} million edges/s")

    nodes, left, right, root = graph(options.rounds_edges)
    left, right, root = shuffled(nodes, left, right, root)
    begun = time.process_time()
    lesser, greater, rounds = by_star_rounds(left, right)
    after = np.arange(nodes)
    after[greater] = lesser
    right_rounds = bool((after == root).all())
    note(f"{options.rounds_edges:,} edges in {rounds} star rounds, {time.process_time() - begun:.1f} s")
    result = {
        "name": "components",
        "vs_scipy": None if vs_scipy is None else round(vs_scipy, 2),
        "edges_per_s": round(options.edges / mine),
        "ids_edges_per_s": round(options.edges / spent),
        "bytes_per_node": alone(10).itemsize,
        "rounds": rounds,
        "right": int(right_roots and right_ids and right_rounds),
        "spread": {name: [round(min(t), 3), round(max(t), 3)] for name, t in times.items()},
        "versions": {"python": platform.python_version()}
        | {name: importlib.metadata.version(name) for name in ("numba", "numpy", "scipy") if name in sys.modules},
        "load": os.getloadavg()[0],
    }
    sys.stdout.write(json.dumps(result) + "\n")


if __name__ == "__main__":
    main()
