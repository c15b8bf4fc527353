"""The list of what is to be taken down: hashes, and look-ups that find every way of writing an address."""

from __future__ import annotations

import pyarrow as pa
import pytest

from pipelines.errors import InputError
from pipelines.takedown.requests import TAKEDOWNS, Listed, targets, text_digests


def listed(**given: list[str]) -> Listed:
    rows = [row for kind, lines in given.items() for row in targets(kind, lines, source="test")]
    return Listed(pa.Table.from_pylist(rows, schema=TAKEDOWNS))


def test_a_url_is_found_however_it_is_written():
    found = listed(url=["https://www.example.org/a/page.html?utm_source=x&b=1"])
    for url in ("http://example.org/a/page.html?b=1", "https://EXAMPLE.org:443/a/./page.html?b=1#top"):
        assert found.kind_of(url) == "url"
    for url in ("http://example.org/a/page.html?b=2", "http://other.org/a/page.html?b=1", "", None, "no url", "http://["):
        assert found.kind_of(url) is None


def test_a_domain_means_all_hosts_below_it_and_no_other():
    found = listed(domain=["example.org", "*.例子.中国"])
    for url in ("http://example.org/", "https://a.b.example.org/x", "http://www.例子.中国/页", "http://xn--fsqu00a.xn--fiqs8s/"):
        assert found.kind_of(url) == "domain", url
    for url in ("http://notexample.org/", "http://example.org.evil.net/", "http://org/"):
        assert found.kind_of(url) is None


def test_the_list_holds_no_word_of_what_was_asked():
    rows = targets("url", ["https://secret-name.example/private/path"], source="f")
    rows += targets("domain", ["secret-name.example"], source="f")
    assert "secret" not in str(rows) and "private" not in str(rows)


def test_texts_are_known_by_their_normal_form():
    digests = text_digests(pa.array(["Ｈｅｌｌｏ，  World!", "hello world", "其他", None, "…"])).to_pylist()
    assert digests[0] == digests[1] != digests[2] and digests[3] is None and digests[4] is None


@pytest.mark.parametrize(
    ("kind", "line"),
    [("url", "example.org/page"), ("url", "ftp://example.org/"), ("domain", "http://example.org"), ("domain", "a b"),
     ("text", "abc"), ("id", "zz" * 16)],
)  # fmt: skip
def test_a_line_that_is_none_names_its_file_and_number(kind, line):
    with pytest.raises(InputError, match=r"list\.txt, line 3"):
        targets(kind, ["# comment", "", line], source="list.txt")


def test_comments_and_repeats_count_once():
    assert len(targets("domain", ["# a", "example.org", "", "EXAMPLE.org"], source="f")) == 1
