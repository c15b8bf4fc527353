"""On whole files our reader and FastWARC see the same records; on cut ones only ours says so."""

from __future__ import annotations

import io
from pathlib import Path

import pytest

from pipelines.crawl.sources import MemorySource
from pipelines.crawl.warc import Damage, Record, Skipped, read_warc
from tests.made_crawl import pages
from tests.sample.warc_writer import crawl_file, response_record

fastwarc = pytest.importorskip("fastwarc.warc", reason="FastWARC is not installed: pip install fastwarc")
SAMPLE = Path(__file__).parents[2] / "sample"
WHOLE = ["sample-00000.warc.gz", "sample-00001.warc.gz", "sample-00002.warc.gz", "sample-00003.warc.gz"]


def _theirs(body: bytes) -> list[tuple]:
    found = []
    for record in fastwarc.ArchiveIterator(io.BytesIO(body), parse_http=True):
        kind = record.headers["WARC-Type"]
        if kind == "response":
            status = record.http_headers.status_code
            found.append((kind, record.headers["WARC-Target-URI"], status, record.reader.read()))
        else:
            found.append((kind,))
    return found


def _ours(body: bytes) -> list[tuple]:
    found = []
    for item in read_warc(MemorySource(body)):
        if isinstance(item, Record):
            found.append((item.record_type, item.target_uri.decode(), item.http_status, item.body))
        else:
            assert isinstance(item, Skipped)
            found.append((item.record_type,))
    return found


@pytest.mark.parametrize("name", WHOLE)
def test_whole_files_hold_the_same_records(name):
    body = (SAMPLE / name).read_bytes()
    ours = _ours(body)
    assert len(ours) > 100
    assert ours == _theirs(body)


def test_a_cut_record_is_whole_to_them_and_damage_to_us():
    body = crawl_file(*(response_record(url, html) for url, html in pages(range(3))))[:-60]
    items = list(read_warc(MemorySource(body)))
    assert len(_theirs(body)) == 3  # why there is a reader of our own; when this fails, look at theirs again
    assert [type(item) for item in items] == [Record, Record, Damage]
