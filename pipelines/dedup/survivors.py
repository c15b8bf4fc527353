"""Which copy stays, what each of the others matched, and to which cluster it belongs.

A capture that left for another one of its URL hangs in the cluster of that one, behind all others of its generation;
its match is the one that stays, or what that matched, and no similarity is told, since none was measured.

A removed document always has an exactly verified edge to one that stays: `match` is the best such one. An exact copy
has the normal form of its original, so it shares all of the original's similarities: it matches the original where that
stays, and else what the original matched. A cluster is a component over verified edges and exact copies.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from pipelines.datasets.parts import sorted_rows
from pipelines.dedup.buckets import EDGES
from pipelines.dedup.components import clusters
from pipelines.dedup.marks import are_marked
from pipelines.dedup.order import minute_texts, minutes_of
from pipelines.dedup.rounds import remove
from pipelines.dedup.urls import CAPTURE

LINKS = EDGES.append(pa.field("similarity", pa.float64())).append(pa.field("round", pa.int64()))
DECISIONS = pa.schema(
    [
        ("node", pa.int64()),
        ("keep", pa.bool_()),
        ("cluster", pa.int64()),
        ("cluster_size", pa.int64()),
        ("match", pa.int64()),
        ("similarity", pa.float64()),
        ("minutes", pa.int64()),
        ("state", pa.int64()),
    ]
)

ANNOTATIONS = pa.schema(
    [
        pa.field("id", pa.string(), metadata={"doc": "document id, as a check of the alignment"}),
        pa.field("dedup.keep", pa.bool_(), metadata={"doc": "whether it is a copy that stays"}),
        pa.field("dedup.cluster", pa.string(), metadata={"doc": "id of the best document of its cluster"}),
        pa.field("dedup.cluster_size", pa.int64(), metadata={"doc": "documents in it when this one was decided"}),
        pa.field("dedup.match", pa.string(), metadata={"doc": "id of the best copy that stays and that it was like"}),
        pa.field("dedup.similarity", pa.float64(), metadata={"doc": "exact similarity to it, on 1e-4; null: capture"}),
        pa.field("dedup.first_seen", pa.string(), metadata={"doc": "earliest capture in its cluster, to the minute"}),
        pa.field(
            "dedup.state",
            pa.int64(),
            metadata={"doc": "bit 0: exact copy; 1 to 3: removed after that round; 4: capture of a URL"},
        ),
    ]
)
CAPTURE_ROUND = -1  # in LINKS, as 0 is for exact copies
BIGGEST, SAMPLES = 20, 2  # clusters that the report names, and documents that left each of them
_NONE = -1


class Ranked:
    """The documents that occur in some links, numbered in the survivor order: 0 is the best."""

    def __init__(self, links: pa.Table, generation_starts: np.ndarray, last: np.ndarray | None = None) -> None:
        """`links` has the columns of EDGES; `last`: bits of those that come behind all others of their generation."""
        columns = {name: links[name].to_numpy() for name in EDGES.names}
        ends = np.concatenate([columns["centre"], columns["member"]])
        nodes, first, inverse = np.unique(ends, return_index=True, return_inverse=True)
        place = np.concatenate([columns["centre_place"], columns["member_place"]])[first]
        tie = np.concatenate([columns["centre_tie"], columns["member_tie"]])[first]
        generation = np.searchsorted(generation_starts, nodes, side="right")
        behind = np.zeros(len(nodes), bool) if last is None else are_marked(last, nodes)
        order = np.lexsort((nodes, tie, place, behind, generation))
        rank = np.empty(len(order), np.int64)
        rank[order] = np.arange(len(order))
        self.node = nodes[order]
        self.place, self.tie, self.generation = place[order], tie[order], generation[order]
        self.better, self.worse = rank[inverse[: links.num_rows]], rank[inverse[links.num_rows :]]


def removed_after_round(
    links: pa.Table, generation_starts: np.ndarray, fresh_from: int, earlier: np.ndarray
) -> np.ndarray:
    """Sorted nodes from `fresh_from` on that the verified links so far remove; `earlier`: bits of the decided ones."""
    ranked = Ranked(links, generation_starts)
    decided = ranked.node < fresh_from
    known = np.zeros(len(decided), bool)
    known[decided] = are_marked(earlier, ranked.node[decided])
    gone = remove(ranked.better, ranked.worse, decided, known)
    return np.sort(ranked.node[gone & ~decided])


@dataclass(frozen=True, slots=True, kw_only=True)
class Fates:
    """Bits of all documents: captures of a URL that left, exact copies, and who is removed after each round."""

    captures: np.ndarray
    copies: np.ndarray
    removed: list[np.ndarray]


def decide(every: pa.Table, generation_starts: np.ndarray, fresh_from: int, fates: Fates) -> pa.Table:
    """DECISIONS for every document from `fresh_from` on that has a link, sorted by node.

    `every` (LINKS) holds those of all generations: of captures, exact copies, near copies.
    """
    kind = every["round"].to_numpy()
    ranked = Ranked(every, generation_starts, fates.captures)
    node = ranked.node
    is_capture = are_marked(fates.captures, node)
    is_copy = are_marked(fates.copies, node)
    gone = are_marked(fates.removed[-1], node) & ~is_copy & ~is_capture
    state = is_copy.astype(np.int64) | np.where(is_capture, CAPTURE, 0)
    for number, bits in enumerate(fates.removed, 1):
        state |= (are_marked(bits, node) & ~is_copy & ~is_capture).astype(np.int64) << number
    keep = ~is_copy & ~gone & ~is_capture
    root, size, minutes = clusters(ranked.generation, ranked.better, ranked.worse, minutes_of(ranked.place))

    match = np.full(len(node), _NONE)
    score = np.zeros(len(node))
    better, worse = ranked.better, ranked.worse
    use = np.flatnonzero(keep[better] & gone[worse] & (kind > 0))
    use = use[np.lexsort((better[use], worse[use]))]
    first = np.ones(len(use), bool)
    first[1:] = worse[use][1:] != worse[use][:-1]
    use = use[first]
    match[worse[use]], score[worse[use]] = better[use], every["similarity"].to_numpy()[use]
    for of_kind, alike in ((0, 1.0), (CAPTURE_ROUND, np.nan)):  # a capture's keeper may be an exact copy
        source, copy = better[kind == of_kind], worse[kind == of_kind]
        match[copy] = np.where(keep[source], source, match[source])
        score[copy] = np.where(keep[source], alike, score[source])
    score[is_capture] = np.nan

    found = match >= 0
    fresh = node >= fresh_from
    table = pa.table(
        {
            "node": node[fresh],
            "keep": keep[fresh],
            "cluster": node[root][fresh],
            "cluster_size": size[fresh],
            "match": pa.array(node[np.where(found, match, 0)][fresh], mask=~found[fresh]),
            "similarity": pa.array(np.round(score, 4)[fresh], mask=(~found | np.isnan(score))[fresh]),
            "minutes": minutes[fresh],
            "state": state[fresh],
        },
        schema=DECISIONS,
    )
    return sorted_rows(table, [("node", "ascending")])


def better_not_taken(every: pa.Table, decisions: pa.Table) -> int:
    """Removed copies that would stay before their match, were it not for the generation; captures do not count."""
    place = np.concatenate([every["centre_place"].to_numpy(), every["member_place"].to_numpy()])
    nodes = np.concatenate([every["centre"].to_numpy(), every["member"].to_numpy()])
    nodes, first = np.unique(nodes, return_index=True)
    place = place[first]
    gone = decisions.filter(decisions["similarity"].is_valid())
    mine = place[np.searchsorted(nodes, gone["node"].to_numpy())]
    return int((mine < place[np.searchsorted(nodes, gone["match"].to_numpy())]).sum())


def cluster_report(decisions: pa.Table, most: int = BIGGEST) -> dict[str, Any]:
    """Clusters by size, in doubling steps, and the biggest, of those with a document that was decided now.

    The biggest: [best node, size, some nodes that left].
    """
    cluster, number = np.unique(decisions["cluster"].to_numpy(), return_inverse=True)
    last = np.zeros(len(cluster), np.int64)  # the size grows with the generation: the greatest is the latest
    np.maximum.at(last, number, decisions["cluster_size"].to_numpy())
    steps = np.ceil(np.log2(np.maximum(last, 2))).astype(int)
    sizes = {
        "2" if step == 1 else f"{2 ** (step - 1) + 1}-{2**step}": int(count)
        for step, count in zip(*(values.tolist() for values in np.unique(steps, return_counts=True)), strict=True)
    }
    order = np.lexsort((cluster, -last))[:most]
    node, left = decisions["node"].to_numpy(), ~decisions["keep"].to_numpy(zero_copy_only=False)
    biggest = [
        [int(cluster[i]), int(last[i]), node[np.flatnonzero(left & (number == i))[:SAMPLES]].tolist()]
        for i in order.tolist()
    ]
    return {"cluster_sizes": sizes, "biggest_clusters": biggest}


def whole_report(reports: Sequence[dict[str, Any]], most: int = BIGGEST) -> dict[str, Any]:
    """The report of all clusters, of those (with `better_not_taken`) of groups of them."""
    sizes: Counter[str] = Counter()
    for report in reports:
        sizes.update(report["cluster_sizes"])
    biggest = sorted((row for r in reports for row in r["biggest_clusters"]), key=lambda row: (-row[1], row[0]))
    return {
        "cluster_sizes": dict(sorted(sizes.items(), key=lambda item: int(item[0].rpartition("-")[2]))),
        "biggest_clusters": biggest[:most],
        "better_not_taken": sum(report["better_not_taken"] for report in reports),
    }


def annotate(signatures: pa.Table, named: pa.Table, first_node: int) -> pa.Table:
    """ANNOTATIONS of a part that starts at `first_node`; a document without a decision stays, by itself.

    `signatures` has id and place; `named` is DECISIONS with `cluster_id` and `match_id`.
    """
    count = signatures.num_rows
    at = named["node"].to_numpy() - first_node
    source = np.arange(count)
    source[at] = count + np.arange(len(at))

    def column(name: str, otherwise: pa.Array) -> pa.Array:
        decided = named[name].cast(otherwise.type).chunks
        return pa.concat_arrays([otherwise, *decided]).take(pa.array(source))

    ids = pa.concat_arrays([pa.array([], pa.string()), *signatures["id"].chunks])
    minutes = column("minutes", pa.array(minutes_of(signatures["place"].to_numpy())))
    columns = [
        ids,
        column("keep", pa.array(np.ones(count, bool))),
        column("cluster_id", ids),
        column("cluster_size", pa.array(np.ones(count, np.int64))),
        column("match_id", pa.nulls(count, pa.string())),
        column("similarity", pa.nulls(count, pa.float64())),
        minute_texts(minutes.to_numpy()),
        column("state", pa.array(np.zeros(count, np.int64))),
    ]
    return pa.table(columns, schema=ANNOTATIONS)
