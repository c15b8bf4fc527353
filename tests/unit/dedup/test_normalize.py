import unicodedata

import numpy as np
import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.dedup.normalize import fold_table, normal_forms

TEXT = st.text(
    alphabet=st.one_of(
        st.sampled_from("aZ9 .,!，。　ＡＢ１中文測試かなカナｱ한국어ไทยßẞİΣéأ\u00ad\u200b\ufeff\n\t😀𠮷𝒳-—'"),
        st.characters(blacklist_categories=("Cs",)),
    ),
    max_size=60,
)


def form(text):
    return normal_forms(pa.array([text], pa.string()))[0].as_py()


def reference(text):
    """The definition again, character by character, with the standard library alone."""
    folded, unspaced, letters = [], 0, 0
    table = fold_table()
    for character in text:
        code = ord(character)
        if code >= 0x10000:
            if 0x1F000 <= code <= 0x1FAFF:
                folded.append(" ")
            elif code < 0xE0000:
                folded.append(character)
                letters += 1
                unspaced += 0x20000 <= code <= 0x3FFFF
            continue
        value = int(table[code])
        if value == 1 << 29:
            continue
        folded.append(chr(value & 0x1FFFFF) if value else " ")
        letters += value >> 30 & 1
        unspaced += value >> 31
    words = "".join(folded).split(" ")
    return ("" if unspaced and unspaced >= letters / 4 else " ").join(word for word in words if word)


def test_case_width_and_punctuation_are_folded_away():
    assert form("Ｈｅｌｌｏ, WORLD!") == "hello world"
    assert form("don't") == "don t"


def test_chinese_and_japanese_lose_their_spaces():
    assert form("中 文，测试 ABC。") == "中文测试abc"
    assert form("日本語 カタカナ ｱｲ") == "日本語カタカナアイ"


def test_korean_keeps_its_spaces_and_thai_loses_them():
    assert form("한국어 문서") == "한국어 문서"
    assert form("ภาษา ไทย") == "ภาษาไทย"


def test_an_english_page_that_quotes_chinese_keeps_its_spaces():
    assert form("the word 中文 means the Chinese language") == "the word 中文 means the chinese language"


def test_soft_hyphens_and_marks_of_order_do_not_split_a_word():
    assert form("\ufeffco\u00adop\u200berate") == "cooperate"


def test_null_and_punctuation_have_an_empty_form():
    assert normal_forms(pa.array([None, "", " \n!?。", "😀"])).to_pylist() == ["", "", "", ""]
    assert normal_forms(pa.array([], pa.string())).to_pylist() == []


def test_every_character_class_is_that_of_the_frozen_unicode_database():
    table = fold_table()
    for code in {*range(0x20, 0x3000)} - {0x00AD, 0x200B}:
        if unicodedata.ucd_3_2_0.category(chr(code))[0] in "PSZ":
            assert table[code] == 0, hex(code)
    assert (table[0xE000:0xF8FF] != 0).all()


def test_folding_twice_is_folding_once():
    table = fold_table()
    kept = table[(table != 0) & (table != 1 << 29)]
    codes = kept & np.uint32(0x1FFFFF)
    assert (table[codes] == kept).all()


@settings(deadline=None)
@given(TEXT)
def test_the_kernel_gives_the_form_of_the_definition(text):
    assert form(text) == reference(text)


@settings(deadline=None)
@given(TEXT)
def test_a_normal_form_is_its_own_normal_form(text):
    assert form(form(text)) == form(text)


@settings(deadline=None)
@given(st.lists(st.one_of(st.none(), TEXT), max_size=8), st.integers(0, 8), st.integers(0, 8))
def test_a_batch_may_be_cut_anywhere(texts, start, length):
    whole = pa.array(texts, pa.string())
    assert (
        normal_forms(whole.slice(start, length)).to_pylist() == normal_forms(whole).to_pylist()[start : start + length]
    )
    chunks = pa.chunked_array([whole[:start], whole[start:]])
    assert normal_forms(chunks).equals(normal_forms(whole))
