from __future__ import annotations

import pytest

from pipelines.crawl.html.labels import (
    block_labels,
    is_headline,
    page_groups,
    segment_hits,
    segment_labels,
    token_scores,
    tokens,
    without_headline,
)


def test_han_and_kana_count_one_by_one_and_words_whole():
    assert tokens("今天Ｐｙｔｈｏｎ3.11很good_day") == ["今", "天", "python3", "11", "很", "good_day"]


def test_token_scores_are_of_multisets():
    assert token_scores("a b c", "a b d e") == pytest.approx((2 / 3, 1 / 2, 4 / 7))
    assert token_scores("你好你", "你好") == pytest.approx((2 / 3, 1.0, 0.8))
    assert token_scores("", "") == (1, 1, 1)
    assert token_scores("", "x") == (0, 0, 0)


def test_segments_ignore_white_space_and_case():
    assert segment_hits("Hello  World foo", ["helloworld", "bar"], ["FOO", "baz"]) == (1, 2, 1, 2)


def test_the_headline_is_most_of_the_title():
    assert is_headline("The old mill", "The old mill - News of the day")
    assert not is_headline("The", "The old mill")
    assert without_headline("The old mill\ntext", "The old mill") == "text"


def test_blocks_are_labelled_by_what_the_gold_text_has_of_them():
    gold = "the stones turn slowly and grind the grain\n42\nthe end of it all"
    blocks = [
        "the stones turn slowly and grind the grain",
        "42",
        "Home",
        "the end of it all",
        "stones turn slowly home again now",
        " ",
    ]
    assert block_labels(blocks, gold).tolist() == pytest.approx([1, 1, 0, 1, 0, -1])


def test_pages_of_one_domain_or_with_shared_text_are_one_group():
    text = " ".join(f"w{n}" for n in range(2_000))
    pages = [
        {"domain": d, "gold": g}
        for d, g in (("a.example", text), ("b.example", text), ("c.example", "short"), ("a.example", None))
    ]
    groups = page_groups(pages)
    assert groups[0] == groups[1] == groups[3] != groups[2]


def test_segments_label_the_blocks_that_hold_them_and_no_others():
    blocks = ["A story of  two mills.", "Menu", "Sign up now for our letter", "unknown", *["x and Menu"] * 9]
    labels = segment_labels(blocks, ["two mills", "abc"], ["sign up now for our letter and more", "Menu"])
    assert labels[:4].tolist() == [1, -1, 0, -1]
    assert (labels[4:] == -1).all()  # the word stands everywhere
