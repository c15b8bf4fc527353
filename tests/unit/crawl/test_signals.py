"""Signals against use by machines, of page and server."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.crawl.head import Head
from pipelines.crawl.signals import opt_out, refused_by, robots_header


@pytest.mark.parametrize(
    ("head", "headers", "signals"),
    [
        (Head(robots=("index", "noai", "noimageai")), {}, "noai,noimageai"),
        (Head(robots=("none",)), {}, "noindex"),
        (Head(robots=("gptbot:noindex", "all")), {}, "gptbot:noindex"),
        (Head(tdm=True), {}, "tdm-reservation"),
        (Head(tdm=True), {"tdm-reservation": "0"}, None),
        (Head(tdm=False), {"tdm-reservation": "1"}, "tdm-reservation"),
        (None, {"x-robots-tag": "noai, NOIMAGEAI"}, "noai,noimageai"),
        (None, {"x-robots-tag": "ccbot: noindex, noarchive, otherbot: nosnippet"},
         "ccbot:noarchive,ccbot:noindex,otherbot:nosnippet"),
        (None, {"x-robots-tag": "unavailable_after: 25 Jun 2010 15:00:00 PST, max-snippet: 5, index"}, None),
        (Head(), {}, None),
    ],
)  # fmt: skip
def test_signals_of_page_and_headers_are_joined(head, headers, signals):
    assert opt_out(head, headers) == signals


def test_a_policy_names_what_it_refuses():
    assert refused_by("noai,noindex", frozenset({"noai"})) == "noai"
    assert refused_by("gptbot:noindex", frozenset({"noindex"})) == "gptbot:noindex"
    assert refused_by("gptbot:noindex", frozenset({"ccbot:noindex"})) is None
    assert refused_by("ccbot:noindex", frozenset({"ccbot:noindex"})) == "ccbot:noindex"
    assert refused_by("noai", frozenset({"tdm-reservation"})) is None
    assert refused_by(None, frozenset({"noai"})) is None and refused_by("noai", frozenset()) is None


@given(st.text(max_size=200))
def test_any_header_gives_rules_without_spaces_or_commas(value):
    assert not any(set(rule) & set(" ,") for rule in robots_header(value))
