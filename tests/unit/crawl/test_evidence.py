"""Bytes cost least in the charset that they were written in."""

from __future__ import annotations

import math
import time
import zipfile

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.crawl import evidence_build
from pipelines.crawl.evidence import _letters, characters_cost, readings, sample_of


def test_the_shares_of_each_language_add_up_to_one():
    assert len(_letters()) > 45
    for language in evidence_build._LANGUAGES.split():
        letters = _letters().get(language, {})
        romanian = sum(math.exp(-letters[char]) for char in "şţŞŢ" if char in letters) if language == "ro" else 0
        whole = sum(math.exp(-cost) for cost in letters.values()) - romanian
        assert not letters or whole == pytest.approx(1, abs=0.1), language
    for language in ("zh-hans", "zh-hant", "ja", "ko"):
        assert sum(math.exp(-cost) for cost in _letters()[language].values()) == pytest.approx(1, abs=0.1)


def test_everyday_characters_cost_less_than_rare_ones_and_those_than_broken_ones():
    everyday, rare, unlisted, broken = characters_cost("国镒㙍\ufffd", "gb18030").tolist()
    assert everyday < rare < unlisted < broken


def test_a_declaration_is_worth_what_it_is_said_to_be():
    body = b"caf\xe9"
    alone = readings(body, {})
    declared = readings(body, {"cp1251": 50.0})
    assert min(alone, key=alone.__getitem__) == "cp1252"
    assert min(declared, key=declared.__getitem__) == "cp1251"


def test_a_sample_keeps_neighbours_and_order_and_is_bounded():
    assert sample_of(b"abc\xe9def \xe0\xe8 x", 100) == b"c\xe9d \xe0\xe8 "
    assert sample_of(b"plain", 100) == b""
    assert len(sample_of(b"\xe9 " * (1 << 20), 2_048)) <= 2_048


@given(st.binary(min_size=1, max_size=300))
@settings(deadline=None, max_examples=200)
def test_every_charset_has_a_finite_cost_for_any_bytes(body):
    assert all(math.isfinite(cost) for cost in readings(body, {}).values())


def test_the_cost_of_looking_does_not_grow_with_the_page_where_text_comes_early():
    page = b"\xe9\xe0 " * 20_000 + b"x" * (20 << 20)
    readings(page, {})
    begun = time.process_time()
    readings(page, {})
    assert time.process_time() - begun < 0.2


def test_messages_are_read_out_of_an_archive_of_translations(tmp_path):
    catalogue = (
        'msgid ""\nmsgstr ""\n"Translator: Żółw\\n"\n\nmsgid "a"\nmsgstr "źle"\n\n'
        'msgid "b"\nmsgid_plural "c"\nmsgstr[0] "ź"\nmsgstr[1] ""\n"łąka"\n'
    )
    with zipfile.ZipFile(tmp_path / "d.whl", "w") as packed:
        packed.writestr("django/conf/locale/pl/LC_MESSAGES/django.po", catalogue)
    with zipfile.ZipFile(tmp_path / "d.whl") as packed:
        shares = evidence_build._shares(evidence_build._messages(packed, "pl"), "", 0.0)
    assert shares == {"ź": 0.5, "ł": 0.25, "ą": 0.25}


def test_levels_of_the_standards_have_their_sizes():
    assert len(evidence_build.level(range(0xB0, 0xD8), "gb2312")) == 3_755
    assert len(evidence_build.level(range(0xA4, 0xC7), "big5")) >= 5_401
    assert len(evidence_build.level(range(0xB0, 0xC9), "euc_kr")) == 2_350
