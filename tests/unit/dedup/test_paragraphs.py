"""Paragraphs and sentences: where they begin and end, and which of them are one text."""

from __future__ import annotations

import time

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.dedup.paragraphs import PARAGRAPH, SENTENCE, UnitRules, find_units
from pipelines.errors import ConfigError

EVERY = UnitRules(min_bytes=1)
SENTENCES = UnitRules(min_bytes=1, paragraphs=False)


def pieces(text, rules=SENTENCES):
    units, body = find_units(pa.array([text]), rules), text.encode()
    return [body[a:b].decode() for a, b in zip(units.start.tolist(), units.end.tolist(), strict=True)]


@pytest.mark.parametrize(
    "sentences",
    [
        ["One here. ", "Two there! ", "Three? ", "And the rest"],
        ["今天下雨。", "我们不去了！", "你呢？", "好"],
        ["他说：“走吧。”", "她没有动。"],
        ["He said \"Go.\" ", "She did not move."],
        ["Mr. Smith met J. R. Jones of the U.S. Army at 3.14 p.m. on Jan. 5. ", "It rained."],
        ["See http://a.example/?q=1&b=2.html for v1.2.3 of it. ", "Then go."],
        ["Really?! ", "Yes... ", "No."],
        ["等等……", "然后呢?", "走!", "好"],
        ["and so on, etc. and more. ", "End."],
        ["क्या है। ", "हाँ।"],
        ["هل؟ ", "نعم"],
        ["It is here.　", "Next"],
    ],
)  # fmt: skip
def test_a_line_is_tiled_by_its_sentences(sentences):
    assert pieces("".join(sentences)) == sentences


def test_a_paragraph_comes_before_its_sentences_and_a_single_sentence_counts_once():
    text = "First one. Second one.\n\nOnly one here.\n。。\n"
    assert pieces(text, EVERY) == ["First one. Second one.", "First one. ", "Second one.", "Only one here."]
    units = find_units(pa.array([text]), EVERY)
    assert units.level.tolist() == [PARAGRAPH, SENTENCE, SENTENCE, PARAGRAPH]
    assert pieces(text, UnitRules(min_bytes=1, sentences=False)) == ["First one. Second one.", "Only one here."]
    assert find_units(pa.array([text]), SENTENCES).level.tolist() == [SENTENCE] * 3


def test_copies_share_a_digest_however_they_are_set_and_others_do_not():
    texts = [
        "All rights  RESERVED!",
        "all rights reserved. Next one.",
        "「All rights reserved」",
        "Ａｌｌ rights\treserved",
        "no rights reserved",
        "版权 所有",
        "版权所有。",
    ]
    units = find_units(pa.array(texts), SENTENCES)
    by_text = {}
    for text, digest in zip(units.text.tolist(), units.digest.tolist(), strict=True):
        by_text.setdefault(text, []).append(digest)
    assert by_text[0] == by_text[1][:1] == by_text[2] == by_text[3] != by_text[4]
    assert by_text[5] == by_text[6]
    assert len(set(units.digest.tolist())) == 4


def test_short_units_are_left_out_by_the_length_of_what_they_say():
    assert pieces("Yes. This sentence is long enough to be a copy. No.", UnitRules(min_bytes=30, paragraphs=False)) == [
        "This sentence is long enough to be a copy. "
    ]
    assert pieces("一二三四五六七八九。一二三四五六七八九十。", UnitRules(min_bytes=30, paragraphs=False)) == [
        "一二三四五六七八九十。"
    ]
    assert pieces("-" * 500 + "!" * 500, UnitRules(min_bytes=1)) == []


def test_texts_stand_apart_and_null_has_no_unit():
    units = find_units(pa.chunked_array([["a b c.", None], ["", "d e f.\ng h"]]), EVERY)
    assert units.text.tolist() == [0, 3, 3]
    sliced = find_units(pa.array(["x y", "a b c.", "z"]).slice(1, 1), EVERY)
    assert (sliced.text.tolist(), sliced.start.tolist(), sliced.digest[0]) == ([0], [0], units.digest[0])
    assert len(find_units(pa.array([], pa.string()), EVERY)) == 0


MARKS = st.lists(
    st.sampled_from([*"ab M.!?。！？…”」)\n 　\t", "Mr.", "e.g.", "1.5", "😀", "é", "؟", "।"]), max_size=60
)


@settings(max_examples=300, deadline=None)
@given(st.lists(MARKS, max_size=4))
def test_sentences_tile_every_line_and_digests_depend_on_the_unit_alone(texts):
    whole = ["".join(marks) for marks in texts]
    units = find_units(pa.array(whole, pa.string()), SENTENCES)
    bodies = [text.encode() for text in whole]
    alone = {}
    for text, start, end, digest in zip(
        units.text.tolist(), units.start.tolist(), units.end.tolist(), units.digest.tolist(), strict=True
    ):
        piece = bodies[text][start:end].decode()  # never cuts a character
        assert "\n" not in piece
        single = find_units(pa.array([piece]), UnitRules(min_bytes=1, sentences=False))
        assert single.digest.tolist() == [digest]
        assert alone.setdefault(digest, "".join(piece.split())) is not None
    for body in bodies:
        assert len(pieces(body.decode())) <= len(body)


def test_hostile_text_takes_linear_time():
    find_units(pa.array(["a."]), EVERY)
    for text in (
        "." * 10**6,
        "a." * 500_000,
        "a. " * 300_000,
        '?"' * 500_000,
        "\n" * 10**6,
        "J. " * 300_000,
        "。" * 300_000,
    ):
        started = time.process_time()
        find_units(pa.array([text]), EVERY)
        assert time.process_time() - started < 3


def test_rules_that_make_no_sense_are_refused():
    with pytest.raises(ConfigError, match="neither"):
        UnitRules(paragraphs=False, sentences=False)
    with pytest.raises(ConfigError, match="min_bytes"):
        UnitRules(min_bytes=0)
