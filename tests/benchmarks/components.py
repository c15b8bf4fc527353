"""Connected components: our union-find beside scipy's, ids included, and whether both are right.

`python -m tests.benchmarks.components [--edges N] [--only single|hybrid|spark]` prints a table on stderr and one JSON
line on stdout. The graph has a chain of 100,000 nodes, a star and many small clusters, its edges in random order, in
numbers and in 128-bit ids. `right` is 1 where every node got its cluster's least one: N edges in the single-task
finish, N in the hybrid (star rounds until what is left fits a bound, then the finish), and `--rounds-edges` in star
rounds on Spark with the finish switched off. `--only` runs one of the three.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import platform
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from jobs.dedup_exchange import PARCELS, ProcessExchange, SparkExchange
from jobs.dedup_groups import find_labels, finish_labels, read_ends
from pipelines.dedup.components import alone, components, id_components
from pipelines.dedup.nodes import put_table
from tests.benchmarks.dedup import context
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


def through_groups(engine: str, nodes: int, edges: tuple[np.ndarray, np.ndarray], finish: int) -> dict[str, Any]:
    """The job's own way to the clusters: {"root": (nodes,), "rounds", "cpu" of this process and all it started}."""
    left, right = edges
    with tempfile.TemporaryDirectory() as folder:
        ctx = context(Path(folder), engine)
        stored = []
        for start in range(0, len(left), 500_000):
            some = slice(start, start + 500_000)
            table = pa.table({"centre": left[some], "member": right[some]})
            stored.append(put_table(ctx.store, "edges", table))
        before = spent()
        exchange = SparkExchange(ctx.spark(), ctx.store) if engine == "spark" else ProcessExchange(ctx.store)

        def once(_name: str, make: Callable[[], Any]) -> Any:
            return [row for row in make() if row["kind"] != PARCELS]

        stars, rounds = find_labels(lambda: exchange, once, "work", "benchmark", stored, finish)
        keys = [table["key"] for table in stars]
        if finish:
            finish_labels(ctx.store, keys, "work/labels")
            keys = [stored.key for stored in ctx.store.list("work/labels/")]
        root = np.arange(nodes)
        for key in keys:
            least, node = read_ends(ctx.store, key)
            root[node] = least
        ctx.close()
        return {"root": root, "rounds": rounds, "cpu": spent() - before}


def spent() -> float:
    """CPU seconds of this process and its children that have ended."""
    both = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(used.ru_utime + used.ru_stime for used in both)


def single(edges: int) -> dict[str, Any]:
    """Ours and scipy in turn from integers, then ours from ids."""
    nodes, left, right, root = graph(edges)
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
    note(f"{edges:,} edges, {nodes:,} nodes: {edges / mine / 1e6:.1f} million edges/s from integers")
    note(f"scipy takes {'null' if vs_scipy is None else f'{vs_scipy:.2f}'} times as long")

    rng = np.random.default_rng(2)
    high, low = (np.sort(rng.integers(0, 2**63, nodes)).astype(np.uint64), rng.integers(0, 2**63, nodes))
    low = low.astype(np.uint64)

    ids = (high[left], low[left]), (high[right], low[right])

    def with_ids() -> None:
        found["ids"] = id_components(*ids)

    with_ids()
    spent_on_ids = statistics.median(seconds(with_ids) for _ in range(3))
    (node, _), (id_root, _) = found["ids"]
    seen = np.unique(np.concatenate([left, right]))
    by = np.argsort(node)
    right_ids = bool((node[by] == high[seen]).all() and (id_root[by] == high[root[seen]]).all())
    note(f"from 128-bit ids: {edges / spent_on_ids / 1e6:.2f} million edges/s")
    return {
        "vs_scipy": None if vs_scipy is None else round(vs_scipy, 2),
        "edges_per_s": round(edges / mine),
        "ids_edges_per_s": round(edges / spent_on_ids),
        "bytes_per_node": alone(10).itemsize,
        "right": int(right_roots and right_ids),
        "spread": {name: [round(min(t), 3), round(max(t), 3)] for name, t in times.items()},
    }


def grouped(name: str, engine: str, edges: int) -> dict[str, Any]:
    """Star rounds alone, or with the finish: there half of the edges are seen again, so that rounds can drop some."""
    nodes, left, right, root = graph(edges // 2 if name == "hybrid" else edges)
    if name == "hybrid":
        left, right = np.concatenate([left, left[::-1]]), np.concatenate([right, right[::-1]])
    left, right, root = shuffled(nodes, left, right, root)
    begun = time.perf_counter()
    made = through_groups(engine, nodes, (left, right), edges * 3 // 4 if name == "hybrid" else 0)
    wall = time.perf_counter() - begun
    note(f"{name}: {edges:,} edges, {made['rounds']} rounds on {engine}, {made['cpu']:.1f} s CPU, {wall:.1f} s")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000
    return {
        f"{name}_right": int((made["root"] == root).all()),
        f"{name}_rounds": made["rounds"],
        f"{name}_wall_s": round(wall, 1),
        f"{name}_peak_mb": round(peak),
    }


def main() -> None:
    """The single-task finish, the hybrid, the rounds alone."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--edges", type=int, default=10_000_000)
    parser.add_argument("--rounds-edges", type=int, default=1_000_000)
    parser.add_argument("--only", choices=("single", "hybrid", "spark"))
    parser.add_argument("--engine", default="spark", help="of the rounds without a finish")
    options = parser.parse_args()
    result: dict[str, Any] = {"name": "components"}
    if options.only in (None, "single"):
        result |= single(options.edges)
    if options.only in (None, "hybrid"):
        result |= grouped("hybrid", "process", options.edges)
    if options.only in (None, "spark"):
        result |= grouped("rounds", options.engine, options.rounds_edges)
    result["right"] = int(all(value for key, value in result.items() if key == "right" or key.endswith("_right")))
    result |= {
        "versions": {"python": platform.python_version()}
        | {name: importlib.metadata.version(name) for name in ("numba", "numpy", "scipy") if name in sys.modules},
        "load": os.getloadavg()[0],
    }
    sys.stdout.write(json.dumps(result) + "\n")


if __name__ == "__main__":
    main()
