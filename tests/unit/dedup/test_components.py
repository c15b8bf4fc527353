import networkx
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.dedup.components import (
    alone,
    clusters,
    components,
    dense_ids,
    id_components,
    large_star,
    small_star,
    unite,
)

GRAPHS = st.integers(1, 30).flatmap(
    lambda n: st.tuples(
        st.lists(st.integers(0, 3), min_size=n, max_size=n).map(sorted),
        st.lists(st.tuples(st.integers(0, n - 1), st.integers(0, n - 1)), max_size=40),
    )
)


def columns(edges):
    left, right = (np.array([edge[i] for edge in edges], np.int64) for i in (0, 1))
    return left, right


def roots(generation, edges):
    return clusters(np.array(generation), *columns(edges), np.zeros(len(generation)))[0]


@settings(deadline=None)
@given(GRAPHS)
def test_a_cluster_has_its_size_and_first_capture_as_of_its_generation(graph):
    generation, edges = graph
    minutes = np.arange(len(generation))[::-1] * 7 % 11
    root, sizes, first_seen = clusters(np.array(generation), *columns(edges), minutes)
    for i, now in enumerate(generation):
        seen = [j for j, g in enumerate(generation) if g <= now]
        whole = networkx.Graph()
        whole.add_nodes_from(seen)
        whole.add_edges_from(e for e in edges if max(e) <= seen[-1])
        mine = networkx.node_connected_component(whole, i)
        assert (root[i], sizes[i], first_seen[i]) == (min(mine), len(mine), min(minutes[j] for j in mine))


@settings(deadline=None)
@given(GRAPHS)
def test_a_cluster_is_a_component_of_its_own_and_earlier_generations(graph):
    generation, edges = graph
    root = roots(generation, edges)
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
    before = roots(generation, edges)
    assert (roots(generation, shuffled) == before).all()


@settings(deadline=None)
@given(GRAPHS)
def test_an_append_never_changes_an_earlier_decision(graph):
    generation, edges = graph
    whole = roots(generation, edges)
    for now in set(generation):
        count = sum(g <= now for g in generation)
        early = [e for e in edges if max(e) < count]
        assert (roots(generation[:count], early) == whole[:count]).all()


EDGES = st.lists(st.tuples(st.integers(0, 29), st.integers(0, 29)), max_size=60)


def expected_roots(count, edges):
    graph = networkx.Graph()
    graph.add_nodes_from(range(count))
    graph.add_edges_from(edges)
    return [min(networkx.node_connected_component(graph, node)) for node in range(count)]


@settings(deadline=None)
@given(EDGES, st.integers(0, 60))
def test_a_component_is_known_by_its_least_node_and_edges_may_come_in_pieces(edges, cut):
    expected = expected_roots(30, edges)
    assert components(30, *columns(edges)).tolist() == expected
    parent = alone(30)
    for piece in (edges[cut:], edges[:cut]):
        unite(parent, *columns(piece))
    assert parent.tolist() == expected


def test_a_long_chain_in_any_order_is_one_component():
    rng = np.random.default_rng(0)
    order = rng.permutation(99_999)
    assert not components(100_000, order + 1, order).any()
    assert not components(100_000, np.arange(99_999)[::-1], np.arange(99_999)[::-1] + 1).any()


@settings(deadline=None)
@given(EDGES, st.randoms(use_true_random=False))
def test_components_of_wide_ids_are_those_of_the_nodes_in_the_order_of_the_ids(edges, rng):
    names = sorted((rng.getrandbits(2) << 62, rng.getrandbits(59) << 5 | i) for i in range(30))
    left, right = ([np.array([names[e[i]][h] for e in edges], np.uint64) for h in (0, 1)] for i in (0, 1))
    node, root = id_components(tuple(left), tuple(right))
    expected = expected_roots(30, edges)
    seen = sorted({n for edge in edges for n in edge})
    found = [list(zip(*(half.tolist() for half in halves), strict=True)) for halves in (node, root)]
    assert dict(zip(*found, strict=True)) == {names[n]: names[expected[n]] for n in seen}
    assert len(found[0]) == len(seen)


def test_equal_ids_have_one_number():
    high, low = np.array([1, 1, 2, 1], np.uint64), np.array([5, 6, 5, 5], np.uint64)
    keys, numbers = dense_ids(high, low)
    assert (keys.tolist(), numbers.tolist()) == ([[1, 5], [1, 6], [2, 5]], [0, 1, 2, 0])


@settings(deadline=None)
@given(EDGES)
def test_star_rounds_end_in_the_same_components(edges):
    lesser, greater = columns([(min(e), max(e)) for e in edges if e[0] != e[1]])
    for _ in range(30):
        both = np.concatenate([lesser, greater]), np.concatenate([greater, lesser])
        after = large_star(*both)
        after = small_star(after[1], after[0])
        if all(len(a) == len(b) and (a == b).all() for a, b in zip(after, (lesser, greater), strict=True)):
            break
        lesser, greater = after
    root = np.arange(30)
    root[greater] = lesser
    assert root.tolist() == expected_roots(30, edges)
