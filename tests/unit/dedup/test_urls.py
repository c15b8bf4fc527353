"""Canonical URLs: one form for one page, none for what cannot be read, an error never."""

from __future__ import annotations

import random

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.dedup.buckets import copy_edges
from pipelines.dedup.order import survivor_places, survivor_ties
from pipelines.dedup.urls import LONGEST_URL, URL, canonical_url, url_digests, url_places, url_rows
from pipelines.errors import ConfigError

SAME = {
    "example.com/": [
        "http://example.com",
        "https://example.com/",
        "HTTPS://WWW.Example.COM:443/#top",
        "http://www2.example.com:80/index.html",
        "http://user:secret@example.com/./default.aspx?utm_source=mail",
        " http://example.com/a/../\n",
        "http://example.com./?&&",
        "http://example.com\\index.php",
    ],
    "example.com/a/b?x=1&y=2": [
        "http://example.com/a/b?x=1&y=2",
        "http://example.com/a/b/?y=2&x=1",
        "http://example.com/a/./c/../b?fbclid=zz&x=1&UTM_Medium=cpc&y=2",
        "http://example.com/%61/b/index.html?x=%31&y=2&spm=a2.b3",
        "http://example.com/a;jsessionid=0A1B/b?x=1&y=2&PHPSESSID=77",
        "http://example.com/(S(abcdefghijklmnopqrstuvwx))/a/b?y=2&x=1",
    ],
    "example.com/%E4%B8%AD?q=%E6%96%87+a": [
        "http://example.com/中?q=文 a",
        "http://example.com/%e4%b8%ad?q=%E6%96%87%20a",
        "http://example.com/%E4%B8%AD/?q=文+a",
    ],
    "xn--fiqs8s.example/x": ["http://中国.example/x", "http://www.xn--fiqs8s.example/x/"],
    "[2001:db8::1]:8080/x": ["http://[2001:DB8::1]:8080/x/"],
    "example.com/100%25": ["http://example.com/100%", "http://example.com/100%25"],
    "example.com/t?sid=7": ["http://example.com/t?sid=7", "http://example.com/t?sid=7&sid=0123456789abcdef0123"],
}


@pytest.mark.parametrize(("form", "url"), [(form, url) for form, urls in SAME.items() for url in urls])
def test_one_page_has_one_form(form, url):
    assert canonical_url(url) == form


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("http://example.com/A", "http://example.com/a"),
        ("http://example.com/?id=1", "http://example.com/?id=2"),
        ("http://example.com/?ref=1", "http://example.com/"),
        ("http://example.com/?a=1&a=2", "http://example.com/?a=2&a=1"),
        ("http://example.com/a%2Fb", "http://example.com/a/b"),
        ("http://example.com/?a=1%26b", "http://example.com/?a=1&b"),
        ("http://example.com:8080/", "http://example.com/"),
        ("http://m.example.com/", "http://example.com/"),
        ("http://www.com/", "http://com/"),
        ("http://example.com/%C4%E3", "http://example.com/%C4%E4"),
        ("http://example.com/indexes", "http://example.com/"),
        ("http://example.com/?sid=17", "http://example.com/"),
    ],
)
def test_what_may_be_another_page_has_another_form(one, other):
    assert canonical_url(one) != canonical_url(other)


def test_mobile_hosts_are_the_site_only_when_asked_for():
    for host in ("m.example.com", "wap.example.com", "www.m.example.com", "mobile.example.com"):
        assert canonical_url(f"http://{host}/x", mobile_hosts=True) == "example.com/x"
    assert canonical_url("http://m.com/x", mobile_hosts=True) == "m.com/x"


@pytest.mark.parametrize(
    "url",
    ["", "x", "ftp://example.com/", "http://", "http:///a", "http://a:b:c/", "http://a b/", "//x/y",
     "http://" + "a" * 300 + ".com/", "http://x.com:99999/", "mailto:a@b.c", "http://\ud800/", "http://é" + "é" * 200,
     "http://example.com/" + "a" * LONGEST_URL],
)  # fmt: skip
def test_what_names_no_page_has_no_form(url):
    assert canonical_url(url) is None


URLISH = st.lists(
    st.sampled_from(
        [*"abZ09./?#&=%;:@+[]()\\ \t\n中é\x00\ud800", "www.", "m.", "index.html", "/..", "%2e", "%2F", "%e4%b8%ad",
         "utm_x=1", "sid=0123456789abcdef", ";jsessionid=1", "(S(abcdefghijklmnopqrstuvwx))/", "xn--", ":80", "//"]
    ),
    max_size=30,
)  # fmt: skip


@settings(max_examples=600, deadline=None)
@given(st.sampled_from(["http://", "https://www.", "http://example.com/", "HTTP://a.b:80/"]), URLISH)
def test_the_form_of_a_form_is_the_form_and_nothing_raises(start, pieces):
    form = canonical_url(start + "".join(pieces))
    if form is not None:
        assert form.isascii() and "#" not in form and " " not in form
        assert canonical_url("http://" + form) == form


@settings(max_examples=300, deadline=None)
@given(st.text(max_size=200))
def test_any_text_gives_a_form_or_none(text):
    canonical_url(text)
    canonical_url("http://" + text)


def test_a_hostile_url_takes_no_time():
    for body in (
        "/index.html" * 740,
        "/.." * 2700,
        "%" * 8000,
        "a=1&" * 2000,
        "(S(" * 2700,
        ";sid=" * 1600,
        "." * 8000,
    ):
        assert canonical_url("http://example.com/" + body) is not None
        canonical_url("http://" + body)


def test_digests_are_equal_where_forms_are_and_null_where_there_is_none():
    urls = ["http://a.example/x/", "https://www.a.example/x", "nothing", None, "http://b.example/"]
    digests = url_digests(pa.array(urls)).to_pylist()
    assert digests[0] == digests[1] != digests[4] and len(digests[0]) == 16
    assert digests[2] is digests[3] is None
    assert len(url_digests(pa.array([], pa.string()))) == 0


def edges(urls, dates, generations, *, policy="latest", apart=False, shuffle=0):
    """(leaves, stays) for each capture that leaves; the captures of each generation stand shuffled in a part."""
    ids = [f"{17 * n:032x}"[::-1] for n in range(len(urls))]
    by, rows, starts = [], [], []
    for generation in sorted(set(generations)):
        mine = [n for n, g in enumerate(generations) if g == generation]
        random.Random(shuffle).shuffle(mine)
        place = survivor_places(pa.array([100] * len(mine)), pa.chunked_array([[dates[n] for n in mine]], pa.string()))
        tie = survivor_ties([ids[n] for n in mine], ["f"] * len(mine), [0] * len(mine))
        digests = url_digests(pa.array([urls[n] for n in mine], pa.string()))
        table = pa.table({URL: digests, "place": place, "tie": tie})
        rows.append(url_rows(table, len(by), generation, policy=policy, apart=apart))
        starts.append(len(by))
        by += mine
    found = copy_edges(np.concatenate(rows), np.array(starts[1:], np.int64), 0)
    return sorted((by[m], by[c]) for c, m in zip(found["centre"].to_pylist(), found["member"].to_pylist(), strict=True))


A, B = "http://a.example/", "http://b.example/"
URLS = [A, "https://www.a.example", "http://a.example/?utm_id=3", B, None, "http://a.example"]
DATES = ["2026-01-02T00:00:00Z", "2026-01-03T00:00:00Z", "2026-01-01T00:00:00Z", "2026-01-01T00:00:00Z", None, None]


def test_the_latest_capture_stays_or_the_first():
    assert edges(URLS, DATES, [0] * 6) == [(0, 1), (2, 1), (5, 1)]
    assert edges(URLS, DATES, [0] * 6, policy="first") == [(0, 2), (1, 2), (5, 2)]


def test_an_earlier_generation_stays_whatever_came_later_and_a_dump_stands_alone():
    assert edges(URLS, DATES, [0, 1, 1, 0, 0, 0]) == [(1, 0), (2, 0), (5, 0)]
    assert edges(URLS, DATES, [0, 1, 1, 0, 0, 0], apart=True) == [(2, 1), (5, 0)]


def test_the_order_of_rows_decides_nothing():
    same = ["2026-01-01T00:00:00Z"] * 6
    assert len({str(edges(URLS, same, [0] * 6, shuffle=seed)) for seed in range(8)}) == 1


def test_unknown_policies_are_refused():
    with pytest.raises(ConfigError, match="policy"):
        url_places(np.zeros(1, np.int64), "newest")
