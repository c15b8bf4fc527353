import networkx
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.dedup.components import clusters, star_edges

GRAPHS = st.integers(1, 30).flatmap(
    lambda n: st.tuples(
        st.lists(st.integers(0, 3), min_size=n, max_size=n).map(sorted),
        st.lists(st.tuples(st.integers(0, n - 1), st.integers(0, n - 1)), max_size=40),
    )
)


def columns(edges):
    left, right = (np.array([edge[i] for edge in edges], np.int64) for i in (0, 1))
    return left, right


@settings(deadline=None)
@given(GRAPHS)
def test_a_cluster_is_a_component_of_its_own_and_earlier_generations(graph):
    generation, edges = graph
    root = clusters(np.array(generation), *columns(edges))
    for now in set(generation):
        seen = [i for i, g in enumerate(generation) if g <= now]
        whole = networkx.Graph()
        whole.add_nodes_from(seen)
        whole.add_edges_from(e for e in edges if max(e) <= seen[-1])
        for component in networkx.connected_components(whole):
            for member in component:
                if generation[member] == now:
                    assert root[member] == min(component)


@settings(deadline=None)
@given(GRAPHS, st.randoms(use_true_random=False))
def test_the_order_of_the_edges_does_not_matter(graph, rng):
    generation, edges = graph
    shuffled = [edge if rng.random() < 0.5 else edge[::-1] for edge in rng.sample(edges, len(edges))]
    before = clusters(np.array(generation), *columns(edges))
    assert (clusters(np.array(generation), *columns(shuffled)) == before).all()


@settings(deadline=None)
@given(GRAPHS)
def test_an_append_never_changes_an_earlier_decision(graph):
    generation, edges = graph
    whole = clusters(np.array(generation), *columns(edges))
    for now in set(generation):
        count = sum(g <= now for g in generation)
        early = [e for e in edges if max(e) < count]
        assert (clusters(np.array(generation[:count]), *columns(early)) == whole[:count]).all()


BUCKETS = st.lists(st.tuples(st.integers(0, 5), st.integers(0, 3)), max_size=30)


@settings(deadline=None)
@given(BUCKETS, st.randoms(use_true_random=False))
def test_a_bucket_is_a_star_from_its_best_copy_in_any_order_of_rows(rows, rng):
    keyed = [(key, order, node) for node, (key, order) in enumerate(rows)]
    expected = set()
    for key in {key for key, _ in rows}:
        bucket = sorted((order, node) for k, order, node in keyed if k == key)
        expected |= {(bucket[0][1], node) for _, node in bucket[1:]}
    rng.shuffle(keyed)
    key, order, node = np.array(keyed, np.int64).reshape(-1, 3).T
    edges = list(zip(*(column.tolist() for column in star_edges(key, order, node)), strict=True))
    assert edges == sorted(expected)


def test_a_key_of_two_columns_is_compared_whole():
    key = np.array([[1, 1], [1, 2], [1, 1], [2, 1]])
    centre, member = star_edges(key, np.zeros(4, np.int64), np.arange(4))
    assert (centre.tolist(), member.tolist()) == ([0], [2])


def test_a_bucket_of_many_copies_gives_one_edge_a_copy():
    count = 100_000
    centre, member = star_edges(np.zeros(count, np.int64), np.zeros(count, np.int64), np.arange(count)[::-1])
    assert len(member) == count - 1 and set(centre.tolist()) == {0}
