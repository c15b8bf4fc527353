"""A page gives its main text, or a reason; hostile pages give the reason before any parser sees them."""

from __future__ import annotations

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.crawl.extract import clean_text, extract_html
from pipelines.crawl.shape import PageBounds, first_broken_bound, without_large_scripts

ARTICLE = (
    "<html><head><title>The mill</title>"
    "<meta property='article:published_time' content='2024-03-05'></head><body>"
    "<nav><a href='/'>Home</a> <a href='/x'>Contact</a></nav><article><h1>The mill</h1>"
    + "".join(
        f"<p>Paragraph {n}: the stones turn slowly and the grain becomes flour, as it always has.</p>" for n in range(8)
    )
    + "</article><footer>Copyright</footer></body></html>"
)
CHINESE = (
    "<html><head><title>磨坊</title></head><body><div class='content'><h1>磨坊</h1>"
    + "".join(f"<p>第{n}段：磨盘缓缓转动，谷物变成面粉，一直以来都是这样，没有人觉得奇怪。</p>" for n in range(8))
    + "</div><div class='footer'>版权所有</div></body></html>"
)


def test_text_title_and_date_come_out_and_navigation_does_not():
    page = extract_html(ARTICLE.encode(), url="https://mill.example/a")
    assert page.reason is None
    assert page.text.count("the stones turn slowly") == 8
    assert "Contact" not in page.text
    assert (page.title, page.date) == ("The mill", "2024-03-05")


def test_chinese_pages_come_out_in_any_charset():
    texts = {extract_html(CHINESE.encode(c), content_type="text/html; charset=gb2312").text for c in ("utf-8", "gbk")}
    assert len(texts) == 1 and texts.pop().count("磨盘缓缓转动") == 8


def test_a_date_after_the_capture_is_not_believed():
    assert extract_html(ARTICLE.encode(), captured="2023-01-01").date is None


@pytest.mark.parametrize(
    ("html", "reason"),
    [
        ("<div>" * 20_000 + "x", "too_deep"),
        ("<table><tr><td>" * 3_000 + "x", "too_deep"),
        ("<p " + " ".join(f"a{n}=1" for n in range(50_000)) + ">x</p>", "too_many_attributes"),
        ("<p " + " ".join(f"a{n}" for n in range(50_000)) + ">x</p>", "too_many_attributes"),
        ("<p title='>' x=\"'\" " + "".join(f"/a{n}" for n in range(50_000)), "too_many_attributes"),
        ("<br>" * 300_000, "too_many_tags"),
        ("x" * (6 << 20), "too_long"),
        ("", "empty"),
        (" \0\n ", "empty"),
    ],
)
def test_hostile_pages_are_refused_before_they_are_parsed(html, reason):
    started = time.process_time()
    page = extract_html(html.encode())
    assert (page.text, page.reason) == ("", reason)
    assert time.process_time() - started < 2


def test_depth_that_only_a_tree_has_is_a_bound_of_the_engine_that_builds_one():
    html = ("<b><i>" * 9_000 + "x").encode()
    assert extract_html(html, engine="trafilatura").reason == "too_deep"
    assert extract_html(html).text == "x"


def test_a_huge_script_is_emptied_and_the_page_stays():
    script = '<script type="application/ld+json">' + '"author":"' * 200_000 + "</SCRIPT >"
    started = time.process_time()
    page = extract_html(ARTICLE.replace("<nav>", script + "<nav>").encode())
    assert time.process_time() - started < 3
    assert page.text == extract_html(ARTICLE.encode()).text
    assert (
        without_large_scripts("<script>abc</script><script >abcd</script>x", 3)
        == "<script>abc</script><script ></script>x"
    )
    assert without_large_scripts("<script>abcd", 3) == "<script>"
    for unit in ("<script", "<script>", "<script x='", "</script"):
        without_large_scripts(unit * 100_000, 10)
    assert time.process_time() - started < 5


def test_closing_tags_that_close_nothing_do_not_hide_depth():
    html = "<div></x></p></span>" * 600
    assert first_broken_bound(html, PageBounds()) == ("too_deep", 501, 500)


def test_what_stands_in_comments_scripts_and_values_is_no_tag():
    html = "<!-- " + "<div>" * 900 + "--><script>" + "<div>" * 900 + "</script><p title='" + "<div>" * 900 + "'>x</p>"
    assert first_broken_bound(html, PageBounds()) is None


def test_a_page_at_a_bound_stays():
    assert first_broken_bound("<div>" * 500, PageBounds()) is None
    assert first_broken_bound("<p " + "a " * 1000 + ">", PageBounds()) is None
    assert first_broken_bound("<p " + "aa " * 1001 + ">", PageBounds()) == ("too_many_attributes", 1001, 1000)


@pytest.mark.parametrize(
    "unit", ['<a x="', "<a x='", "<!--", "<a ", "<", "</", "<a x=", "<script>", "<a x=\"'", "<!", '</a x="']
)
def test_the_look_ahead_is_linear_on_unclosed_markup(unit):
    started = time.process_time()
    first_broken_bound(unit * ((1 << 20) // len(unit)), PageBounds(tags=10**9, depth=10**9, attributes=10**9))
    assert time.process_time() - started < 4


def test_text_has_no_control_characters_and_is_normal():
    assert clean_text("a\0b\x1b[31m \r\n\r\n\r\ne\u0301 \ud800") == "ab[31m\n\né"


def test_nul_bytes_and_lone_surrogates_in_a_page_do_not_reach_the_text():
    html = ARTICLE.replace("slowly", "slo\0wly &#xD800;&#0;").encode("utf-8")
    text = extract_html(html).text
    assert text.encode("utf-8") and "\0" not in text


@given(st.binary(max_size=500))
@settings(deadline=None, max_examples=60)
def test_any_bytes_give_a_page(body):
    page = extract_html(b"<html><body><p>" + body)
    assert bool(page.text) == (page.reason is None)
    assert page.text.encode("utf-8") is not None
