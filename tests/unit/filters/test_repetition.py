"""Repetition is exact: every number here can be counted by hand, or by a slow program."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.filters.repetition import Grams, duplicate_characters, duplicate_fraction


def test_duplicate_lines_are_those_equal_to_an_earlier_one():
    lines = ["a", "bbb", "a", "a"]
    assert duplicate_fraction(lines) == 0.5
    assert duplicate_characters(lines) == pytest.approx(2 / 6)
    assert duplicate_fraction([]) == duplicate_characters([]) == 0.0


def test_the_most_frequent_pair_of_words_is_found():
    grams = Grams(["a", "b", "x", "a", "b", "y", "a", "b"])
    assert grams.top_fraction(2) == 6 / 8
    assert grams.top_fraction(3) == 0.0


def test_a_word_is_two_characters_where_there_are_no_spaces():
    assert Grams(list("磨坊磨坊磨"), step=2).top_fraction(1) == 4 / 5
    assert Grams(list("磨坊主人磨坊主人"), step=2).repeated_fraction(2) == 4 / 8


def test_a_text_shorter_than_the_ngram_has_none():
    grams = Grams(["a", "b"])
    assert (grams.top_fraction(3), grams.repeated_fraction(5)) == (0.0, 0.0)
    assert (Grams([]).top_fraction(2), Grams([]).repeated_fraction(5)) == (0.0, 0.0)


def _slow_repeated(units: list[str], size: int) -> float:
    seen: set[tuple[str, ...]] = set()
    covered: set[int] = set()
    for at in range(len(units) - size + 1):
        gram = tuple(units[at : at + size])
        if gram in seen:
            covered.update(range(at, at + size))
        seen.add(gram)
    return sum(len(units[at]) for at in covered) / sum(map(len, units)) if units else 0.0


def _slow_top(units: list[str], size: int) -> float:
    counts = Counter(tuple(units[at : at + size]) for at in range(len(units) - size + 1))
    most = max(counts.values(), default=0)
    if most < 2:
        return 0.0
    best = 0
    for gram in (g for g, n in counts.items() if n == most):
        covered = {
            at + k for at in range(len(units) - size + 1) if tuple(units[at : at + size]) == gram for k in range(size)
        }
        best = max(best, sum(len(units[at]) for at in covered))
    return best / sum(map(len, units))


@given(st.lists(st.sampled_from(["a", "bb", "ccc"]), max_size=40), st.integers(1, 6), st.sampled_from([1, 2]))
@settings(deadline=None, max_examples=200)
def test_the_fast_numbers_are_the_slow_ones(units, words, step):
    grams = Grams(units, step=step)
    assert grams.repeated_fraction(words) == pytest.approx(_slow_repeated(units, words * step))
    assert grams.top_fraction(words) == pytest.approx(_slow_top(units, words * step))
