import numpy as np
import pyarrow as pa

from pipelines.dedup.marks import pack
from pipelines.dedup.survivors import (
    ANNOTATIONS,
    CAPTURE_ROUND,
    LINKS,
    Fates,
    annotate,
    better_not_taken,
    cluster_report,
    decide,
    removed_after_round,
    whole_report,
)

STARTS = np.array([4])  # nodes 4 and above are of a second generation


def links(*rows):
    """(centre, member, similarity[, round]); a node's place is its number, but for node 5, which is the best."""
    place = {node: node + 1 for node in range(10)} | {5: 0}
    return pa.Table.from_pylist(
        [
            {"centre": c, "member": m, "centre_place": place[c], "centre_tie": 0, "member_place": place[m],
             "member_tie": 0, "similarity": s, "round": r[0] if r else 1}
            for c, m, s, *r in rows
        ],
        schema=LINKS,
    )  # fmt: skip


def bits(*nodes):
    return np.frombuffer(pack(np.isin(np.arange(16), nodes)), np.uint8)


def decided(every, *, fresh_from=0, copies=(), removed=(), captures=(), starts=STARTS):
    fates = Fates(captures=bits(*captures), copies=bits(*copies), removed=[bits(*removed)] * 3)
    return decide(every, starts, fresh_from, fates)


def told(table):
    return {row["node"]: (row["keep"], row["match"], row["similarity"]) for row in table.to_pylist()}


def test_in_a_chain_of_weak_links_every_other_document_stays():
    chain = links((0, 1, 0.8), (1, 2, 0.7), (2, 3, 0.9))
    assert removed_after_round(chain, STARTS, 0, bits()).tolist() == [1, 3]
    table = decided(chain, removed=(1, 3))
    assert told(table) == {0: (True, None, None), 1: (False, 0, 0.8), 2: (True, None, None), 3: (False, 2, 0.9)}
    assert table["cluster"].to_pylist() == [0] * 4 and table["cluster_size"].to_pylist() == [4] * 4
    assert table["state"].to_pylist() == [0, 14, 0, 14]


def test_the_match_is_the_best_document_that_stays_and_never_one_that_is_removed():
    several = links((0, 1, 0.7), (1, 3, 0.95), (2, 3, 0.75), (0, 3, 0.71))
    gone = removed_after_round(several, STARTS, 0, bits()).tolist()
    assert told(decided(several, removed=gone))[3] == (False, 0, 0.71)


def test_an_exact_copy_matches_its_original_or_what_that_matched():
    table = decided(links((0, 6, 1.0, 0), (2, 7, 1.0, 0), (0, 2, 0.8)), copies=(6, 7), removed=[2])
    assert told(table) == {
        0: (True, None, None), 2: (False, 0, 0.8), 6: (False, 0, 1.0), 7: (False, 0, 0.8),
    }  # fmt: skip
    assert table["state"].to_pylist() == [0, 14, 1, 1]


def test_a_capture_matches_the_one_that_stays_or_what_that_matched_and_heads_no_cluster():
    every = links((0, 2, 0.8), (0, 6, 1.0, 0), *((c, m, np.nan, CAPTURE_ROUND) for c, m in ((0, 1), (2, 3), (6, 5))))
    table = decided(every, removed=[2], copies=[6], captures=(1, 3, 5))
    assert told(table) == {
        0: (True, None, None), 1: (False, 0, None), 2: (False, 0, 0.8), 3: (False, 0, None), 5: (False, 0, None),
        6: (False, 0, 1.0),
    }  # fmt: skip
    assert table["state"].to_pylist() == [0, 16, 14, 16, 16, 1]
    assert table["cluster"].to_pylist() == [0] * 6 and table["cluster_size"].to_pylist() == [4] * 4 + [6] * 2
    alone = decided(links((6, 5, np.nan, CAPTURE_ROUND)), captures=[5])
    assert alone["cluster"].to_pylist() == [6, 6]  # 5 is the better one of this generation, and has left


def test_a_later_crawl_decides_its_own_documents_only():
    near = links((0, 5, 0.8), (1, 5, 0.9), (5, 6, 0.9))
    assert removed_after_round(near, STARTS, 4, bits(0)).tolist() == [5]
    table = decided(near, fresh_from=4, removed=(0, 5))
    assert told(table) == {5: (False, 1, 0.9), 6: (True, None, None)}
    assert better_not_taken(near, table) == 1


def test_the_report_counts_clusters_by_size():
    near = links((0, 1, 0.8), (1, 2, 0.8), (4, 5, 0.9))
    table = decided(near, removed=[1], starts=np.array([]))
    report = cluster_report(table)
    assert report["cluster_sizes"] == {"2": 1, "3-4": 1}
    assert report["biggest_clusters"] == [[0, 3, [1]], [5, 2, []]]
    assert cluster_report(table.slice(0, 0)) == {"cluster_sizes": {}, "biggest_clusters": []}
    groups = [cluster_report(decided(some, removed=[1], starts=np.array([]))) | {"better_not_taken": 1}
              for some in (near.slice(2), near.slice(0, 2))]  # fmt: skip
    assert whole_report(groups) == report | {"better_not_taken": 2}
    assert whole_report(groups, most=1)["biggest_clusters"] == [[0, 3, [1]]]


def test_a_document_without_a_decision_stays_by_itself():
    table = decided(links((0, 2, 0.81234567)), removed=[2])
    for name in ("cluster", "match"):
        ids = [None if n is None else f"id{n}" for n in table[name].to_pylist()]
        table = table.append_column(f"{name}_id", pa.array(ids, pa.string()))
    rows = annotate(pa.table({"id": ["id0", "id1", "id2"], "place": [0, 60, 2]}), table, 0)
    assert rows.schema.equals(ANNOTATIONS)
    assert [tuple(row.values())[:6] for row in rows.to_pylist()] == [
        ("id0", True, "id0", 2, None, None),
        ("id1", True, "id1", 1, None, None),
        ("id2", False, "id0", 2, "id0", 0.8123),
    ]
    assert rows["dedup.first_seen"].to_pylist()[1] == "1990-01-01T01:00:00Z"
