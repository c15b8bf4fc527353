"""Which copy stays, and what each of the others matched.

The survivor order is total: generation (the version that brought the document), then the longer extraction,
then the earlier capture, then (id, file, offset). So the choice depends neither on partitions nor on arrival,
and an appended crawl never changes what was decided before it.
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipelines.datasets.parts import sorted_rows
from pipelines.dedup.components import clusters

DECISIONS = pa.schema(
    [
        ("node", pa.int64()),
        ("keep", pa.bool_()),
        ("cluster", pa.string()),
        ("match", pa.string()),
        ("similarity", pa.float64()),
    ]
)

ANNOTATIONS = pa.schema(
    [
        pa.field("id", pa.string(), metadata={"doc": "document id, as a check of the alignment"}),
        pa.field("dedup.keep", pa.bool_(), metadata={"doc": "whether it is the copy that stays"}),
        pa.field("dedup.cluster", pa.string(), metadata={"doc": "id of the copy that stays; its own if alone"}),
        pa.field("dedup.match", pa.string(), metadata={"doc": "id of the best copy that it was compared with"}),
        pa.field("dedup.similarity", pa.float64(), metadata={"doc": "Jaccard similarity to that, on 1e-4"}),
    ]
)


def survivor_rank(candidates: pa.Table) -> np.ndarray:
    """(n,) int64 rank of each row, 0 the best.  Columns: generation, characters, date, id, file, offset."""
    table = candidates.append_column("length", pc.negate(candidates["characters"]))
    order = pc.sort_indices(
        table,
        sort_keys=[(name, "ascending") for name in ("generation", "length", "date", "id", "file", "offset")],
    ).to_numpy()
    rank = np.empty(len(order), np.int64)
    rank[order] = np.arange(len(order))
    return rank


def decide(candidates: pa.Table, left: np.ndarray, right: np.ndarray, similarity: np.ndarray) -> pa.Table:
    """DECISIONS for every candidate, sorted by node.

    `candidates` has node (unique) and the columns of `survivor_rank`; the edges name nodes and are verified.
    `match` and `similarity` are those of the best-placed neighbour by a verified edge, so a removed document
    always names a document that it was compared with; both are null for a document that stays.
    """
    node = candidates["node"].to_numpy()
    rank = survivor_rank(candidates)
    by_rank = np.argsort(rank)
    by_node = np.argsort(node)
    a = rank[by_node[np.searchsorted(node, left, sorter=by_node)]]
    b = rank[by_node[np.searchsorted(node, right, sorter=by_node)]]
    generation = candidates["generation"].to_numpy()[by_rank]
    root = clusters(generation, a, b)

    ends, others = np.concatenate([a, b]), np.concatenate([b, a])
    scores = np.concatenate([similarity, similarity])
    known = generation[others] <= generation[ends]
    ends, others, scores = ends[known], others[known], scores[known]
    order = np.lexsort((-scores, others, ends))
    ends, others, scores = ends[order], others[order], scores[order]
    first = np.ones(len(ends), bool)
    first[1:] = ends[1:] != ends[:-1]
    neighbour = np.zeros(len(rank), np.int64)
    score = np.zeros(len(rank), np.float64)
    neighbour[ends[first]], score[ends[first]] = others[first], scores[first]

    keep = root == np.arange(len(root))
    ids = candidates["id"].combine_chunks().take(pa.array(by_rank))
    table = pa.table(
        {
            "node": node[by_rank],
            "keep": keep,
            "cluster": ids.take(pa.array(root)),
            "match": pc.if_else(pa.array(keep), pa.scalar(None, pa.string()), ids.take(pa.array(neighbour))),
            "similarity": pa.array(np.round(score, 4), mask=keep),
        },
        schema=DECISIONS,
    )
    return sorted_rows(table, [("node", "ascending")])


def annotate(ids: pa.ChunkedArray, decisions: pa.Table, first_node: int) -> pa.Table:
    """ANNOTATIONS of a part that starts at `first_node`; a document without a decision stays, by itself."""
    count = len(ids)
    alone = pa.table(
        {
            "node": np.arange(first_node, first_node + count),
            "keep": pa.array(np.ones(count, bool)),
            "cluster": ids,
            "match": pa.nulls(count, pa.string()),
            "similarity": pa.nulls(count, pa.float64()),
        },
        schema=DECISIONS,
    )
    source = np.arange(count)
    source[decisions["node"].to_numpy() - first_node] = count + np.arange(decisions.num_rows)
    table = pa.concat_tables([alone, decisions]).take(pa.array(source))
    columns = [ids, *(table[name] for name in ("keep", "cluster", "match", "similarity"))]
    return pa.table([column.combine_chunks() for column in columns], schema=ANNOTATIONS)
