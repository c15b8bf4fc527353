"""Cantonese and standard Chinese, simplified and traditional, are told apart."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.language.variety import route_of, variety_of

HANS = "这个门店里还有几个人在说话，他们从农村来，把谷物磨成面粉。"
HANT = "這個門店裡還有幾個人在說話，他們從農村來，把穀物磨成麵粉。"
YUE = "佢哋喺嗰間磨坊做咗好多年嘢，成日都唔返屋企食飯，啲麵粉係佢自己磨嘅。"
YUE_HANS = "佢哋喺嗰间磨坊做咗好多年嘢，成日都唔返屋企食饭，啲面粉系佢自己磨嘅。"


@pytest.mark.parametrize(
    ("text", "language", "variety"),
    [
        (HANS, "zh", ("zh", "Hans")),
        (HANT, "zh", ("zh", "Hant")),
        (HANS + HANT, "zh", ("zh", "mixed")),
        (HANS * 20 + "說", "zh", ("zh", "Hans")),
        (YUE, "zh", ("yue", "Hant")),
        (YUE, "yue", ("yue", "Hant")),
        (YUE_HANS, "zh", ("yue", "Hans")),
        (HANT, "yue", ("zh", "Hant")),
        (HANT * 8 + "他說「唔該」、「佢哋」。", "zh", ("zh", "Hant")),
        (HANT * 3 + "嘅嘅嘅嘅嘅嘅嘅嘅嘅", "zh", ("zh", "Hant")),
        (HANS, "wuu", ("zh", "Hans")),
        ("后里云面", "zh", ("zh", None)),
        ("the mill", "en", ("en", None)),
        ("石臼はゆっくりと回り", "ja", ("ja", None)),
        ("", "zh", ("zh", None)),
        (None, "zh", ("zh", None)),
    ],
)
def test_a_text_has_its_variety(text, language, variety):
    assert variety_of(text, language) == variety


@pytest.mark.parametrize(
    ("language", "script", "route"),
    [
        ("zh", "Hans", "zh-hans"),
        ("zh", "mixed", "zh-mixed"),
        ("zh", None, "zh"),
        ("yue", "Hant", "yue"),
        ("en", None, "en"),
    ],
)
def test_a_variety_has_its_route(language, script, route):
    assert route_of(language, script) == route


@given(st.text(max_size=300), st.sampled_from(["zh", "yue", "en", "und"]))
def test_any_text_has_one(text, language):
    found, script = variety_of(text, language)
    assert script in (None, "Hans", "Hant", "mixed")
    assert found in ({"zh", "yue"} if language in ("zh", "yue") else {language})


def test_five_megabytes_cost_no_more_than_their_head():
    begun = time.process_time()
    variety_of(YUE * 100_000, "zh")
    assert time.process_time() - begun < 0.2
