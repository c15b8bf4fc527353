import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.tokens.sampling import group_fractions, group_sizes, sample


def batch(rows):
    names = ("id", "text", "language", "source")
    return pa.record_batch({name: pa.array([row[i] for row in rows], pa.string()) for i, name in enumerate(names)})


ROWS = [(f"{i:032x}", f"text {i}", "zh" if i % 3 else "en", "crawl" if i % 2 else None) for i in range(300)]


def test_sizes_are_bytes_by_language_and_source():
    sizes = group_sizes([batch([("a", "中", "zh", "s"), ("b", None, "zh", "s")]), batch([("c", "ab", None, None)])])
    assert sizes == {("zh", "s"): 3, ("", ""): 2}


def test_a_small_language_gets_more_than_its_share_and_never_more_than_it_has():
    fractions = group_fractions({("zh", ""): 1_000_000, ("en", ""): 10_000, ("de", ""): 10}, 100_000)
    assert fractions[("de", "")] == 1.0
    assert fractions[("zh", "")] < fractions[("en", "")] < 1.0


@given(
    st.dictionaries(st.tuples(st.text(max_size=2), st.just("")), st.integers(0, 10**9), max_size=5),
    st.integers(1, 10**9),
)
def test_the_whole_budget_is_used_where_there_is_enough(sizes, budget):
    fractions = group_fractions(sizes, budget)
    taken = sum(sizes[group] * fraction for group, fraction in fractions.items())
    assert taken == pytest.approx(min(budget, sum(sizes.values())))
    assert all(0 < fraction <= 1 for fraction in fractions.values())


@given(st.integers(0, 300), st.randoms(use_true_random=False))
def test_the_sample_depends_neither_on_order_nor_on_cuts(cut, rng):
    fractions = {("zh", "crawl"): 0.5, ("zh", ""): 0.2, ("en", "crawl"): 1.0}
    whole = sample([batch(ROWS)], fractions, seed=1)
    shuffled = list(ROWS)
    rng.shuffle(shuffled)
    assert sample([batch(shuffled[:cut]), batch(shuffled[cut:])], fractions, seed=1) == whole
    assert 60 < len(whole) < 200


def test_another_seed_is_another_sample():
    fractions = {("zh", "crawl"): 0.5}
    assert sample([batch(ROWS)], fractions, seed=1) != sample([batch(ROWS)], fractions, seed=2)
