import numpy as np
import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.dedup.buckets import BUCKETS
from pipelines.dedup.marks import are_marked, pack
from pipelines.dedup.rounds import UNLIKE, distinct_edges, recalled, remove, round_edges, uncompared
from pipelines.dedup.survivors import LINKS

EDGES = st.lists(st.tuples(st.integers(0, 14), st.integers(0, 14)).filter(lambda e: e[0] < e[1]), max_size=40)
SOME = st.sets(st.integers(0, 9))


def buckets(*listed):
    rows = [{"start": i == 0, "node": node, "place": node, "tie": 0} for one in listed for i, node in enumerate(one)]
    return pa.Table.from_pylist(rows, schema=BUCKETS)


def bits(nodes, count=16):
    marked = np.zeros(count, bool)
    marked[list(nodes)] = True
    return np.frombuffer(pack(marked), np.uint8)


def pairs(edges):
    return list(zip(edges["centre"].to_pylist(), edges["member"].to_pylist(), strict=True))


def test_the_first_round_compares_the_best_of_each_bucket_with_the_others():
    table = buckets([3, 1, 2], [0, 5])
    assert pairs(round_edges(table, [], 0)) == [(3, 1), (3, 2), (0, 5)]
    assert pairs(round_edges(table, [], 3)) == [(0, 5)]
    assert round_edges(table, [], 0)["member_place"].to_pylist() == [1, 2, 5]
    assert round_edges(buckets(), [bits([])], 0).num_rows == 0


def test_a_later_round_goes_on_without_the_removed_and_the_centres_that_were():
    table = buckets([0, 1, 2, 3, 4], [5, 6], [7, 8, 9])
    assert pairs(round_edges(table, [bits([1, 7, 8])], 0)) == [(2, 3), (2, 4)]
    assert pairs(round_edges(table, [bits([1]), bits([7])], 0)) == [(1, 3), (1, 4)]
    assert uncompared(table, [bits([1]), bits([7])], 0).tolist() == [3, 4]


@settings(deadline=None)
@given(st.permutations(range(10)), SOME, SOME, st.integers(0, 10))
def test_rounds_are_those_of_the_definition(order, first, second, fresh_from):
    cut = 6
    listed = [order[:cut], order[cut:]]
    found = pairs(round_edges(buckets(*listed), [bits(first), bits(second)], fresh_from))
    expected = []
    for bucket in listed:
        spent = {bucket[0]}
        alive = []
        for removed in (first, second):
            alive = [node for node in bucket if node not in removed and node not in spent]
            spent |= set(alive[:1])
        expected += [(alive[0], node) for node in alive[1:] if node >= fresh_from]
    assert found == expected


@settings(deadline=None)
@given(EDGES, st.dictionaries(st.integers(0, 14), st.booleans()))
def test_who_is_removed_has_an_edge_to_one_that_stays_and_nobody_else_is(edges, decided):
    better, worse = (np.array([edge[i] for edge in edges], np.int64) for i in (0, 1))
    known = np.isin(np.arange(15), list(decided))
    gone = remove(better, worse, known, np.array([decided.get(i, False) for i in range(15)]))
    for i in range(15):
        if i in decided:
            assert gone[i] == decided[i]
        else:
            assert gone[i] == any(w == i and not gone[b] for b, w in edges)


@settings(deadline=None)
@given(EDGES, EDGES)
def test_edges_come_once_and_never_again(edges, earlier):
    rows = np.array([[*edge, 0, 0, 0, 0] for edge in edges], np.int64).reshape(-1, 6)
    known = np.array(earlier, np.int64).reshape(-1, 2)
    found = distinct_edges(rows, known)
    assert [tuple(row[:2]) for row in found.tolist()] == sorted(set(edges) - set(earlier))


@settings(deadline=None)
@given(st.sets(st.integers(0, 40)))
def test_marks_are_read_by_node(nodes):
    packed = bits(nodes, 41)
    assert are_marked(packed, np.arange(41)).tolist() == [i in nodes for i in range(41)]


@settings(deadline=None)
@given(EDGES, EDGES, st.randoms(use_true_random=False))
def test_what_was_compared_before_is_recalled_and_the_rest_is_left(edges, before, rng):
    edges, before = sorted(set(edges)), list(set(before))
    rng.shuffle(before)
    rows = np.array([[c, m, c, 0, m, 0] for c, m in edges], np.int64).reshape(-1, 6)
    stored = [
        {"centre": c, "member": m, "centre_place": c, "centre_tie": 0, "member_place": m, "member_tie": 0,
         "similarity": (c + m) / 100, "round": 3 + UNLIKE * (m % 2)}
        for c, m in before
    ]  # fmt: skip
    left, links = recalled(rows, pa.Table.from_pylist(stored, schema=LINKS), 2)
    assert [tuple(row) for row in left[:, :2].tolist()] == [edge for edge in edges if edge not in before]
    found = {(link["centre"], link["member"]): (link["similarity"], link["round"]) for link in links.to_pylist()}
    assert found == {(c, m): ((c + m) / 100, 2 + UNLIKE * (m % 2)) for c, m in edges if (c, m) in before}
    assert links.num_rows == len(found)
