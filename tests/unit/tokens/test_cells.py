import itertools

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.errors import ConfigError
from pipelines.tokens.cells import cell_names, check_edges, id_hashes, shard_count, shard_ranges


def test_a_cell_is_language_kind_and_quality():
    names = cell_names(["zh", "en", None], ["web", "book", ""], [0.2, 0.5, None], [0.3, 0.5])
    assert names == ["zh.web.q0", "en.book.q2", "unknown.unknown.qx"]


def test_without_scores_all_are_in_one_bucket():
    assert cell_names(["zh"], ["web"], None, [0.5]) == ["zh.web.qx"]


@given(st.text(max_size=60), st.text(max_size=60))
def test_a_cell_name_is_plain_whatever_the_columns_hold(language, kind):
    (name,) = cell_names([language], [kind], [0.5], [])
    assert name.count(".") == 2 and set(name) <= set("abcdefghijklmnopqrstuvwxyz0123456789._-")


def test_edges_that_do_not_rise_are_refused():
    check_edges([])
    check_edges([0.1, 0.2])
    for edges in ([0.2, 0.1], [0.1, 0.1]):
        with pytest.raises(ConfigError):
            check_edges(edges)


@given(st.integers(1, 1000))
def test_ranges_tile_the_space(count):
    ranges = shard_ranges(count)
    assert ranges[0][0] == 0 and ranges[-1][1] == 2**64 - 1 and len(ranges) == count
    assert all(before[1] + 1 == after[0] for before, after in itertools.pairwise(ranges))


def test_shards_of_a_big_cell_are_equal_within_two_percent():
    rng = np.random.default_rng(0)
    count = 400_000
    tokens = rng.lognormal(6.2, 1.1, count).astype(np.int64)
    hashes = id_hashes(pa.array([f"{i:032x}" for i in range(count)]), seed=0)
    shards = shard_count(int(tokens.sum()), int(tokens.sum()) // 4)
    sizes = [tokens[(hashes >= first) & (hashes <= last)].sum() for first, last in shard_ranges(shards)]
    assert shards == 4
    assert max(sizes) < 1.02 * np.mean(sizes) and min(sizes) > 0.98 * np.mean(sizes)


def test_a_small_cell_has_one_shard():
    assert [shard_count(tokens, 100) for tokens in (0, 1, 149, 150, 1000)] == [1, 1, 1, 2, 10]


def test_the_seed_changes_the_order():
    ids = pa.array(["a", "b", "c", "d", "e", "f"])
    assert (np.argsort(id_hashes(ids, 0)) != np.argsort(id_hashes(ids, 1))).any()
