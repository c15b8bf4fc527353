import itertools

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.errors import ConfigError
from pipelines.tokens.cells import (
    cell_column,
    check_columns,
    check_edges,
    id_hashes,
    named_domains,
    quality_buckets,
    quality_names,
    shard_count,
    shard_ranges,
    token_buckets,
)


def names_of(language, kind, scores=None, edges=()):
    scores = [None] * len(language) if scores is None else scores
    buckets = quality_buckets(pa.array(scores, pa.float64()), edges)
    columns = [pa.array(language, pa.string()), pa.array(kind, pa.string()), quality_names(buckets)]
    return cell_column(columns).to_pylist()


def test_a_cell_is_language_kind_and_quality():
    names = names_of(["zh", "en", None], ["web", "book", ""], [0.2, 0.5, None], [0.3, 0.5])
    assert names == ["zh.web.q0", "en.book.q2", "unknown.unknown.qx"]


def test_without_scores_all_are_in_one_bucket():
    assert names_of(["zh"], ["web"]) == ["zh.web.qx"]


def test_a_part_without_rows_has_no_cells():
    assert names_of([], []) == []


@given(st.text(max_size=60), st.text(max_size=60))
def test_a_cell_name_is_plain_whatever_the_columns_hold(language, kind):
    (name,) = names_of([language], [kind], [0.5])
    assert name.count(".") == 2 and set(name) <= set("abcdefghijklmnopqrstuvwxyz0123456789._-")


def test_named_domains_have_cells_and_the_others_share_one():
    domains = named_domains(pa.array(["b.example", "a.example", None, "c.example"]), ["a.example", "c.example"])
    assert cell_column([domains]).to_pylist() == ["other", "a-example", "other", "c-example"]


def test_columns_that_make_no_cells_are_refused():
    check_columns(["language", "source"], [])
    check_columns(["domain"], ["a.example"])
    for columns in ([], ["url"], ["source", "source"], ["domain"]):
        with pytest.raises(ConfigError):
            check_columns(columns, [])
    with pytest.raises(ConfigError):
        check_columns(["source"], ["a.example"])


def test_edges_that_do_not_rise_are_refused():
    check_edges([])
    check_edges([0.1, 0.2])
    for edges in ([0.2, 0.1], [0.1, 0.1]):
        with pytest.raises(ConfigError):
            check_edges(edges)


HASHES = st.lists(st.tuples(st.integers(0, 2**64 - 1), st.integers(1, 2000)), max_size=60)


def cut(documents, count):
    hashes = np.array([h for h, _ in documents], np.uint64)
    lengths = np.array([n for _, n in documents], np.int64)
    return shard_ranges(*token_buckets(hashes, lengths), count)


@given(HASHES, st.integers(1, 20))
def test_ranges_tile_the_space_and_none_is_empty(documents, count):
    ranges = cut(documents, count)
    assert ranges[0][0] == 0 and ranges[-1][1] == 2**64 - 1 and 1 <= len(ranges) <= count
    assert all(before[1] + 1 == after[0] for before, after in itertools.pairwise(ranges))
    if documents:
        assert all(any(first <= h <= last for h, _ in documents) for first, last in ranges)


@pytest.mark.parametrize(("count", "shards"), [(400_000, 16), (3000, 7), (200_000, 3)])
def test_shards_of_a_cell_are_equal_within_two_percent(count, shards):
    rng = np.random.default_rng(0)
    tokens = rng.lognormal(6.2, 1.1, count).astype(np.int64) + 1
    hashes = id_hashes(pa.array([f"{i:032x}" for i in range(count)]), seed=0)
    found = shard_ranges(*token_buckets(hashes, tokens), shards)
    sizes = [tokens[(hashes >= first) & (hashes <= last)].sum() for first, last in found]
    assert len(sizes) == shards
    assert max(sizes) < 1.02 * np.mean(sizes) and min(sizes) > 0.98 * np.mean(sizes)


def test_the_counts_of_two_parts_add_up_to_those_of_both():
    rng = np.random.default_rng(1)
    hashes, tokens = rng.integers(0, 2**64, 500, np.uint64), rng.integers(1, 90, 500)
    whole = token_buckets(hashes, tokens)
    parts = [token_buckets(hashes[c], tokens[c]) for c in (slice(200), slice(200, 500))]
    assert all((w == a + b).all() for w, a, b in zip(whole, *parts, strict=True))


def test_a_small_cell_has_one_shard():
    assert [shard_count(tokens, 100) for tokens in (0, 1, 149, 150, 1000)] == [1, 1, 1, 2, 10]


def test_the_seed_changes_the_order():
    ids = pa.array(["a", "b", "c", "d", "e", "f"])
    assert (np.argsort(id_hashes(ids, 0)) != np.argsort(id_hashes(ids, 1))).any()
