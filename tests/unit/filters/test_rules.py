"""Rules read stored measures, name the first bound that is broken, and leave a document at the bound."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.errors import ConfigError
from pipelines.filters.measures import MEASURE_SCHEMA, measure
from pipelines.filters.rules import (
    VERDICT_SCHEMA,
    broken_rules,
    default_rules,
    first_broken_rule,
    parse_rules,
    with_bounds,
)

GOOD = {
    "en": """The mill stands where two streams meet, half a mile below the village.
Its wheel was built of oak in the year of the great flood, and nobody has found a reason to replace it.
Every morning the miller opens the sluice, listens for a moment, and goes inside to look at the stones.
They must be dressed twice a year with a steel pick, a job that takes four days and leaves dust in your hair.
Farmers bring wheat in autumn, rye a little later, and sometimes buckwheat that has to be husked first.
What they take home is warm to the touch and smells faintly of stone.""",
    "zh": """磨坊坐落在两条小溪汇合的地方，离村子大约一里路。
水轮是发大水那一年用橡木造的，至今没有人觉得需要更换。
每天清晨，掌柜先打开闸门，侧耳听一会儿，才进屋查看石磨。
石磨每年要用钢钎修整两次，前后四天，弄得满头都是灰尘。
农户秋天送来小麦，稍晚送来黑麦，偶尔还有一袋要先去壳的荞麦。
带回家的面粉摸上去温热，闻起来有一点石头的味道。""",
}


def _rows(*rows: dict[str, float | None]) -> pa.Table:
    neutral = measure(pa.array([GOOD["en"]])).to_pylist()[0]
    return pa.Table.from_pylist([{**neutral, **row} for row in rows], schema=MEASURE_SCHEMA)


def _reasons(table: pa.Table, languages: list[str | None], rules=None, source_type="web") -> list[str | None]:
    types = pa.array([source_type] * len(languages))
    found = first_broken_rule(table, pa.array(languages, pa.string()), rules or default_rules(), types)
    assert found.schema == VERDICT_SCHEMA
    return found["reason"].to_pylist()


@pytest.mark.parametrize("language", GOOD)
def test_a_plain_page_breaks_no_rule(language):
    assert _reasons(measure(pa.array([GOOD[language]])), [language]) == [None]


@pytest.mark.parametrize(
    ("text", "language", "reason"),
    [
        ("Too short.", "en", "too_short"),
        ("太短。", "zh", "too_short"),
        ("Buy the watches of today. " * 60, "en", "frequent_ngram"),
        ("点击这里领取大奖。" * 60, "zh", "frequent_ngram"),
        (
            "Dolor sit amet, consectetur adipiscing elit, sed do eiusmod tempor incididunt ut labore. "
            "Dolore magna aliqua. Ut enim ad minim veniam, quis nostrud exercitation ullamco laboris nisi aliquip. "
            "Ea commodo consequat. Duis aute irure in reprehenderit voluptate velit esse cillum eu fugiat nulla. "
            "Excepteur sint occaecat cupidatat non proident, sunt culpa qui officia deserunt mollit anim laborum.",
            "en",
            "filler_text",
        ),
        (
            " ".join(f"Item{n} stone wheel grain number {n} red, green or blue." for n in range(40)),
            "en",
            "few_stop_words",
        ),
        ("\n".join(f"Punkt{n} Zeile{n * 7} Wert{n * n}" for n in range(60)), "de", "short_lines"),
        ("\n".join(f"- 菜单项目{n}" for n in range(60)), "zh", "bullet_lines"),
        (GOOD["en"] + "\nLorem  Ipsum dolor.", "en", "filler_text"),
        ("\n".join([GOOD["en"]] * 3), "en", "duplicate_lines"),
        ("1234 5678 90,12. " * 40, "en", "few_letters"),
    ],
)
def test_junk_is_named_by_its_first_reason(text, language, reason):
    table = measure(pa.array([text]))
    found = first_broken_rule(table, pa.array([language]), default_rules()).to_pylist()[0]
    assert found["reason"] == reason
    assert found["value"] == table[found["column"]][0].as_py() != found["threshold"]


def _broken(table: pa.Table, rule, source_type=None) -> np.ndarray:
    language, kind = (rule.languages or ("fr",))[0], source_type or rule.types[-1]
    two = [pa.array([value] * table.num_rows) for value in (language, kind)]
    return broken_rules(table, two[0], (rule,), two[1], action=rule.action)[rule.name]


@pytest.mark.parametrize("rule", default_rules(), ids=lambda rule: f"{rule.name} {rule.types}")
def test_a_document_at_the_bound_stays_and_one_step_beyond_goes(rule):
    step = -1e-4 if rule.side == "min" else 1e-4
    for unspaced, bound in ((0.0, rule.spaced), (1.0, rule.unspaced)):
        base = {"text.unspaced_fraction": unspaced}
        if bound is None:
            table = _rows({**base, rule.column: -1e9}, {**base, rule.column: 1e9})
            assert not _broken(table, rule).any()
            continue
        table = _rows({**base, rule.column: bound}, {**base, rule.column: bound + step})
        assert _broken(table, rule).tolist() == [False, True]
        assert not _broken(table, rule, source_type="none").any()


def test_a_rule_for_a_language_leaves_others_and_unknown_alone():
    table = _rows(*[{"gopher.stop_words": 0.0}] * 3)
    assert _reasons(table, ["en", "fr", None]) == ["few_stop_words", None, None]


def test_a_null_measure_breaks_no_rule():
    assert _reasons(_rows(dict.fromkeys(MEASURE_SCHEMA.names)), ["en"]) == [None]


@given(st.lists(st.sampled_from([*GOOD.values(), "短", "x " * 99, ""]), max_size=6), st.integers(0, 6))
@settings(deadline=None, max_examples=40)
def test_verdicts_do_not_depend_on_how_rows_are_batched(values, at):
    table, languages = measure(pa.array(values, pa.string())), ["zh"] * len(values)
    whole = _reasons(table, languages)
    assert whole == _reasons(table[:at], languages[:at]) + _reasons(table[at:], languages[at:])


def test_bounds_move_by_name_and_a_null_takes_a_rule_out():
    rules = with_bounds(default_rules(), {"text.characters.min": 10_000})
    assert _reasons(measure(pa.array([GOOD["en"]])), ["en"], rules) == ["too_short"]
    rules = with_bounds(default_rules(), {"text.characters.min": None, "text.words.min": None})
    assert {r.name for r in default_rules()} - {r.name for r in rules} == {"text.characters.min", "text.words.min"}
    with pytest.raises(ConfigError, match="no_such") as caught:
        with_bounds(default_rules(), {"text.character.no_such": 1})
    assert "text.characters.min" in caught.value.mend


@pytest.mark.parametrize(
    ("yaml", "says"),
    [
        ("rules: [", "no YAML"),
        ("rules: []", "format"),
        ("format: gristmill.thresholds/1\nrules: [7]", "7"),
        ("format: gristmill.thresholds/1\nrules: [{reason: a, colum: b}]", "colum"),
        (
            "format: gristmill.thresholds/1\nrules: [{reason: a, column: text.words, side: min, spaced: 1}]",
            "source",
        ),
        (
            "format: gristmill.thresholds/1\nrules: [{reason: a, column: text.words, side: min, source: x}]",
            "spaced",
        ),
        (
            "format: gristmill.thresholds/1\nrules: [{reason: a, column: text.wrds, side: min, spaced: 1, source: x}]",
            "text.wrds",
        ),
        (
            "format: gristmill.thresholds/1\nrules: [{reason: a, column: text.words, side: mid, spaced: 1, source: x}]",
            "mid",
        ),
        (
            "format: gristmill.thresholds/1\nrules: [{reason: a, column: text.words, side: min, spaced: 1, source: x,"
            " action: keep}]",
            "keep",
        ),
        (
            "format: gristmill.thresholds/1\nrules: [{reason: a, column: text.words, side: min, spaced: 1, source: x,"
            " types: [blog]}]",
            "blog",
        ),
        (
            "format: gristmill.thresholds/1\nrules: [{reason: a, column: text.words, side: min, spaced: 1, source: x},"
            " {reason: b, column: text.words, side: min, spaced: 2, source: x}]",
            "twice",
        ),
    ],
)
def test_a_typo_in_the_rules_is_named_with_its_mend(yaml, says):
    with pytest.raises(ConfigError, match=says) as caught:
        parse_rules(yaml)
    assert caught.value.mend


def test_a_rule_that_marks_drops_nothing():
    table = _rows({"gopher.dup_6_gram": 0.9})
    assert _reasons(table, ["en"]) == [None]
    marks = broken_rules(table, pa.array(["en"]), default_rules(), pa.array(["web"]), action="mark")
    assert marks["gopher.dup_6_gram.max.mark"].tolist() == [True]


@pytest.mark.parametrize(("source_type", "reason"), [("web", "too_short"), ("qa", None), (None, "too_short")])
def test_what_is_asked_of_a_web_page_is_not_asked_of_an_answer(source_type, reason):
    assert _reasons(
        measure(pa.array(["Turn the wheel by hand until it moves freely."])), ["en"], None, source_type
    ) == [reason]


def test_code_is_judged_as_code_and_not_as_prose():
    code = "def turn(wheel):\n    return wheel + 1\n\n" * 4 + "print(turn(3))\n"
    long = code + "x = [" + "1, " * 2000 + "]\n"
    assert _reasons(measure(pa.array([code, long])), [None, None], None, "code") == [None, "long_lines"]


def test_every_reason_has_a_source_and_a_measure():
    for rule in default_rules():
        assert rule.source and rule.column in MEASURE_SCHEMA.names
