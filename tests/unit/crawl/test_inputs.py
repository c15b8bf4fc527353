"""A crawl is known by what its files hold, not by where they lie."""

from __future__ import annotations

import gzip
import os
import random
from collections import Counter
from pathlib import Path

import pytest

from pipelines.crawl.forms import form_of
from pipelines.crawl.inputs import (
    INPUT_SCHEMA,
    crawl_root,
    cuts,
    ends_sha256,
    list_inputs,
    uncut_files,
    unit_id,
    unit_name,
)
from pipelines.crawl.sources import StoreSource
from pipelines.datasets.store import MemoryStore, open_store
from pipelines.errors import ConfigError, InputError


def _store(*keys: str) -> MemoryStore:
    store = MemoryStore()
    for key in keys:
        store.put(key, key.encode())
    return store


@pytest.mark.parametrize(
    ("pattern", "root", "below"),
    [
        ("crawl/*.warc.gz", "crawl", "*.warc.gz"),
        ("/abs/a b/爬/seg-*/warc/*.warc.gz", "/abs/a b/爬", "seg-*/warc/*.warc.gz"),
        ("*.warc.gz", ".", "*.warc.gz"),
        ("/*.warc.gz", "/", "*.warc.gz"),
        ("crawl/one.warc.gz", "crawl", "one.warc.gz"),
        ("s3://bucket/pre/fix/*.warc.gz", "s3://bucket/pre/fix", "*.warc.gz"),
        ("s3://bucket/*/x.warc.gz", "s3://bucket", "*/x.warc.gz"),
        ("s3://bucket/pre/", "s3://bucket/pre", "**"),
    ],
)
def test_the_root_is_the_longest_leading_folder_without_a_wildcard(pattern, root, below):
    assert crawl_root(pattern) == (root, below)


def test_a_folder_means_its_crawl_files(tmp_path):
    (tmp_path / "sub").mkdir()
    (tmp_path / "a.warc.gz").write_bytes(b"a")
    (tmp_path / "sub" / "b.warc").write_bytes(b"b")
    (tmp_path / "notes.txt").write_bytes(b"c")
    root, below = crawl_root(str(tmp_path))
    assert list_inputs(open_store(root), below)["file"].to_pylist() == ["a.warc.gz", "sub/b.warc"]


def test_only_folders_that_the_pattern_leads_to_are_read(tmp_path):
    for name in ("a.warc.gz", "sub/b.warc.gz", "sub/deep/c.warc.gz", "other/d.warc.gz"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    (tmp_path / "sub" / "loop").symlink_to(tmp_path)
    (tmp_path / "dangling.warc.gz").symlink_to(tmp_path / "nowhere")
    (tmp_path / "folder.warc.gz").mkdir()
    store = open_store(tmp_path)

    def listed(below):
        return list_inputs(store, below)["file"].to_pylist()

    assert listed("*.warc.gz") == ["a.warc.gz"]
    assert listed("sub/*.warc.gz") == ["sub/b.warc.gz"]
    assert listed("*/*.warc.gz") == ["other/d.warc.gz", "sub/b.warc.gz"]
    assert listed("**/*.warc.gz") == ["a.warc.gz", "other/d.warc.gz", "sub/b.warc.gz", "sub/deep/c.warc.gz"]
    assert listed("**") == listed("**/*.warc.gz")
    with pytest.raises(InputError):
        listed("sub/none/*.warc.gz")


def test_a_file_whose_name_looks_like_a_pattern_is_taken_by_its_name(tmp_path):
    for name in ("crawl[1].warc.gz", "crawl1.warc.gz"):
        (tmp_path / name).write_bytes(b"x")
    root, below = crawl_root(str(tmp_path / "crawl[1].warc.gz"))
    assert list_inputs(open_store(root), below)["file"].to_pylist() == ["crawl[1].warc.gz"]


def test_brackets_are_ranges_and_a_wrong_range_is_said_to_be_wrong():
    store = _store("a1.warc.gz", "a2.warc.gz", "a[.warc.gz", "a&.warc.gz")
    assert list_inputs(store, "a[0-9].warc.gz")["file"].to_pylist() == ["a1.warc.gz", "a2.warc.gz"]
    assert list_inputs(store, "a[[&&].warc.gz")["file"].to_pylist() == ["a&.warc.gz", "a[.warc.gz"]
    with pytest.raises(ConfigError, match=r"z-a"):
        list_inputs(store, "[z-a].warc.gz")


def test_a_missing_root_is_no_match_and_a_walk_says_what_it_could_not_read(tmp_path):
    for below in ("*.warc.gz", "**"):
        with pytest.raises(InputError):
            list_inputs(open_store(tmp_path / "absent"), below)


def test_a_file_name_that_is_no_text_is_named(tmp_path):
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff.warc.gz")).write_bytes(b"x")
    with pytest.raises(InputError, match="UTF-8") as caught:
        list_inputs(open_store(tmp_path), "*.warc.gz")
    assert "xff" in str(caught.value)


@pytest.mark.parametrize("pattern", ["", "s3://", "s3://buck*t/x"])
def test_a_pattern_that_names_no_folder_is_refused(pattern):
    with pytest.raises(ConfigError) as caught:
        crawl_root(pattern)
    assert caught.value.mend


def test_files_come_sorted_and_a_star_stays_in_its_folder():
    store = _store("b.warc.gz", "a.warc.gz", "deep/c.warc.gz", "a.txt", "a.warc.gz.tmp")
    table = list_inputs(store, "*.warc.gz")
    assert table.schema == INPUT_SCHEMA
    assert table["file"].to_pylist() == ["a.warc.gz", "b.warc.gz"]
    assert list_inputs(store, "**/*.warc.gz")["file"].to_pylist() == [
        "a.warc.gz",
        "b.warc.gz",
        "deep/c.warc.gz",
    ]
    assert list_inputs(store, "[!a].warc.?z")["file"].to_pylist() == ["b.warc.gz"]


def test_no_match_says_what_was_looked_for_and_the_mend():
    with pytest.raises(InputError, match=r"no-such") as caught:
        list_inputs(_store("a.warc.gz"), "no-such-*.warc.gz")
    assert caught.value.exit_code == 3 and "quote" in caught.value.mend


def test_units_outlive_a_move_and_tell_files_apart():
    store, other = MemoryStore(), MemoryStore()
    for place in (store, other):
        place.put("x.warc.gz", b"same")
    assert list_inputs(store, "*").equals(list_inputs(other, "*"))
    other.put("x.warc.gz", b"sam3")
    assert list_inputs(store, "*")["unit"] != list_inputs(other, "*")["unit"]
    assert unit_id("a", 3, "s", 0, 2) != unit_id("a", 3, "s", 2, 3) != unit_id("a", 3, "s")
    assert unit_id("a", 3, "s", 0, 3) == unit_id("a", 3, "s")


def test_the_sum_sees_both_ends_of_a_long_file():
    store = MemoryStore()
    body = bytearray(200_000)
    store.put("k", bytes(body))
    plain = ends_sha256(store, "k", len(body))
    for at, seen in ((0, True), (100_000, False), (199_999, True)):
        changed = bytearray(body)
        changed[at] = 1
        store.put("k", bytes(changed))
        assert (ends_sha256(store, "k", len(body)) != plain) is seen


def test_large_files_are_cut_and_an_uncut_file_keeps_its_name():
    store = MemoryStore()
    store.put("a.warc", b"WARC/1.0\r\n" * 100)
    store.put("b.warc", b"WARC/1.0\r\n" * 10)
    whole = list_inputs(store, "*")
    table = list_inputs(store, "*", unit_bytes=300)
    assert list(zip(table["file"].to_pylist(), table["start"].to_pylist(), table["end"].to_pylist(), strict=True)) == [
        ("a.warc", 0, 300),
        ("a.warc", 300, 600),
        ("a.warc", 600, 1000),
        ("b.warc", 0, 100),
    ]
    assert len(set(table["unit"].to_pylist())) == 4
    assert table["unit"].to_pylist()[3] == whole["unit"].to_pylist()[1]
    assert [cuts(size, 300) for size in (0, 449)] == [[(0, 0)], [(0, 449)]]
    assert unit_name("a.warc", 1000, 300, 600) == "a.warc@000000000000300"
    assert unit_name("b.warc", 100, 0, 100) == "b.warc"
    with pytest.raises(ConfigError):
        list_inputs(store, "*", unit_bytes=0)


def test_a_file_that_no_reader_can_begin_inside_of_stays_whole_and_is_told():
    noise = random.Random(3).randbytes(3 << 20)
    store = MemoryStore()
    store.put("members.warc.gz", gzip.compress(b"WARC/1.0\r\n") + gzip.compress(noise))
    store.put("one.warc.gz", gzip.compress(noise))
    store.put("rows.jsonl", noise)
    store.put("rows.jsonl.gz", noise)
    table = list_inputs(store, "*", unit_bytes=1 << 20)
    counts = Counter(table["file"].to_pylist())
    assert counts == {"members.warc.gz": 3, "one.warc.gz": 1, "rows.jsonl": 3, "rows.jsonl.gz": 1}
    assert uncut_files(table, 1 << 20) == ["one.warc.gz", "rows.jsonl.gz"]


@pytest.mark.parametrize(
    ("name", "form"),
    [
        ("a/B.WARC.GZ", "warc"), ("x.warc.wet.gz", "wet"), ("x.arc.gz", "arc"), ("x.wacz", "wacz"), ("x.htm", "html"),
        ("x.json.gz", "jsonl"), ("x.parquet", "parquet"), ("x.fetch.parquet", "cc_plan"), ("x.gz", "warc"),
    ],
)  # fmt: skip
def test_the_form_is_told_by_the_name(name, form):
    assert form_of(name) == form


def test_a_file_is_fetched_once_and_a_look_elsewhere_is_small():
    class Counting(MemoryStore):
        fetched = 0

        def get_ranges(self, key, ranges):
            self.fetched += sum(end - start for start, end in ranges)
            return super().get_ranges(key, ranges)

    store = Counting()
    body = random.Random(4).randbytes(9 << 20)
    store.put("k", body)
    source = StoreSource(store, "k", len(body), block_bytes=1 << 20)
    at = 0
    while at < len(body):  # as members are read: a look ahead, then on from where the member ended
        assert source.read(at, 12_000) == body[at : at + 12_000]
        at += 7_000
    assert store.fetched == len(body)
    store.fetched = 0
    assert StoreSource(store, "k", len(body)).read(5 << 20, 100) == body[5 << 20 :][:100]
    assert store.fetched == 64 << 10
