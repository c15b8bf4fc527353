from __future__ import annotations

import itertools
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.errors import ConfigError
from training.layout import (
    EngineConfig,
    Place,
    bucket_elements,
    data_size,
    order_ranks,
    place_of,
    stage_bounds,
    tensor_box,
)


def test_tensor_ranks_are_neighbours_and_stages_lie_farthest_apart():
    places = [place_of(rank, data_size=3, tensor_size=2) for rank in range(12)]
    assert places[:3] == [Place(0, 0, 0), Place(0, 0, 1), Place(0, 1, 0)]
    assert places[6] == Place(1, 0, 0)
    assert len(set(places)) == 12


@pytest.mark.parametrize("size", [1, 2, 4])
@pytest.mark.parametrize("name", ["layers.1.attention.key.weight", "layers.0.feed_forward.down.weight"])
def test_the_boxes_of_the_tensor_ranks_cover_a_matrix_once(name, size):
    seen = set()
    for rank in range(size):
        box = tensor_box(name, (8, 12), rank=rank, size=size)
        cells = set(itertools.product(*(range(s, s + n) for s, n in zip(box.start, box.size, strict=True))))
        assert len(cells) == math.prod(box.size) == 96 // size
        assert not cells & seen
        seen |= cells
    assert len(seen) == 96
    assert tensor_box("final_norm.weight", (12,), rank=size - 1, size=size).size == (12,)


@settings(deadline=None)
@given(weights=st.lists(st.integers(1, 50), min_size=1, max_size=9), data=st.data())
def test_the_heaviest_stage_is_as_light_as_any_cut_allows(weights, data):
    stages = data.draw(st.integers(1, len(weights)))
    bounds = stage_bounds(weights, stages)
    assert bounds[0] == 0
    assert bounds[-1] == len(weights)
    assert all(a < b for a, b in itertools.pairwise(bounds))

    def heaviest(cuts) -> int:
        return max(sum(weights[a:b]) for a, b in itertools.pairwise(cuts))

    every = itertools.combinations(range(1, len(weights)), stages - 1)
    assert heaviest(bounds) == min(heaviest([0, *cuts, len(weights)]) for cuts in every)


def test_stages_are_uneven_where_the_vocabulary_weighs():
    layer, vocabulary = 300, 900
    bounds = stage_bounds([vocabulary, *[layer] * 12, 1, vocabulary], 3)
    assert [b - a for a, b in itertools.pairwise(bounds)] == [4, 6, 5]


def test_buckets_grow_with_the_cluster_and_stay_small_beside_the_model():
    sizes = [bucket_elements(13_000_000_000, ranks) for ranks in (1, 8, 64, 512)]
    assert sizes == sorted(sizes)
    assert sizes[0] == 2_500_000
    assert sizes[-1] == 500_000_000
    assert bucket_elements(125_000_000, 512) <= 125_000_000 // 8
    assert bucket_elements(10_000, 8) == 1_000_000
    assert all(bucket_elements(n, d) % 2 == 0 for n in (10_000_001, 987_654_321) for d in (1, 3, 24))


def test_ranks_are_ordered_by_rack_node_and_gpu():
    found = [(f"node-{n}", f"rack-{n % 2}", gpu) for n in (3, 0, 2, 1) for gpu in (1, 0)]
    ordered = [found[i] for i in order_ranks(found)]
    assert ordered == [(f"node-{n}", f"rack-{n % 2}", gpu) for n in (0, 2, 1, 3) for gpu in (0, 1)]
    assert sorted(order_ranks(found)) == list(range(8))


def test_ranks_that_the_layout_does_not_divide_are_refused_with_a_number_that_it_does():
    layout = EngineConfig(tensor_parallel=2, pipeline_stages=2)
    assert data_size(24, layout) == 6
    with pytest.raises(ConfigError, match="10 ranks") as refused:
        data_size(10, layout)
    assert "8 ranks" in refused.value.mend
