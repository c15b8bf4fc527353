"""WACZ: archives inside a zip, stored or deflated, with hostile directories."""

from __future__ import annotations

import io
import random
import zipfile

import pytest

from pipelines.crawl.inputs import cuts
from pipelines.crawl.records import read_record_at, read_records
from pipelines.crawl.sources import MemorySource
from pipelines.crawl.warc import Damage, Record, read_warc
from tests.sample.warc_writer import crawl_file, response_record


def _archive(name: str, count: int) -> bytes:
    rng = random.Random(name)
    pages = (response_record(f"https://{name}.example/{n}", rng.randbytes(300).hex().encode()) for n in range(count))
    return crawl_file(*pages)


FILES = {"archive/a.warc.gz": _archive("a", 5), "pages/pages.jsonl": b"{}\n", "archive/b.warc.gz": _archive("b", 4)}


def _wacz(files: dict[str, bytes] = FILES, method: int = zipfile.ZIP_STORED) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", method) as packed:
        for name, body in files.items():
            packed.writestr(name, body)
    return out.getvalue()


def _read(body: bytes, **how) -> list:
    return list(read_records(MemorySource(body), form="wacz", **how))


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_the_records_of_all_archives_come_out_and_any_cut_gives_the_same(method):
    body = _wacz(method=method)
    whole = _read(body)
    assert [i.body for i in whole] == [
        i.body for name in ("archive/a.warc.gz", "archive/b.warc.gz") for i in read_warc(MemorySource(FILES[name]))
    ]
    assert len({(i.offset, i.index) for i in whole}) == 9
    for count in (1, 3, 7, 40):
        assert [i for a, b in cuts(len(body), len(body) // count) for i in _read(body, start=a, end=b)] == whole
    for item in whole:
        assert read_record_at(MemorySource(body), form="wacz", offset=item.offset, index=item.index) == item


def test_a_stored_record_lies_at_its_offset_in_the_zip():
    body = _wacz()
    for item in _read(body):
        (alone,) = read_warc(MemorySource(body[item.offset : item.offset + item.length]))
        assert alone.body == item.body


def test_a_zip_with_a_large_directory_record_and_a_comment_is_read(monkeypatch):
    monkeypatch.setattr(zipfile, "ZIP64_LIMIT", 100)
    monkeypatch.setattr(zipfile, "ZIP_FILECOUNT_LIMIT", 1)
    body = _wacz()
    assert b"PK\x06\x06" in body
    assert len(_read(body)) == 9


@pytest.mark.parametrize(
    "body", [b"no zip", b"PK\x05\x06" + b"\0" * 18, b"PK\x05\x06" + b"\xff" * 18, _wacz({"a.txt": b"x"})]
)
def test_what_holds_no_archive_is_one_damage(body):
    (item,) = _read(body)
    assert item.reason == "not_a_warc" and item.length == len(body)
    assert _read(body, start=1) == []
    assert _read(b"") == []


def test_a_bomb_is_given_up_in_bounded_space(monkeypatch):
    from pipelines.crawl import wacz

    monkeypatch.setattr(wacz, "_BLOCK_BYTES", 1 << 12)
    page = response_record("https://mill.example/", b"<p>x</p>")
    body = _wacz(
        {"archive/a.warc": page + b"\0" * 3_000_000, "archive/b.warc.gz": FILES["archive/b.warc.gz"]},
        zipfile.ZIP_DEFLATED,
    )
    items = _read(body)
    assert "record_over_bound" in [item.reason for item in items if isinstance(item, Damage)]
    assert sum(isinstance(item, Record) for item in items) >= 4


def test_entries_that_share_bytes_are_read_once():
    body = bytearray(_wacz())
    first = body.find(b"PK\x01\x02")
    names = [body.find(b"archive/", first), body.rfind(b"archive/")]
    headers = [name - 4 for name in names]
    body[headers[1] : headers[1] + 4] = body[headers[0] : headers[0] + 4]
    items = _read(bytes(body))
    assert [type(item) for item in items] == [Record] * 5 + [Damage]


@pytest.mark.parametrize("seed", range(60))
def test_spoilt_zips_never_raise(seed):
    rng = random.Random(seed)
    body = bytearray(_wacz(method=rng.choice((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED))))
    for _ in range(rng.randrange(1, 9)):
        at = rng.randrange(len(body)) if rng.random() < 0.5 else len(body) - rng.randrange(1, 400)
        body[at] = rng.randrange(256)
    _read(bytes(body[: len(body) - rng.choice((0, 0, 5))]))
