import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.errors import ConfigError
from pipelines.tokens.sampling import (
    Sampled,
    group_fractions,
    group_sizes,
    learning_texts,
    sample,
    stated_fractions,
    without_known_clauses,
)


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


def test_stated_shares_are_of_the_budget_and_what_they_leave_out_is_not_read():
    sizes = {("zh", "a"): 1000, ("zh", "b"): 3000, ("en", "a"): 4000, ("de", "a"): 10}
    fractions = stated_fractions(sizes, {"zh": 1, "en": 1}, 4000, 8)
    assert fractions == {("zh", "a"): 0.5, ("zh", "b"): 0.5, ("en", "a"): 0.5, ("de", "a"): 0.0}


def test_a_share_of_a_source_is_taken_out_of_its_language():
    fractions = stated_fractions({("zh", "a"): 1000, ("zh", "b"): 3000}, {"zh": 3, "zh/a": 1}, 8000, 8)
    assert fractions == {("zh", "a"): 2.0, ("zh", "b"): 2.0}
    assert stated_fractions({("zh", "a"): 10, ("zh", "b"): 10}, {"zh/a": 1}, 1000, 8)[("zh", "a")] == 8


def test_a_share_of_nothing_is_refused():
    with pytest.raises(ConfigError, match="fr"):
        stated_fractions({("zh", "a"): 1000}, {"fr": 1.0}, 1000, 8)


def test_a_document_is_read_as_often_as_its_share_asks():
    found = sample([batch(ROWS)], {("zh", "crawl"): 2.25}, seed=1)
    times = [document.times for document in found]
    assert set(times) == {2, 3} and 0.1 < times.count(3) / len(times) < 0.45
    assert len(list(learning_texts(found))) == sum(times)


def test_a_clause_is_learned_once_however_many_pages_have_it():
    pages = [Sampled(text=f"页{i}的正文。版权所有，未经许可不得转载。", language="zh", times=2) for i in range(3)]
    texts = list(learning_texts(pages))
    assert len(texts) == 6 and sum("未经许可" in text for text in texts) == 2
    assert texts[4] == texts[5] == "页2的正文。版权所有，"


def test_text_is_kept_whole_where_no_clause_comes_again():
    for text in ("a\nb,c; d!?", "", "\n\n", "；；a", "no end"):
        assert without_known_clauses(text, set()) == text


def test_some_chinese_is_read_in_traditional_characters_too():
    pages = [Sampled(text=f"第{i}个国家的汉语文书", language=("zh", "en")[i % 2], times=1) for i in range(20)]
    assert sum("國" in text for text in learning_texts(pages, 0.5)) == 5
    assert not any("國" in text for text in learning_texts(pages))
