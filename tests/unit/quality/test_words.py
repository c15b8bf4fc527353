from hypothesis import given
from hypothesis import strategies as st

from pipelines.quality.words import MAX_CHARACTERS, words


def test_chinese_goes_by_characters_and_english_by_words():
    assert words("Hello 中文World，v2!\nかな") == "hello 中 文 world ， v2 ! か な"


def test_null_has_no_words():
    assert words(None) == words(" \n\t") == ""


@given(st.text(max_size=100))
def test_no_text_can_hold_a_label_or_a_second_line(text):
    line = words("__label__good " + text + " __label__bad")
    assert "__label__" not in line and "\n" not in line and "\r" not in line


def test_a_long_text_is_bounded():
    assert len(words("中" * 10 * MAX_CHARACTERS)) < 2 * MAX_CHARACTERS
