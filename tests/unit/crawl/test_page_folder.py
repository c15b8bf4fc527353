"""Pages that lie as files: grouped into units, each with the URL that its place or its own words tell."""

from __future__ import annotations

import pytest

from pipelines.crawl.inputs import list_inputs, open_source
from pipelines.crawl.page_folder import page_url
from pipelines.crawl.records import read_record_at, read_records
from pipelines.crawl.warc import WarcBounds
from pipelines.datasets.store import MemoryStore, open_store


@pytest.mark.parametrize(
    ("key", "body", "url"),
    [
        ("a/b.html", b"", "file:///a/b.html"),
        ("首页.html", b"", "file:///%E9%A6%96%E9%A1%B5.html"),
        ("www.mill.com/a b.html", b"", "https://www.mill.com/a%20b.html"),
        ("mill.co.uk:8080/q?x=1.html", b"", "https://mill.co.uk:8080/q?x=1.html"),
        ("notes.v1/a.html", b"", "file:///notes.v1/a.html"),
        ("mill.com.html", b"", "file:///mill.com.html"),
        ("x.html", b"<!DOCTYPE html>\n<!-- saved from url=(0022)https://mill.com/page -->", "https://mill.com/page"),
        ("x.html", b"<!-- saved from url=(0014)about:internet -->", "file:///x.html"),
    ],
)
def test_the_url_is_what_a_browser_wrote_or_the_mirrored_host_or_the_path(key, body, url):
    assert page_url(key, body).decode() == url


def _store(count: int) -> MemoryStore:
    store = MemoryStore()
    for n in range(count):
        store.put(f"site/{n:04d}.html", f"<p>page {n}</p>".encode())
    return store


def _read(store, units) -> list:
    out = []
    for row in units.to_pylist():
        pages = [(page["file"], page["size_bytes"]) for page in row["pages"]]
        source = open_source(store, row["file"], row["size_bytes"], pages=pages)
        out += read_records(source, form=row["form"], start=row["start"], end=row["end"])
    return out


def test_pages_come_in_groups_and_each_names_its_file():
    store = _store(900)
    units = list_inputs(store, "**/*.html")
    assert 1 <= units.num_rows < 20
    items = _read(store, units)
    assert [item.file for item in items] == [f"site/{n:04d}.html" for n in range(900)]
    assert items[7].body == b"<p>page 7</p>" and items[7].fields == {}
    one = items[7]
    source = open_source(store, one.file, one.length, pages=[(one.file, one.length)])
    assert read_record_at(source, form="html", offset=0) == one


def test_a_new_page_changes_its_own_group_alone():
    store = _store(2000)
    before = set(list_inputs(store, "**/*.html")["unit"].to_pylist())
    store.put("site/1000b.html", b"<p>new</p>")
    after = set(list_inputs(store, "**/*.html")["unit"].to_pylist())
    assert len(before - after) <= 1 and len(after - before) <= 2 and len(before & after) >= 3


def test_a_page_over_the_bound_is_not_read(tmp_path):
    (tmp_path / "a.html").write_bytes(b"x" * 5000)
    units = list_inputs(open_store(tmp_path), "*.html")
    row = units.to_pylist()[0]
    source = open_source(open_store(tmp_path), row["file"], row["size_bytes"], pages=[("a.html", 5000)])
    (item,) = read_records(source, form="html", bounds=WarcBounds(body_bytes=100))
    assert item.over_bound and item.body == b""


def test_a_folder_of_archives_leaves_its_read_me_alone(tmp_path):
    (tmp_path / "a.warc.gz").write_bytes(b"x")
    (tmp_path / "README.html").write_bytes(b"x")
    (tmp_path / "rows.jsonl").write_bytes(b"x")
    assert list_inputs(open_store(tmp_path), "**")["file"].to_pylist() == ["a.warc.gz"]
    (tmp_path / "a.warc.gz").unlink()
    assert list_inputs(open_store(tmp_path), "**")["form"].to_pylist() == ["html", "jsonl"]
