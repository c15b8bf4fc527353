"""Measures are columns: safe on anything, the same however a batch is cut."""

from __future__ import annotations

import math

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.filters.measures import MEASURE_SCHEMA, MEASURES, measure

ENGLISH = "The stones turn slowly.\nAnd with them the grain becomes flour...\n- a list\nno end here # mark"
CHINESE = "磨盘缓缓转动，谷物变成面粉。\n这样的门店还有几家……\n· 列表\n没有句号"
GOLDEN = {
    "text.characters": (74.0, 32.0),
    "text.words": (17.0, 27.0),
    "text.unspaced_fraction": (0.0, 1.0),
    "gopher.mean_word_length": (4.0, 1.0),
    "gopher.symbol_word_ratio": (0.0476, 0.0914),
    "gopher.bullet_line_fraction": (0.25, 0.25),
    "gopher.ellipsis_line_fraction": (0.25, 0.25),
    "gopher.stop_words": (2.0, 0.0),
    "gopher.letter_word_fraction": (0.8095, 0.7714),
    "fineweb.line_end_fraction": (0.5, 0.5),
    "fineweb.short_line_fraction": (0.75, 0.5),
}
texts = st.lists(st.one_of(st.none(), st.text(max_size=80), st.text(alphabet="ab \n磨坊。", max_size=80)), max_size=6)


def test_golden_values_of_an_english_and_a_chinese_text():
    table = measure(pa.array([ENGLISH, CHINESE]))
    assert {name: tuple(table[name].to_pylist()) for name in GOLDEN} == GOLDEN


@given(texts, st.integers(0, 6))
@settings(deadline=None, max_examples=80)
def test_a_batch_may_be_cut_anywhere(values, at):
    whole = measure(pa.array(values, pa.string()))
    parts = [measure(pa.array(values[:at], pa.string())), measure(pa.array(values[at:], pa.string()))]
    assert whole.equals(pa.concat_tables(parts).combine_chunks())
    assert whole.equals(measure(pa.chunked_array([values[:at], values[at:]], pa.string())))


@given(st.one_of(st.none(), st.text(max_size=200)))
@settings(deadline=None, max_examples=150)
def test_every_measure_of_any_text_is_a_number_on_the_grid(text):
    (row,) = measure(pa.array([text], pa.string())).to_pylist()
    for name, value in row.items():
        assert math.isfinite(value) and value >= 0 and value == round(value, 4), name
        if name.endswith("_fraction") or name.endswith("_gram"):
            assert value <= 1, name


@pytest.mark.parametrize("text", [None, "", " \n \u3000\n"])
def test_an_empty_text_measures_zero(text):
    (row,) = measure(pa.array([text], pa.string())).to_pylist()
    assert set(row.values()) == {0.0}


def test_no_rows_keep_the_schema():
    table = measure(pa.array([], pa.string()))
    assert (table.num_rows, table.schema) == (0, MEASURE_SCHEMA)


def test_large_strings_and_chunks_are_read_too():
    assert measure(pa.array([ENGLISH], pa.large_string())).equals(measure(pa.array([ENGLISH])))


def test_a_very_long_text_is_measured_in_bounded_time_by_its_head():
    long = measure(pa.array(["磨" * 2_000_000])).to_pylist()[0]
    assert long["text.characters"] == 2_000_000
    assert long["text.words"] == 200_000


def test_names_are_family_and_score():
    assert all(len(name.split(".")) == 2 for name in MEASURES)


def test_bytes_that_are_no_utf8_and_a_text_cut_in_a_character_are_measured_without_reading_on():
    bad = pa.array([b"\xff\xfe\xe4\xb8", b"ab\xf0\x9f\x98", "磨坊".encode()[:4], b"\xc3"], pa.binary()).view(
        pa.string()
    )
    assert measure(bad)["text.words"].to_pylist() == [0.0, 1.0, 1.0, 0.0]


def test_a_slice_of_an_array_is_measured_from_its_own_start():
    array = pa.array(["x" * 50, None, ENGLISH, CHINESE])
    assert measure(array[2:]).equals(measure(pa.array([ENGLISH, CHINESE])))


def test_lines_without_an_end_but_with_sentences_are_prose():
    text = "他把门关上了。灯还亮着，没有人在" * 2
    table = measure(pa.array([text, "菜单 首页 新闻 体育 财经 娱乐 科技"]))
    assert table["text.prose_fraction"].to_pylist() == [1.0, 0.0]
