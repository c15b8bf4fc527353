"""Blocklists hold a domain for all that is below it, and a URL for all paths below it."""

from __future__ import annotations

import tracemalloc

import pytest

from pipelines.errors import InputError
from pipelines.filters.blocklist import load_blocklists


@pytest.fixture
def lists(tmp_path):
    for category, name, text in (
        ("adult", "domains", "bad.example\nBücher.example\n192.0.2.7\n# a comment\n\n"),
        ("adult", "urls", "mixed.example/rooms\n"),
        ("gambling", "domains", "bets.example\nbad.example\n"),
    ):
        (tmp_path / category).mkdir(exist_ok=True)
        (tmp_path / category / name).write_text(text, "utf-8")
    return load_blocklists(tmp_path)


@pytest.mark.parametrize(
    ("url", "category"),
    [
        ("http://bad.example/", "adult"),
        ("https://WWW.Bad.Example:8080/a?b", "adult"),
        ("http://deep.er.bets.example./x", "gambling"),
        ("http://notbad.example/", None),
        ("http://bad.example.org/", None),
        ("http://mixed.example/", None),
        ("http://mixed.example/rooms/1", "adult"),
        ("http://mixed.example/roomservice", None),
        ("http://xn--bcher-kva.example/", "adult"),
        ("http://bücher.example/", "adult"),
        ("http://192.0.2.7/x", "adult"),
        ("http://example/", None),
        ("no url", None),
        ("http://[::1", None),
        ("", None),
    ],
)
def test_a_url_is_in_the_category_that_lists_it_or_a_parent(lists, url, category):
    assert lists.category(url) == category


def test_the_digest_changes_with_an_entry(lists, tmp_path):
    before = lists.digest
    assert load_blocklists(tmp_path).digest == before
    (tmp_path / "gambling" / "domains").write_text("bets.example\n", "utf-8")
    assert load_blocklists(tmp_path).digest != before


def test_a_folder_without_lists_is_refused_with_its_mend(tmp_path):
    with pytest.raises(InputError) as caught:
        load_blocklists(tmp_path / "none")
    assert "domains" in caught.value.mend


def test_a_large_list_takes_eight_bytes_an_entry(tmp_path):
    (tmp_path / "big").mkdir()
    (tmp_path / "big" / "domains").write_text("".join(f"site{n}.example\n" for n in range(200_000)))
    tracemalloc.start()
    lists = load_blocklists(tmp_path)
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert lists.sizes == {"big": (200_000, 0)} and held < 200_000 * 8 + 100_000
    assert lists.category("http://a.site77.example/") == "big"
