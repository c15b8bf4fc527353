import numpy as np
import pyarrow as pa

from pipelines.dedup.survivors import decide, survivor_rank


def candidates(*rows):
    names = ("node", "generation", "characters", "date", "id", "file", "offset")
    return pa.table({name: [row[i] for row in rows] for i, name in enumerate(names)})


ROWS = (
    (10, 1, 100, "2026-01-02", "c", "f", 0),
    (11, 1, 200, "2026-01-03", "b", "f", 0),
    (12, 1, 200, "2026-01-02", "z", "f", 0),
    (13, 2, 900, "2026-01-01", "a", "f", 0),
    (14, 2, 900, "2026-01-01", "a", "f", 7),
    (15, 2, 900, None, "a", "e", 7),
)


def test_generation_then_length_then_date_then_place_decide():
    assert survivor_rank(candidates(*ROWS)).tolist() == [2, 1, 0, 3, 4, 5]


def test_the_best_copy_stays_and_the_others_name_what_they_matched():
    table = decide(candidates(*ROWS), np.array([12, 12]), np.array([10, 11]), np.array([0.91234, 0.8]))
    kept = dict(zip(table["node"].to_pylist(), table["keep"].to_pylist(), strict=True))
    assert kept == {10: False, 11: False, 12: True, 13: True, 14: True, 15: True}
    first = table.slice(0, 1).to_pylist()[0]
    assert first == {"node": 10, "keep": False, "cluster": "z", "match": "z", "similarity": 0.9123}
    assert table["match"].to_pylist()[2] is None and table["similarity"].to_pylist()[2] is None


def test_in_a_chain_the_match_is_the_best_placed_neighbour_by_a_verified_edge():
    table = decide(candidates(*ROWS), np.array([12, 11]), np.array([11, 10]), np.array([0.8, 0.7]))
    assert table["cluster"].to_pylist()[:3] == ["z", "z", "z"]
    assert table["match"].to_pylist()[:3] == ["b", "z", None]


def test_a_document_of_a_new_crawl_never_changes_what_was_kept():
    early = decide(candidates(*ROWS[:3]), np.array([], np.int64), np.array([], np.int64), np.array([]))
    late = decide(candidates(*ROWS), np.array([10, 11, 12]), np.array([13, 13, 13]), np.array([0.9, 0.8, 0.7]))
    assert late.slice(0, 3).equals(early)
    assert late.slice(3, 1).to_pylist()[0] == {
        "node": 13, "keep": False, "cluster": "z", "match": "z", "similarity": 0.7,
    }  # fmt: skip


def test_the_order_of_rows_and_edges_does_not_matter():
    edges = np.array([10, 11, 13]), np.array([12, 10, 14]), np.array([0.9, 0.8, 1.0])
    whole = decide(candidates(*ROWS), *edges)
    assert decide(candidates(*ROWS[::-1]), *(column[::-1] for column in edges)).equals(whole)


def test_no_candidates_give_no_decisions():
    none = np.array([], np.int64)
    empty = candidates(*ROWS).slice(0, 0)
    assert decide(empty, none, none, none.astype(float)).num_rows == 0
