"""What a page declares of itself is found, within bounds."""

from __future__ import annotations

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.crawl.head import Head, read_head


def _page(head: str = "", body: str = "") -> str:
    return f"<!doctype html><html lang='zh-CN'><head>{head}</head><body>{body}</body></html>"


@pytest.mark.parametrize(
    ("head", "body", "title"),
    [
        ("<title>磨坊的一天 - 山谷新闻</title>", "", "磨坊的一天 - 山谷新闻"),
        ("<title>磨坊的一天 - 山谷新闻</title>", "<h1 class=x><a>磨坊的一天</a></h1>", "磨坊的一天"),
        ("<title>磨坊的一天_山谷新闻</title><meta property='og:title' content='磨坊的一天'>", "", "磨坊的一天"),
        ("<title>The mill | Valley News</title>", "<h1>Valley News</h1>", "The mill | Valley News"),
        ("<title>Valley News: The day the mill stood still</title>", "<h1>The day the mill stood still</h1>",
         "The day the mill stood still"),
        ("<title>The millers</title>", "<h1>The mill</h1>", "The millers"),
        ("<TITLE>Flour &amp; grain\n  today</TITLE>", "", "Flour & grain today"),
        ("<meta name=og:title content='Only here'>", "", "Only here"),
        ("", "<h1>Heading <em>only</em></h1>", "Heading only"),
        ("<!-- <title>no</title> --><script>'<title>no</title>'</script><title>yes</title>", "", "yes"),
        ("", "", None),
    ],
)  # fmt: skip
def test_a_page_has_its_title_without_the_site_where_something_confirms_it(head, body, title):
    assert read_head(_page(head, body)).title == title


@pytest.mark.parametrize(
    ("head", "body", "date"),
    [
        ("<meta property='article:published_time' content='2024-03-05T10:00:00+08:00'>", "", "2024-03-05"),
        ("<meta name=date content=2023-01-01><meta property=article:published_time content=2024-03-05>", "",
         "2024-03-05"),
        ("<meta name='PubDate' content='2012年1月16日'>", "", "2012-01-16"),
        ("<script type='application/ld+json'>{\"datePublished\": \"2021-07-01T00:00\"}</script>", "", "2021-07-01"),
        ("", "<span itemprop=datePublished content=2020-02-29>x</span>", "2020-02-29"),
        ("", "<span itemprop='datePublished'>May 6, 2019</span>", "2019-05-06"),
        ("", "<time datetime='2018-11-30T08:00'>x</time>", "2018-11-30"),
        ("", "<p>2016年8月9日 10:30 来源</p>", "2016-08-09"),
        ("", "<p>founded 2016年8月9日</p>", None),
        ("<meta name=date content='2999-01-01'>", "<time datetime=2018-11-30></time>", "2018-11-30"),
        ("<meta name=date content='2021-02-30'>", "", None),
    ],
)  # fmt: skip
def test_the_date_is_the_best_that_is_declared_and_not_after_the_latest(head, body, date):
    assert read_head(_page(head, body), latest="2026-11-03").date == date


def test_the_address_is_asked_last():
    url = "https://mill.example/2015/04/03/flour.html"
    assert read_head(_page(), url=url).date == "2015-04-03"
    assert read_head(_page(body="<time datetime=2014-01-01>"), url=url).date == "2014-01-01"


@pytest.mark.parametrize(
    ("head", "body", "licence"),
    [
        ("<link rel=license href='https://creativecommons.org/licenses/by-sa/4.0/'>", "", "CC-BY-SA-4.0"),
        ("<link rel='stylesheet' href=license.css>", "", None),
        ("", "<a rel='license noopener' href='http://creativecommons.org/licenses/by-nc/2.5/cn/'>x</a>",
         "CC-BY-NC-2.5"),
        ("", "<a href='//creativecommons.org/publicdomain/zero/1.0/'>x</a>", "CC0-1.0"),
        ("<meta name='dcterms.rights' content='CC BY 4.0'>", "", "CC-BY-4.0"),
        ("<meta name='rights' content='All rights reserved'>", "", None),
        ("", "<a rel=license href='https://mill.example/licence'>x</a>", "https://mill.example/licence"),
        ("", "<p>a driving license</p>", None),
    ],
)  # fmt: skip
def test_a_licence_is_named_as_spdx_names_it(head, body, licence):
    assert read_head(_page(head, body)).license == licence


def test_robots_rules_and_the_reservation_are_kept_as_written():
    head = read_head(
        _page(
            "<meta name='robots' content='NoAI, noimageai,index'><meta name=GPTBot content=noindex>"
            "<meta name='tdm-reservation' content='1'>"
        )
    )
    assert head.robots == ("gptbot:noindex", "index", "noai", "noimageai")
    assert head.tdm is True and head.language_tag == "zh-CN"
    assert read_head(_page("<meta name='tdm-reservation' content='0'>")).tdm is False
    assert read_head(_page()).tdm is None


def test_what_stands_in_the_body_is_not_taken_for_the_head():
    assert read_head(_page(body="<title>svg</title><meta name=robots content=noai>")).robots == ()


@given(st.text(alphabet="<>/!-='\" metainlkhrefcodp1:2024", max_size=300))
@settings(deadline=None, max_examples=300)
def test_any_markup_gives_a_head(markup):
    assert isinstance(read_head(markup, url="http://x/" + markup), Head)


HOSTILE = {
    "tags": "<meta " * 900_000,
    "attributes": "<meta " + "a=b " * 1_200_000,
    "quotes": "<meta content='" + "x" * 5_000_000,
    "comments": "<!--" * 1_200_000,
    "titles": "<title>" * 700_000,
    "times": "<body>" + "<time " * 800_000,
    "licences": "<body>" + "<a license " * 450_000,
    "headings": "<body>" + "<h1>" * 1_200_000,
    "dates": "<body>" + "2024-1-1 " * 500_000,
    "published": "<body>" + '"datePublished" ' * 300_000,
    "spaces": "<title>" + " " * 5_000_000,
}


@pytest.mark.parametrize("name", HOSTILE)
def test_five_megabytes_of_trouble_cost_milliseconds(name):
    markup = HOSTILE[name]
    begun = time.process_time()
    read_head(markup, url="http://x/" + "2024/" * 10_000)
    assert time.process_time() - begun < 0.5
