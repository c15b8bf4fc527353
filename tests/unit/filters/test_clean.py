"""Cleaning takes lines and personal data out and leaves an account of every character."""

from __future__ import annotations

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.errors import ConfigError
from pipelines.filters.clean import CHANGE_SCHEMA, CleanRules, clean
from pipelines.filters.measures import measure

PAGE = "\n".join(
    [
        "首页",
        "磨坊坐落在两条小溪汇合的地方，离村子大约一里路，水轮是发大水那一年用橡木造的。",
        "每天清晨，掌柜先打开闸门，侧耳听一会儿，才进屋查看石磨，再把昨天的面粉装袋。",
        "来信请寄 zhang@example.com，或打电话 13800138000。",
        "责任编辑：张三",
        "上一篇：水轮的故事",
    ]
)
LINES = (
    "首页",
    "责任编辑：张三",
    "上一篇：水轮的故事",
    "3 likes",
    "一句正文在这里，说的是石磨和水轮的来历。",
    "Call 617-555-0108.",
    "a@example.com",
    "",
)


def _clean(texts, source_type="web", **rules):
    languages = ["zh"] * len(texts)
    return clean(pa.array(texts, pa.string()), languages, source_type=source_type, rules=CleanRules(**rules))


def test_boilerplate_lines_and_personal_data_go_and_the_account_says_where():
    done = _clean([PAGE])
    (text,) = done.texts.to_pylist()
    assert text == "\n".join(PAGE.split("\n")[1:4]).replace("zhang@example.com", "[email]").replace(
        "13800138000", "[phone]"
    )
    rows = {row["reason"]: row for row in done.changes.to_pylist()}
    assert set(rows) == {"line_navigation", "line_editor", "line_neighbours", "pii_email", "pii_cn_mobile"}
    low, high = map(int, rows["line_editor"]["detail"].split("-"))
    assert PAGE[low:high] == "责任编辑：张三"
    after_lines = "\n".join(PAGE.split("\n")[1:4])
    low, high = map(int, rows["pii_email"]["detail"].split("-"))
    assert after_lines[low:high] == "zhang@example.com"
    assert not any("zhang" in row["detail"] for row in rows.values())


def test_lines_of_code_books_and_answers_stay_but_personal_data_goes():
    for source_type in ("code", "book", "qa"):
        (text,) = _clean([PAGE], source_type).texts.to_pylist()
        assert "首页" in text and "[email]" in text


def test_nothing_is_done_where_nothing_is_asked_for():
    done = _clean([PAGE, None, ""], lines=False, pii=())
    assert done.texts.to_pylist() == [PAGE, None, ""] and done.changes.num_rows == 0
    assert done.changes.schema == CHANGE_SCHEMA


def test_a_page_that_is_mostly_boilerplate_is_left_for_the_rules_to_judge():
    text = "首页\n关于我们\n联系我们\n网站地图\n一句正文。"
    assert _clean([text]).texts.to_pylist() == [text]


def test_call_outs_go_only_where_they_are_few():
    few = "\n".join(["The mill stands where two streams meet, half a mile below the old village."] * 6 + ["3 likes"])
    many = "\n".join(["The mill stands."] * 6 + ["3 likes", "4 shares"])
    assert _clean([few, many]).texts.to_pylist() == [few.removesuffix("\n3 likes"), many]


@given(st.lists(st.one_of(st.none(), st.lists(st.sampled_from(LINES), max_size=14).map("\n".join)), max_size=5))
@settings(deadline=None, max_examples=150)
def test_characters_in_are_characters_out_and_characters_gone(texts):
    done = _clean(texts)
    assert len(done.texts) == len(texts) and done.texts.type == pa.string()
    gone = [0] * len(texts)
    for row in done.changes.to_pylist():
        gone[row["row"]] += row["characters"]
    assert measure(done.texts, done.facts).equals(measure(done.texts))
    for before, after, lost in zip(texts, done.texts.to_pylist(), gone, strict=True):
        assert (before is None) == (after is None)
        assert len(before or "") == len(after or "") + lost


def test_cleaning_twice_changes_nothing_more():
    once = _clean([PAGE]).texts
    again = clean(once, ["zh"], source_type="web", rules=CleanRules())
    assert again.texts.equals(once) and again.changes.num_rows == 0


def test_a_kind_that_is_not_known_is_refused():
    with pytest.raises(ConfigError, match="emial"):
        CleanRules(pii=("emial",))
