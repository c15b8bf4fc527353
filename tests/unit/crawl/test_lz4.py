"""Archives in lz4 frames, as FastWARC writes them."""

from __future__ import annotations

import io
import random

import pytest

from pipelines.crawl.inputs import cuts
from pipelines.crawl.sources import MemorySource
from pipelines.crawl.warc import Damage, Record, WarcBounds, read_warc
from tests.sample.warc_writer import response_record

stream_io = pytest.importorskip("fastwarc.stream_io", reason="FastWARC is not installed: pip install fastwarc")


def _frame(record: bytes) -> bytes:
    out = io.BytesIO()
    writer = stream_io.Lz4Writer(out)
    writer.write(record)
    writer.finish()
    writer.flush()
    return out.getvalue()


def _pages(count: int, size: int = 500) -> list[bytes]:
    rng = random.Random(7)
    return [response_record(f"https://mill.example/{n}", rng.randbytes(size).hex().encode()) for n in range(count)]


def _read(body: bytes, **how) -> list:
    return list(read_warc(MemorySource(body), **how))


def test_frames_are_read_and_cut_like_members():
    pages = _pages(6)
    whole = _read(b"".join(map(_frame, pages)))
    assert [item.body for item in whole] == [item.body for item in _read(b"".join(pages))]
    body = b"".join(map(_frame, pages))
    for count in (3, 7, 40):
        assert [i for a, b in cuts(len(body), len(body) // count) for i in _read(body, start=a, end=b)] == whole


def test_a_broken_frame_costs_itself():
    frames = [_frame(page) for page in _pages(3)]
    for spoilt in (frames[1][:-20], frames[1][:4] + b"\xff\xff" + frames[1][6:], frames[1][:40]):
        items = _read(frames[0] + spoilt + frames[2])
        assert [type(item) for item in items] == [Record, Damage, Record]
    assert [type(item) for item in _read(frames[0] + frames[1][:100])] == [Record, Damage]


def test_a_frame_larger_than_the_short_way_holds_is_read_piece_by_piece():
    items = _read(b"".join(map(_frame, _pages(2, 3_000_000))))
    assert [len(item.body) for item in items] == [6_000_000, 6_000_000]
    bounds = WarcBounds(body_bytes=1000)
    assert [item.over_bound for item in _read(b"".join(map(_frame, _pages(2, 3_000_000))), bounds=bounds)] == [True] * 2
