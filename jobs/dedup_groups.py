"""Links beyond what one task holds: cut into groups of whole clusters, which are decided one by one, in parallel.

Clusters are found by alternating star rounds (Kiveris and others, 2014; `pipelines.dedup.components`), each of two
shuffles of 16 bytes an edge and stored, until nothing changes or the edges fit one task, which then ends it. A node is
the number of a document, 8 bytes that follow from the manifests: as good as a hash of its id and half as long. Whatever
found the clusters, a link goes to the group of its cluster's least node.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import numpy as np
import pyarrow as pa

from jobs.dedup_exchange import Exchange, Parcel, Stored, least_targets
from pipelines.datasets.parts import read_parquet
from pipelines.datasets.store import Store
from pipelines.dedup.buckets import EDGES, parcels, unpacked
from pipelines.dedup.components import components, dense_ids, large_star, small_star
from pipelines.dedup.matrices import as_rows, as_table
from pipelines.dedup.nodes import put_chunks, put_counted, put_table
from pipelines.dedup.survivors import DECISIONS, LINKS

STARS = pa.schema([("lesser", pa.int64()), ("greater", pa.int64())])
MOST_ROUNDS = 100  # a chain of a billion takes fewer than forty
_LABEL, _LINK = 0, 1
_ROOTED = pa.schema([("root", pa.int64()), *LINKS])
_NULLABLE = ("match", "similarity")

Once = Callable[[str, Callable[[], Stored]], Stored]  # what a step of this name stored, done once


def find_labels(
    exchange: Callable[[], Exchange], once: Once, prefix: str, name: str, edges: Stored, finish_edges: int
) -> tuple[Stored, int]:
    """(tables of STARS, number of rounds): stars from each cluster's least node where the rounds came to their end.

    They end before that as soon as no more than `finish_edges` are left. `edges`: tables with centre and member.
    """
    keys, left = [table["key"] for table in edges], sum(table["rows"] for table in edges)
    targets = least_targets(32 * left)
    stars: Stored = edges
    for number in range(MOST_ROUNDS):
        if left <= finish_edges:
            return stars, number
        large = once(f"{name}-large-{number}", partial(_large, exchange, prefix, name, keys, targets))
        again = once(
            f"{name}-small-{number}", partial(_small, exchange, prefix, name, [t["key"] for t in large], targets)
        )
        ended = number > 0 and {t["key"] for t in again} == {t["key"] for t in stars}
        stars, left = again, sum(table["rows"] for table in again)
        keys = [table["key"] for table in stars]
        if ended:
            return stars, number + 1
    raise RuntimeError("star rounds did not end")


def _large(exchange: Callable[[], Exchange], prefix: str, name: str, keys: list[str], targets: int) -> Stored:
    return exchange().run(keys, _make_large, partial(_take_stars, prefix, f"{name}-large"), targets)


def _small(exchange: Callable[[], Exchange], prefix: str, name: str, keys: list[str], targets: int) -> Stored:
    return exchange().run(keys, _make_small, partial(_take_stars, prefix, f"{name}-small"), targets)


def read_ends(store: Store, key: str) -> tuple[np.ndarray, np.ndarray]:
    """Both ends of the edges of a table of STARS, or of one with centre and member."""
    table = read_parquet(store.get(key))
    names = STARS.names if "lesser" in table.schema.names else EDGES.names[:2]
    left, right = (table[name].to_numpy() for name in names)
    return left, right


def _make_large(store: Store, key: str, targets: int) -> Iterator[Parcel]:
    left, right = read_ends(store, key)
    both = np.concatenate([np.column_stack([left, right]), np.column_stack([right, left])])
    yield from parcels(both, targets)


def _make_small(store: Store, key: str, targets: int) -> Iterator[Parcel]:
    lesser, greater = read_ends(store, key)
    yield from parcels(np.column_stack([greater, lesser]), targets)


def _take_stars(prefix: str, kind: str, store: Store, target: int, blobs: list[bytes]) -> Stored:
    rows = unpacked(blobs, 2)
    star = large_star if kind.endswith("large") else small_star
    lesser, greater = star(np.ascontiguousarray(rows[:, 0]), np.ascontiguousarray(rows[:, 1]))
    if len(lesser) == 0:
        return []
    table = pa.table([lesser, greater], schema=STARS)
    return [{"kind": kind, "target": target, **put_table(store, f"{prefix}/tables/{kind}", table)}]


def finish_labels(store: Store, keys: list[str], put: str) -> None:
    """STARS from the least node of each cluster, below the prefix `put`, from any edges, in this one task."""
    ends = [read_ends(store, key) for key in keys]
    left, right = (np.concatenate([np.zeros(0, np.int64), *(pair[i] for pair in ends)]) for i in (0, 1))
    del ends
    both = np.concatenate([left, right]).view(np.uint64)
    named, numbers = dense_ids(both, np.zeros(len(both), np.uint64))
    node = named[:, 0].view(np.int64)
    root = components(len(node), numbers[: len(left)], numbers[len(left) :])
    least = np.full(len(node), np.iinfo(np.int64).max)
    np.minimum.at(least, root, node)
    least = least[root]
    inner = least != node
    order = np.argsort(node[inner])
    table = pa.table([least[inner][order], node[inner][order]], schema=STARS)
    for start in range(0, table.num_rows, 1_000_000):
        put_counted(store, put, table.slice(start, 1_000_000))


def exchange_groups(
    exchange: Callable[[], Exchange], once: Once, prefix: str, name: str, labels: list[str], links: Stored, groups: int
) -> Stored:
    """LINKS in `groups` tables at most, each of whole clusters; `labels`: tables of STARS."""
    targets = least_targets(80 * sum(table["rows"] for table in links))
    inputs = [(_LABEL, key) for key in labels] + [(_LINK, table["key"]) for table in links]
    rooted = once(
        f"{name}-rooted",
        lambda: exchange().run(inputs, _make_rooted, partial(_take_rooted, prefix, f"{name}-rooted"), targets),
    )
    keys = [table["key"] for table in rooted]
    take = partial(_take_group, prefix, f"{name}-group")
    return once(f"{name}-groups", lambda: exchange().run(keys, _make_groups, take, groups))


def _make_rooted(store: Store, one: tuple[int, str], targets: int) -> Iterator[Parcel]:
    kind, key = one
    table = read_parquet(store.get(key))
    rows = as_rows(table)
    rows = rows[:, [1, 0]] if kind == _LABEL else rows[:, [1, 0, *range(2, rows.shape[1])]]  # node or member first
    for target, body in parcels(rows, targets):
        yield target, bytes([kind]) + body


def _take_rooted(prefix: str, kind: str, store: Store, target: int, blobs: list[bytes]) -> Stored:
    labels = unpacked([blob[1:] for blob in blobs if blob[0] == _LABEL], 2)
    links = unpacked([blob[1:] for blob in blobs if blob[0] == _LINK], len(LINKS))
    if len(links) == 0:
        return []
    labels = labels[np.argsort(labels[:, 0])]
    at = np.searchsorted(labels[:, 0], links[:, 0])
    known = at < len(labels)
    known[known] = labels[at[known], 0] == links[known, 0]
    root = links[:, 0].copy()  # without a label it is the least itself
    root[known] = labels[at[known], 1]
    table = as_table(np.column_stack([root, links[:, 1], links[:, 0], links[:, 2:]]), _ROOTED)
    return [{"kind": kind, "target": target, **put_table(store, f"{prefix}/tables/{kind}", table)}]


def _make_groups(store: Store, key: str, targets: int) -> Iterator[Parcel]:
    yield from parcels(as_rows(read_parquet(store.get(key))), targets)


def _take_group(prefix: str, kind: str, store: Store, target: int, blobs: list[bytes]) -> Stored:
    rows = unpacked(blobs, len(_ROOTED))
    rows = rows[np.lexsort((rows[:, 1], rows[:, 2]))]
    table = as_table(rows[:, 1:], LINKS)
    return [{"kind": kind, "target": target, **put_table(store, f"{prefix}/tables/{kind}", table)}]


def exchange_by_node(
    exchange: Callable[[], Exchange], once: Once, prefix: str, name: str, keys: list[str], column: str, nodes: int
) -> Stored:
    """Tables of DECISIONS or LINKS cut anew, by ranges of the nodes of a column; of LINKS as chunks below `placed`."""
    span = 1 << 20
    targets = 1 + nodes // span
    make, take = partial(_make_by_node, column, span), partial(_take_by_node, prefix, name, column)
    return once(f"{name}-by-node", lambda: exchange().run(keys, make, take, targets))


def _make_by_node(column: str, span: int, store: Store, key: str, _targets: int) -> Iterator[Parcel]:
    table = read_parquet(store.get(key))
    rows = as_rows(table)
    home = table[column].to_numpy() // span
    for target in np.unique(home).tolist():
        yield target, rows[home == target].tobytes()


def _take_by_node(prefix: str, name: str, column: str, store: Store, target: int, blobs: list[bytes]) -> Stored:
    schema = DECISIONS if name == "decided" else LINKS
    rows = unpacked(blobs, len(schema))
    rows = rows[np.lexsort((rows[:, 0], rows[:, schema.get_field_index(column)]))]
    table = as_table(rows, schema, _NULLABLE)
    if name != "decided":
        put_chunks(store, f"{prefix}/{name}", column, table)
        return []
    return [{"kind": name, "target": target, **put_table(store, f"{prefix}/tables/{name}", table)}]
