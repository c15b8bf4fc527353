"""Broken and hostile archives: nothing that can be read is lost, and what is broken is reported."""

from __future__ import annotations

import json

import pytest

from pipelines.crawl.notes import NOTES, RecordNotes
from pipelines.crawl.sources import MemorySource
from pipelines.crawl.warc import read_warc
from tests.benchmarks import warc_edge
from tests.pack import pack
from tests.sample.warc_writer import crawl_file, response_record, warc_record


def test_every_file_of_the_pack_is_read_and_its_damage_reported():
    folder = pack("warc_edge")
    files = json.loads((folder / "expected.json").read_text())["files"]
    assert len(files) >= 40
    wrong = {}
    for name, expected in files.items():
        verdict = warc_edge.judge({**warc_edge.read_ours(folder / name), "crash": ""}, expected)
        if verdict["lost"] or verdict["unreported"]:
            wrong[name] = verdict
    assert wrong == {}


def test_the_benchmark_counts_what_is_lost_unreported_and_crashed(tmp_path, capsys, monkeypatch):
    pages = [response_record(f"https://mill.example/{n}", b"<p>x</p>") for n in range(3)]
    (tmp_path / "cut.warc.gz").write_bytes(crawl_file(*pages)[:-20])
    (tmp_path / "whole.warc.gz").write_bytes(crawl_file(*pages))
    expected = {
        "cut.warc.gz": {"must_read": ["response 0", "response 1"], "must_report": 1},
        "whole.warc.gz": {"must_read": ["response 2", "response 7"], "must_report": 4, "also_good": ["response 1"]},
    }
    (tmp_path / "expected.json").write_text(json.dumps({"files": expected}))
    monkeypatch.setattr("sys.argv", ["warc_edge", "--data", str(tmp_path)])
    warc_edge.main()
    printed = capsys.readouterr()
    result = json.loads(printed.out)
    assert (result["files"], result["crashes"], result["unreported"], result["lost_before_damage"]) == (2, 0, 1, 1)
    assert "truncated_record" in printed.err
    assert warc_edge.read_in_child("ours", tmp_path / "absent.warc.gz", 20, 1024)["crash"]


@pytest.mark.parametrize("crash", ["hang", "memory", "die"])
def test_a_reader_that_hangs_or_grows_or_dies_is_a_crash(crash, tmp_path, monkeypatch):
    import os
    import time

    def misbehave(path):
        if crash == "hang":
            time.sleep(60)
        elif crash == "memory":
            return {"names": [bytearray(4 << 30)], "reports": {}}
        os._exit(3)

    monkeypatch.setitem(warc_edge._READ, "ours", misbehave)
    assert warc_edge.read_in_child("ours", tmp_path, 1.0, 256)["crash"]


def test_notes_tell_of_repeated_and_missing_ids_and_of_cut_pages():
    one = response_record("https://mill.example/1", b"<p>x</p>")
    cut = warc_record(
        "response", b"HTTP/1.1 200 OK\r\n\r\nx", url="https://mill.example/2", extra=(("WARC-Truncated", "length"),)
    )
    bare = b"WARC/1.1\r\nWARC-Type: resource\r\nWARC-Target-URI: x:y\r\nContent-Length: 1\r\n\r\nx\r\n\r\n"
    notes = RecordNotes()
    told = [notes.of(item) for item in read_warc(MemorySource(crawl_file(one, one, cut, bare)))]
    assert told == [(), ("repeated_record_id",), ("cut_by_crawler",), ("no_record_id", "no_date")]
    assert {note for notes in told for note in notes} == set(NOTES)
    silent = RecordNotes("arc")
    assert not any(silent.of(item) for item in read_warc(MemorySource(crawl_file(one, one, cut, bare))))
