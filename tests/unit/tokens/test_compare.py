import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.errors import InputError
from pipelines.tokens.compare import as_markdown, as_svg, compare
from pipelines.tokens.vocabularies import ComparedTokenizer, read_tokenizer


def letters(name="letters"):
    """A token a character, its code point; those beyond ASCII count as bytes."""
    return ComparedTokenizer(
        name=name, size=300, encode=lambda texts: [[min(ord(c), 299) for c in text] for text in texts],
        byte_ids=frozenset(range(128, 300)),
    )  # fmt: skip


def test_the_figures_are_counted_by_group_and_over_all():
    rows = compare({"zh": ["中文 a", "文"], "en": ["ab cd"]}, [letters()])
    zh, en, both = rows
    assert (zh["group"], en["group"], both["group"]) == ("zh", "en", "all")
    assert (zh["characters"], zh["bytes"], zh["words"], zh["tokens"]) == (5, 11, 4, 5)
    assert zh["tokens_per_character"] == 1.0 and zh["bytes_per_token"] == 2.2 and zh["fertility"] == 1.25
    assert zh["byte_share"] == 0.6 and en["fertility"] == 2.5 and en["byte_share"] == 0.0
    assert both["tokens"] == 10 and both["rare_share"] == 1.0 and both["vocabulary_used"] == round(6 / 300, 4)


def test_a_token_met_often_is_not_rare():
    (_, row) = compare({"en": ["aaaaaaab"]}, [letters()])
    assert row["rare_share"] == 0.125


def test_no_text_at_all_gives_noughts():
    assert all(row["tokens_per_character"] == 0.0 for row in compare({"zh": []}, [letters()]))


@given(st.text(max_size=20), st.text(max_size=20))
def test_the_table_and_the_plot_hold_any_name(group, name):
    rows = compare({group: ["ab"]}, [letters(name)])
    assert as_markdown(rows).count("\n") >= 4
    assert as_svg(rows).count("<rect") == 3 and "<script" not in as_svg(rows)


def test_ranks_of_tiktoken_merge_as_they_say(tmp_path):
    tokens = [bytes([i]) for i in range(256)] + [b"ab", b"abc", b" a", b"\xe4\xb8", b"\xe4\xb8\xad"]
    path = tmp_path / "x.tiktoken"
    path.write_bytes(b"".join(base64.b64encode(t) + b" %d\n" % i for i, t in enumerate(tokens)))
    read = read_tokenizer("x", path)
    assert read.size == 261 and read.encode(["abcab", "a 12", "中"]) == [[257, 256], [97, 32, 49, 50], [260]]
    assert len(read.byte_ids) == 128


def test_a_pointer_or_something_else_is_refused(tmp_path):
    for name, body in (("a.model", b"version https://git-lfs"), ("a.json", b"<html>"), ("a.tiktoken", b"")):
        (tmp_path / name).write_bytes(body)
        with pytest.raises(InputError):
            read_tokenizer("a", tmp_path / name)
    with pytest.raises(InputError, match="nothing"):
        read_tokenizer("a", tmp_path / "nothing.json")
