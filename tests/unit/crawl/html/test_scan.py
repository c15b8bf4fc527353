from __future__ import annotations

import html
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.crawl.html.scan import BOLD, LINKED, LINKS, OK, REASONS, TAG_ID, Limits, Scan, scan
from pipelines.crawl.html.tables import TAGS, categories, tables


def texts(page: Scan) -> list[str]:
    raw = page.text.tobytes()
    return [raw[a:b].decode() for a, b in page.blocks[:, :2].tolist()]


def tag_of(page: Scan, block: int) -> str:
    return TAGS[page.nodes[page.blocks[block, 2], TAG_ID]]


def test_each_block_level_element_ends_a_block():
    page = scan(b"<p>one <b>two</b> three<div>four</div>five<br>six<ul><li>a<li>b</ul>")
    assert texts(page) == ["one two three", "four", "five", "six", "a", "b"]
    assert [tag_of(page, n) for n in range(6)] == ["p", "div", "?", "?", "li", "li"]


def test_white_space_folds_to_one_space_and_pre_keeps_it():
    page = scan("<p>a \n\t b&nbsp;&#32;c　d<pre>x\n  y</pre>".encode())
    assert texts(page) == ["a b c d", "x\n  y"]


@pytest.mark.parametrize("name", ["amp", "copy", "hellip", "mdash", "Eacute", "zwnj", "nGt"])
def test_named_characters_read_as_the_standard_says(name):
    assert texts(scan(f"<p>x&{name};y".encode())) == [f"x{html.unescape(f'&{name};')}y"]


def test_numeric_characters_and_what_is_no_reference():
    page = scan(b"<p>&#20013;&#x6587; &#150; AT&T &notaname; a&b &#xD800;. 1 < 2")
    assert texts(page) == ["中文 – AT&T &notaname; a&b . 1 < 2"]


def test_scripts_styles_comments_and_hidden_elements_give_no_text():
    page = scan(
        b"<style>p{}</style><p>a<script>if (1<2) write('<p>x')</script>b<!-- <p>c --><svg><text>d</text></svg>e"
    )
    assert "".join(texts(page)).replace(" ", "") == "abe"


def test_the_title_lies_outside_the_blocks():
    page = scan(b"<html><head><title>A &amp; b\n c</title></head><body><p>x")
    assert page.text[page.title[0] : page.title[1]].tobytes() == b"A & b c"
    assert texts(page) == ["x"]


def test_a_link_that_is_never_ended_does_not_make_the_page_a_link():
    page = scan(
        b"<div><a href=/x>" + b"<p>" + b"plain words here " * 20 + b"<p>" + b"more of them " * 40 + b"<p>last one"
    )
    assert page.blocks[0, LINKED] > 0
    assert page.blocks[-1, LINKED] == 0


def test_what_stands_in_noscript_is_text_only_where_there_is_next_to_no_other():
    story = b"<noscript><p>" + b"A page for readers without scripts. " * 30 + b"</noscript>"
    assert texts(scan(b"<body><div>loading</div>" + story))[1].startswith("A page for readers")
    assert len(texts(scan(b"<body><p>" + b"The page itself. " * 40 + story))) == 1
    assert texts(scan(b"<body><p>Hello<noscript><p>Please turn scripts on</noscript>")) == ["Hello"]


def test_an_anchor_without_address_is_no_link_and_ends_one():
    page = scan(b"<p><a name=top>plain words<p><a href=/x>linked words<a name=y>plain")
    assert page.blocks[:, LINKED].tolist()[0] == 0
    assert page.blocks[1, LINKED] == len("linkedwords")  # bytes that are not white space, give or take spaces
    assert page.blocks[:, LINKS].tolist() == [0, 1]


def test_an_end_tag_never_reaches_out_of_its_cell():
    page = scan(b"<div><table><tr><td>a</div>b<td>c</table>d</div>e")
    assert texts(page) == ["a", "b", "c", "d", "e"]
    assert tag_of(page, 1) == "td"
    assert tag_of(page, 3) == "div"


def test_a_formula_keeps_its_tex():
    page = scan(b"<p>so <math><mi>x</mi><annotation encoding='application/x-tex'>x^2</annotation></math> so")
    assert texts(page) == ["so $x^2$ so"]


def test_bits_of_class_words_follow_word_borders():
    page = scan(b"<div class='shadow header-x'>a</div><div class='box ads'>b</div><div id='mainContent'>c</div>")
    ad, content = (1 << categories("attributes").index(n) for n in ("ad", "content"))
    masks = [int(page.masks[page.blocks[n, 2]]) for n in range(3)]
    assert [bool(m & ad) for m in masks] == [False, True, False]
    assert masks[2] & content


def test_bold_is_counted_within_its_block():
    page = scan(b"<p><b>abc</b>de<p>fgh")
    assert page.blocks[:, BOLD].tolist() == [3, 0]


@pytest.mark.parametrize(
    ("page", "reason", "value"),
    [
        (b"<div>" * 600, "too_deep", 501),
        (b"<p " + b"a=1 " * 1200 + b">x", "too_many_attributes", 1200),
        (b"<b>" * 101_000, "too_many_tags", 100_001),
    ],
)
def test_bounds_hold_with_the_value_that_broke_them(page, reason, value):
    found = scan(page)
    assert (REASONS[found.status], found.value) == (reason, value)


def test_five_megabytes_of_anything_take_linear_time():
    scan(b"<p>warm")
    for piece in (
        b"<",
        b"<a ",
        b"&amp",
        b"<!--",
        b"</p",
        b"<p>",
        b"<script>",
        b"<li>",
        b"<a href=x>",
        b"<td><table>",
        b"&#x",
        b"\xe3\x80\x80",
    ):
        page = piece * (5_000_000 // len(piece))
        started = time.process_time()
        scan(page, Limits(tags=3_000_000))
        assert time.process_time() - started < 5, piece


@settings(max_examples=300, deadline=None)
@given(
    st.lists(
        st.sampled_from(
            [
                "<",
                ">",
                "/",
                "p",
                "td",
                "table",
                "a href=x",
                "=",
                "'",
                '"',
                "&",
                "&lt;",
                "title",
                "pre",
                "math",
                "li",
                " ",
                "中",
                "é",
                "!--",
                "-->",
                "script",
                "\n",
                "\0",
            ]
        ),
        max_size=60,
    )
)
def test_no_markup_breaks_the_pass_and_every_block_has_text(pieces):
    page = scan("".join(pieces).encode())
    assert page.status == OK
    for text in texts(page):
        assert text.strip()
    assert (page.blocks[:, 2] < len(page.nodes)).all()
    assert (page.nodes[:, 3] <= page.nodes[:, 4]).all()


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=300))
def test_bytes_that_are_no_text_break_nothing(body):
    scan(body)


def test_every_tag_and_entity_is_found_in_its_table():
    known = tables()
    assert int((known.tag_keys > 0).sum()) == len(TAGS) - 1
    assert int((known.entity_keys > 0).sum()) > 2_100
