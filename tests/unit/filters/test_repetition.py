"""Repetition is exact: every number here can be counted by hand, or by a slow program."""

from __future__ import annotations

from collections import Counter

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.filters.reader import read_facts
from pipelines.filters.repetition import SIZES


def _facts(text: str) -> dict[str, float]:
    facts = read_facts(pa.array([text]))
    names = ("duplicate_lines", "duplicate_line_characters", "paragraphs", "duplicate_paragraphs",
             "duplicate_paragraph_characters", "top_2", "top_3", "top_4",
             *(f"repeated_{n}" for n in range(5, 11)))  # fmt: skip
    return {name: float(facts[name][0]) for name in names}


def test_duplicate_lines_and_paragraphs_are_those_equal_to_an_earlier_one():
    found = _facts("aa\nbb\n\ncccc\n\naa\nbb\n\naa\n\ncccc")
    assert (found["duplicate_lines"], found["duplicate_line_characters"]) == (4, 2 + 2 + 2 + 4)
    assert (found["paragraphs"], found["duplicate_paragraphs"]) == (5, 2)
    assert found["duplicate_paragraph_characters"] == 4 + 4


def test_the_most_frequent_pair_weighs_its_length_with_the_blank_times_its_count():
    assert _facts("ab cd x ab cd y ab cd z")["top_2"] == 3 * len("ab cd")


def test_of_pairs_that_all_occur_once_the_first_counts():
    assert _facts("one two three four")["top_2"] == len("one two")


def test_a_text_without_repeats_has_no_repeated_ngrams():
    found = _facts(" ".join(f"word{n}" for n in range(500)))
    assert not any(found[f"repeated_{n}"] for n in range(5, 11))


def _slow(words: list[str], sizes: tuple[int, ...], join: str) -> dict[str, float]:
    found: dict[str, float] = {}
    for number, (n, size) in enumerate(zip(SIZES, sizes, strict=True)):
        grams = [tuple(words[at : at + size]) for at in range(len(words) - size + 1)]
        if n <= 4:
            counts = Counter(grams)
            gram, count = counts.most_common(1)[0] if grams else ((), 0)
            found[f"top_{n}"] = (sum(map(len, gram)) + number + 1) * count if grams else 0
            continue
        seen: set[tuple[str, ...]] = set()
        at = repeated = 0
        while at < len(grams):
            if grams[at] in seen:
                repeated += sum(map(len, grams[at]))
                at += size
            else:
                seen.add(grams[at])
                at += 1
        found[f"repeated_{n}"] = repeated
    return found


@given(st.lists(st.sampled_from(["a", "bb", "ccc", "dd"]), min_size=1, max_size=60))
@settings(deadline=None, max_examples=200)
def test_the_fast_numbers_are_the_slow_ones(words):
    fast = _facts(" ".join(words))
    for name, value in _slow(words, SIZES, " ").items():
        assert fast[name] == value, name


@given(st.text(alphabet="磨坊主人水", min_size=1, max_size=80))
@settings(deadline=None, max_examples=200)
def test_characters_stand_for_words_at_1_6_a_word(text):
    fast = _facts(text)
    for name, value in _slow(list(text), tuple(int(1.6 * n + 0.5) for n in SIZES), "").items():
        assert fast[name] == value, name


@pytest.mark.parametrize("text", ["ab" * 100_000, "ab " * 60_000, "\n".join(["x"] * 50_000), "磨" * 200_000])
def test_repetition_without_end_is_counted_in_bounded_time(text):
    read_facts(pa.array([text]))
