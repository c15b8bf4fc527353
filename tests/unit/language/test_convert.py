"""Chinese is converted where the policy asks for it, and the original is kept."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.errors import ConfigError
from pipelines.language.convert import POLICIES, apply_policy, check_policy, convert

HANS = "这个门店里还有几个人在说话，\n他们从农村来。"
HANT = "這個門店裏還有幾個人在說話，\n他們從農村來。"


def test_conversion_goes_both_ways_and_by_region():
    assert convert(HANT, "hans") == HANS
    assert convert(HANS, "hant") == HANT
    assert convert("软件和鼠标", "hant-tw") == "軟體和滑鼠"
    assert convert("軟體和滑鼠", "hans-cn") == "软件和鼠标"
    assert convert("头发与发现", "hant") == "頭髮與發現"


@pytest.mark.parametrize(
    ("text", "language", "script", "policy", "found"),
    [
        (HANT, "zh", "Hant", "keep", (HANT, None)),
        (HANT, "zh", "Hant", "route", (HANT, None)),
        (HANT, "zh", "Hant", "convert:hans", (HANS, HANT)),
        (HANS, "zh", "Hans", "convert:hans", (HANS, None)),
        (HANS + "說", "zh", "mixed", "convert:hans", (HANS + "说", HANS + "說")),
        (HANS, "zh", "Hans", "convert:hant", (HANT, HANS)),
        ("后里", "zh", None, "convert:hant", ("后里", None)),
        ("畫展", "ja", None, "convert:hans", ("畫展", None)),
    ],
)
def test_a_policy_changes_only_chinese_in_another_script(text, language, script, policy, found):
    assert apply_policy(text, language, script, policy) == found


def test_an_unknown_policy_is_refused_with_those_there_are():
    assert [check_policy(policy) for policy in POLICIES] == list(POLICIES)
    with pytest.raises(ConfigError) as caught:
        check_policy("convert:latin")
    assert "convert:hans" in caught.value.mend
    with pytest.raises(ConfigError):
        convert("字", "latin")


@given(st.text(max_size=200))
@settings(deadline=None, max_examples=100)
def test_any_text_converts_line_by_line(text):
    assert convert(text, "hans").count("\n") == text.count("\n")
