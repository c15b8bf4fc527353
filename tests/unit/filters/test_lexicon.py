"""Word lists are data: found whatever the case, the width and the spaces; a list that is wrong is named."""

from __future__ import annotations

import pyarrow as pa
import pytest

from pipelines.datasets.reasons import REASONS
from pipelines.errors import ConfigError
from pipelines.filters.lexicon import compile_lists, parse_list, read_lists, versions
from pipelines.filters.lines import BUILT_IN
from pipelines.filters.reader import flagged_lines, line_reasons, read_facts


def _lexicon(*lists: str):
    return compile_lists(tuple(parse_list(text, f"{n}.txt") for n, text in enumerate(lists)))


def _head(name: str, **keys: str) -> str:
    keys = {"version": "1", "use": "density", "source": "a test", **keys}
    return "".join(f"# {key}: {value}\n" for key, value in {"name": name, **keys}.items())


def test_phrases_are_found_whatever_the_case_the_width_and_the_spaces():
    lexicon = _lexicon(_head("mill") + "Mill Wheel\n磨坊\nC++\n")
    facts = read_facts(
        pa.array(["A MILL  wheel and a mill-wheel", "磨 坊，磨坊", "ｍｉｌｌ ｗｈｅｅｌ", "windmill wheels", "c++"]),
        lexicon,
    )
    assert facts.listed("mill").tolist() == [1, 2, 1, 0, 1]
    assert facts.listed("mill", "units").tolist() == [2, 4, 2, 0, 1]


def test_hits_of_one_list_do_not_overlap_and_lists_do_not_hide_each_other():
    lexicon = _lexicon(_head("a") + "x y\nx y z\n", _head("b") + "y z\n")
    facts = read_facts(pa.array(["x y z x y", "x x y z"]), lexicon)
    assert facts.listed("a").tolist() == [2, 1] and facts.listed("a", "distinct").tolist() == [2, 1]
    assert facts.listed("b").tolist() == [1, 1]


def test_distinct_entries_are_counted_anew_for_every_text():
    lexicon = _lexicon(_head("a") + "x\ny\n")
    facts = read_facts(pa.array(["x x y", "x x", "x y"]), lexicon)
    assert facts.listed("a", "distinct").tolist() == [2, 1, 2]


def test_a_list_of_lower_case_words_leaves_capitals_alone():
    facts = read_facts(pa.array(["The the THE"]), _lexicon(_head("a", case="lower") + "the\n"))
    assert facts.listed("a").tolist() == [1]


@pytest.mark.parametrize(
    ("place", "flagged"),
    [
        ("begin", ["share this page", "- share it", "share: all", "share", "share | share"]),
        ("end", ["please share", "12 share", "share", "share | share"]),
        ("whole", ["share", "share | share"]),
        ("counter", ["12 share"]),
        ("label", ["share: all", "share"]),
        (
            "anywhere",
            ["share this page", "- share it", "please share", "share: all", "share", "12 share", "share | share"],
        ),
    ],
)
def test_a_line_is_flagged_where_its_list_says(place, flagged):
    lines = [
        "share this page",
        "- share it",
        "please share",
        "share: all",
        "share",
        "12 share",
        "share | share",
        "none",
    ]
    lines += ["a long line of words that nothing flags at all here"] * 10
    lexicon = _lexicon(_head("line_x", use="line", place=place, longest="20") + "share\n")
    text = "\n".join(lines)
    found = [text[row[4] : row[5]] for row in flagged_lines(pa.array([text]), lexicon).tolist()]
    assert set(found) == set(flagged)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("# name: a\n# version: 1\n# use: density\nx", "source"),
        (_head("a", use="lines") + "x", "lines"),
        (_head("a", place="middle") + "x", "middle"),
        (_head("a") + "x" * 101, "characters"),
    ],
)
def test_a_list_that_is_wrong_is_named_with_its_mend(text, says):
    with pytest.raises(ConfigError, match=says) as caught:
        parse_list(text, "a.txt")
    assert caught.value.mend


def test_lists_that_ship_have_versions_sources_and_reasons():
    assert set(versions().values()) >= {1}
    for each in read_lists():
        assert each.source != "x" and each.phrases
        assert each.use != "line" or each.name in REASONS
    assert line_reasons()[1 : len(BUILT_IN) + 1] == BUILT_IN
