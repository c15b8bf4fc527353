"""Script by characters that belong to one script only."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.language.script import _classes, count_variants, script_of

HANS = "这个门店里还有几个人在说话，他们从农村来。"
HANT = "這個門店裡還有幾個人在說話，他們從農村來。"


@pytest.mark.parametrize(
    ("text", "language", "script"),
    [
        (HANS, "zh", "Hans"),
        (HANT, "zh", "Hant"),
        (HANT, "yue", "Hant"),
        (HANS + HANT, "zh", "mixed"),
        (HANS * 9 + "說", "zh", "Hans"),
        (HANS, "ja", None),
        ("后里云面", "zh", None),
        ("", "zh", None),
        (None, "zh", None),
    ],
)
def test_a_text_gets_its_script(text, language, script):
    assert script_of(text, language) == script


def test_no_character_is_in_both_tables_and_everyday_ones_are_in_the_right_one():
    hans, hant = (set(pattern.pattern[1:-1]) for pattern in _classes())
    assert not hans & hant
    assert len(hans) == 2185 and len(hant) == 2809
    assert set("这们说时来对会个为国") <= hans
    assert set("這們說時來對會個為國") <= hant
    assert not set("后里云面台只") & (hans | hant)


@given(st.text(max_size=100), st.text(max_size=100))
def test_counts_add_up_over_pieces(left, right):
    whole, a, b = count_variants(left + right), count_variants(left), count_variants(right)
    assert whole == (a[0] + b[0], a[1] + b[1])
