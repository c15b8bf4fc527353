import uuid

import numpy as np
import pyarrow as pa
import pytest

from jobs.dedup_exchange import PARCELS, ProcessExchange
from jobs.dedup_groups import exchange_groups, find_labels, finish_labels, read_ends
from pipelines.datasets.parts import read_parquet
from pipelines.datasets.store import open_store
from pipelines.dedup.nodes import counted, put_table
from pipelines.dedup.survivors import LINKS


def graph(seed=0):
    """(nodes, left, right, least node of each) of a chain, a star and pairs, named at random, edges both ways round."""
    rng = np.random.default_rng(seed)
    chain, star, pairs = 2000, 500, 300
    left = [np.arange(chain - 1), np.full(star - 1, chain), chain + star + 2 * np.arange(pairs)]
    right = [np.arange(1, chain), chain + np.arange(1, star), chain + star + 2 * np.arange(pairs) + 1]
    root = [np.zeros(chain, int), np.full(star, chain), np.repeat(chain + star + 2 * np.arange(pairs), 2)]
    left, right, root = (np.concatenate(column) for column in (left, right, root))
    nodes = len(root)
    name = 7 * rng.permutation(nodes)
    least = np.full(nodes, 2**40)
    np.minimum.at(least, root, name)
    swap, order = rng.random(len(left)) < 0.5, rng.permutation(len(left))
    ends = np.where(swap, left, right)[order], np.where(swap, right, left)[order]
    return name[ends[0]], name[ends[1]], dict(zip(name.tolist(), least[root].tolist(), strict=True))


def links(left, right):
    columns = {name: np.zeros(len(left), np.int64) for name in LINKS.names}
    columns |= {"centre": left, "member": right, "similarity": np.full(len(left), 0.5)}
    return pa.table(columns, schema=LINKS)


@pytest.mark.parametrize("finish", [0, 2800])
def test_star_rounds_and_the_finish_put_whole_clusters_into_groups(finish):
    left, right, expected = graph()
    store = open_store(f"memory://{uuid.uuid4().hex}")
    both = np.concatenate([left, left]), np.concatenate([right, right])  # each edge twice, so that a round drops some
    edges = [put_table(store, "edges", links(*(ends[k::3] for ends in both))) for k in range(3)]
    steps = []

    def once(name, make):
        steps.append(name)
        return [row for row in make() if row["kind"] != PARCELS]

    def exchange():
        return ProcessExchange(store)

    stars, rounds = find_labels(exchange, once, "w", "test", edges, finish)
    assert rounds == 1 if finish else 3 < rounds < 20
    keys = [table["key"] for table in stars]
    if finish:
        finish_labels(store, keys, "w/labels")
        keys = [table["key"] for table in counted(store, "w/labels")]
    found = {}
    for key in keys:
        least, node = read_ends(store, key)
        found |= dict(zip(node.tolist(), least.tolist(), strict=True))
    assert {node: found.get(node, node) for node in expected} == expected

    groups = exchange_groups(exchange, once, "w", "test", keys, edges, 5)
    tables = [read_parquet(store.get(table["key"])) for table in groups]
    assert sum(table.num_rows for table in tables) == 2 * len(left) and len(tables) > 1
    homes = [{expected[node] for node in table["member"].to_pylist()} for table in tables]
    assert sum(map(len, homes)) == len(set().union(*homes))  # no cluster in two groups
    assert all({expected[n] for n in t["centre"].to_pylist()} == home for t, home in zip(tables, homes, strict=True))


def test_no_more_than_fits_one_task_takes_no_round():
    left, *_ = graph()
    edges = [{"key": "unread", "rows": len(left)}]
    assert find_labels(None, None, "w", "test", edges, len(left)) == (edges, 0)
