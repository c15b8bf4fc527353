"""ARC files of both versions give what the same captures would have given as WARC."""

from __future__ import annotations

import io
import zlib

import pytest

from pipelines.crawl.inputs import cuts
from pipelines.crawl.records import read_record_at, read_records
from pipelines.crawl.sources import MemorySource
from pipelines.crawl.warc import Damage, Record, Skipped, WarcBounds
from tests.sample.warc_writer import http_response, member

_WORDS = b"1 0 Mill\nURL IP-address Archive-date Content-type Archive-length\n"
ABOUT = b"filedesc://crawl.arc 0.0.0.0 20010203040506 text/plain %d\n" % len(_WORDS) + _WORDS + b"\n"


def _v1(url: bytes, block: bytes, *, mime: bytes = b"text/html", length: int | None = None) -> bytes:
    length = len(block) if length is None else length
    return b"%s 192.0.2.1 20010203040506 %s %d\n" % (url, mime, length) + block + b"\n"


def _v2(url: bytes, block: bytes) -> bytes:
    return b"%s 192.0.2.1 20010203040506 text/html 200 checksum - 77 a.arc.gz %d\n" % (url, len(block)) + block + b"\n"


def _read(body: bytes, **how) -> list:
    return list(read_records(MemorySource(body), form="arc", **how))


PAGES = [(b"http://mill.example/%d" % n, http_response(b"<p>page %d</p>" % n * 30)) for n in range(5)]


@pytest.mark.parametrize("line", [_v1, _v2])
@pytest.mark.parametrize("pack", [lambda records: b"".join(map(member, records)), b"".join])
def test_records_come_out_with_their_status_headers_and_date(line, pack):
    items = _read(pack([ABOUT, *(line(*page) for page in PAGES)]))
    assert isinstance(items[0], Skipped) and items[0].record_type == "filedesc"
    assert [item.target_uri for item in items[1:]] == [url for url, _ in PAGES]
    assert {item.http_status for item in items[1:]} == {200}
    assert items[1].headers["warc-date"] == "2001-02-03T04:05:06Z"
    assert items[1].headers["content-type"].startswith("application/http")
    assert items[1].http_headers["content-type"] == "text/html; charset=utf-8"
    assert items[2].body == b"<p>page 1</p>" * 30


def test_a_block_without_an_http_head_keeps_the_type_of_its_line():
    (item,) = _read(member(_v1(b"http://mill.example/", b"<html>old</html>")))
    assert item.http_status is None and item.headers["content-type"] == "text/html"
    assert item.body == b"<html>old</html>"


def test_an_archive_is_told_by_its_bytes_whatever_its_name_says():
    body = b"".join(map(member, [ABOUT, *(_v1(*page) for page in PAGES)]))
    assert list(read_records(MemorySource(body), form="warc")) == _read(body)


def test_a_url_with_blanks_and_a_type_with_a_charset_are_read():
    url = b"http://mill.example/a b"
    (item,) = _read(member(_v1(url, PAGES[0][1], mime=b"text/html; charset=gbk")))
    assert item.target_uri == url


def test_damage_costs_the_record_and_no_neighbour():
    records = [ABOUT, *(_v1(*page) for page in PAGES)]
    members = [member(record) for record in records]
    members[2] = members[2][:60] + b"\0\0\0" + members[2][63:]
    items = _read(b"".join(members))
    assert [type(item) for item in items] == [Skipped, Record, Damage, Record, Record, Record]
    records[2] = _v1(*PAGES[1], length=9000)
    items = _read(b"".join(map(member, records)))
    assert [type(item) for item in items] == [Skipped, Record, Damage, Record, Record, Record]
    records[2] = _v1(*PAGES[1], length=20)
    items = _read(b"".join(records))
    assert [type(item) for item in items] == [Skipped, Record, Damage, Record, Record, Record]


def test_any_cut_gives_the_whole_reads_items_and_each_is_found_by_its_place():
    for body in (
        b"".join(map(member, [ABOUT, *(_v1(*page) for page in PAGES)])),
        b"".join([ABOUT, *(_v1(*page) for page in PAGES)]),
    ):
        whole = _read(body)
        for count in (3, 7, 40):
            pieces = [i for a, b in cuts(len(body), len(body) // count) for i in _read(body, start=a, end=b)]
            assert pieces == whole
        for item in whole:
            assert read_record_at(MemorySource(body), form="arc", offset=item.offset, index=item.index) == item


def test_a_body_over_the_bound_is_marked():
    items = _read(b"".join(map(member, [ABOUT, *(_v1(*page) for page in PAGES)])), bounds=WarcBounds(body_bytes=100))
    assert all(item.over_bound and item.body == b"" for item in items[1:])


def test_arbitrary_bytes_after_an_arc_head_never_raise():
    for n in range(200):
        noise = zlib.compress(bytes([n]) * n)
        list(_read(ABOUT + noise))
        list(_read(member(ABOUT) + noise))
        list(_read(member(ABOUT + noise)))


def test_warcio_reads_the_same_records():
    archiveiterator = pytest.importorskip("warcio.archiveiterator", reason="pip install warcio")
    body = b"".join(map(member, [ABOUT, *(_v1(*page) for page in PAGES)]))
    theirs = [
        (record.rec_headers.get_header("uri"), record.content_stream().read())
        for record in archiveiterator.ArchiveIterator(io.BytesIO(body))
        if record.rec_type == "response"
    ]
    assert theirs == [(item.target_uri.decode(), item.body) for item in _read(body)[1:]]
