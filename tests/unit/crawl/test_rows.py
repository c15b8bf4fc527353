"""Rows of JSON lines and Parquet: each is a record or one damage, and no row costs another."""

from __future__ import annotations

import gzip
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from pipelines.crawl.inputs import cuts
from pipelines.crawl.records import InputSettings, read_record_at, read_records
from pipelines.crawl.rows import RowColumns
from pipelines.crawl.sources import MemorySource
from pipelines.crawl.warc import Damage, Record, WarcBounds
from pipelines.errors import StoreError

ROWS = [
    {"text": "第一页的正文", "url": "https://mill.example/1", "title": "一", "id": "a"},
    {"html": "<p>two</p>", "text": "unused", "url": "https://mill.example/2", "language": "en", "date": "2026-01-02"},
    {"content": "third", "score": 0.5, "id": 3},
]


def _lines(*rows) -> bytes:
    return b"".join(json.dumps(row, ensure_ascii=False).encode() + b"\n" for row in rows)


def _read(body: bytes, form: str = "jsonl", **how) -> list:
    return list(read_records(MemorySource(body), form=form, **how))


def _parquet(rows: list[dict] | pa.Table, group: int = 2, **how) -> bytes:
    table = rows if isinstance(rows, pa.Table) else pa.Table.from_pylist(rows)
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, row_group_size=group, **how)
    return sink.getvalue().to_pybytes()


def test_a_row_becomes_the_record_of_its_page():
    one, two, three = _read(_lines(*ROWS))
    assert (one.record_type, one.target_uri, one.body.decode()) == (
        "conversion",
        b"https://mill.example/1",
        "第一页的正文",
    )
    assert one.headers["content-type"] == "text/plain; charset=utf-8"
    assert one.fields == {"id": "a", "title": "一"}
    assert (two.record_type, two.body, two.headers["content-type"]) == (
        "resource",
        b"<p>two</p>",
        "text/html; charset=utf-8",
    )
    assert two.fields == {"language": "en"} and two.headers["warc-date"] == "2026-01-02"
    assert (three.body, three.target_uri, three.fields) == (b"third", b"", {"id": "3"})


@pytest.mark.parametrize(
    "pack",
    [
        gzip.compress,
        zstandard.compress,
        lambda body: gzip.compress(body[:40]) + gzip.compress(body[40:]),
        lambda body: zstandard.compress(body[:40]) + zstandard.compress(body[40:]),
    ],
)
def test_compressed_lines_are_the_same_lines(pack):
    body = _lines(*ROWS)
    assert _read(pack(body)) == _read(body)


def test_columns_are_named_by_setting():
    settings = InputSettings(columns=RowColumns(text=("body",), url=("link",)))
    (item,) = _read(_lines({"body": "x", "link": "https://mill.example/", "text": "no"}), settings=settings)
    assert (item.body, item.target_uri) == (b"x", b"https://mill.example/")


@pytest.mark.parametrize(
    "line",
    [
        b"{", b"[]", b"17", b"null", b"\xff\xfe\x00", b'{"text": 5}', b'{"text": null}', b'{"text": ["a"]}', b"{}",
        b'{"text": "a", "url": {"x": 1}}', b"[" * 200_000, b'{"a":' * 100_000, b'{"text": ' + b"9" * 10_000 + b"}",
    ],
)  # fmt: skip
def test_a_broken_line_costs_itself(line):
    items = _read(_lines(ROWS[0]) + line + b"\n" + _lines(ROWS[2]))
    assert [type(item) for item in items] == [Record, Damage, Record]
    assert items[1].reason == "not_a_record" and items[1].length == len(line) + 1


def test_a_line_over_the_bound_is_not_held():
    body = _lines(ROWS[0], {"text": "x" * 50_000}, ROWS[2])
    items = _read(body, bounds=WarcBounds(body_bytes=1000))
    assert [type(item) for item in items] == [Record, Damage, Record]
    assert items[1].reason == "record_over_bound"
    items = _read(body, bounds=WarcBounds(body_bytes=40_000))
    assert [item.over_bound for item in items] == [False, True, False]


def test_odd_but_readable_lines_are_read():
    body = (
        "﻿".encode() + b'{"text": "a"}\r\n\r\n\n  \n{"text": "\\ud800 b", "title": "\\udfff"}\n{"text": "no line end"}'
    )
    items = _read(body)
    assert [item.body.decode() for item in items] == ["a", "� b", "no line end"]
    assert items[1].fields == {"title": "�"}
    assert _read(b"") == []


@pytest.mark.parametrize("pack", [gzip.compress, zstandard.compress])
def test_a_cut_stream_gives_the_lines_before_the_cut_and_one_damage(pack):
    rows = [{"text": f"{n} {n * n}" * 9} for n in range(4000)]
    packed = pack(_lines(*rows))
    items = _read(packed[: len(packed) * 3 // 4])
    assert len(items) > 100 and [type(item) for item in items[-2:]] == [Record, Damage]
    assert all(isinstance(item, Record) for item in items[:-1])
    (only,) = _read(packed[:12] + b"\xff" * 40)
    assert isinstance(only, Damage)


@given(st.lists(st.sampled_from([*map(_lines, ROWS), b"\n", b"{\n", b"\r\n", b"x" * 90 + b"\n"])), st.integers(1, 60))
def test_any_cut_of_lines_gives_the_same_items(pieces, count):
    body = b"".join(pieces)
    whole = _read(body)
    size = max(1, len(body) // count)
    assert [item for a, b in cuts(len(body), size) for item in _read(body, start=a, end=b)] == whole
    for item in whole:
        assert read_record_at(MemorySource(body), form="jsonl", offset=item.offset) == item


def test_a_line_of_a_compressed_file_is_found_by_its_place():
    body = gzip.compress(_lines(*ROWS))
    for item in _read(body):
        assert read_record_at(MemorySource(body), form="jsonl", offset=item.offset) == item
    assert read_record_at(MemorySource(body), form="jsonl", offset=7) is None


def test_parquet_rows_come_by_row_groups_and_any_cut_gives_the_same():
    rows = [{"text": f"text {n}", "url": f"https://mill.example/{n}", "extra": n, "id": str(n)} for n in range(11)]
    body = _parquet(rows)
    whole = _read(body, "parquet")
    assert [(item.offset, item.body) for item in whole] == [(n, b"text %d" % n) for n in range(11)]
    assert whole[3].fields == {"id": "3"}
    for count in (1, 3, 7, 40):
        pieces = [
            i for a, b in cuts(len(body), max(1, len(body) // count)) for i in _read(body, "parquet", start=a, end=b)
        ]
        assert pieces == whole
    for item in whole:
        assert read_record_at(MemorySource(body), form="parquet", offset=item.offset) == item
    assert read_record_at(MemorySource(body), form="parquet", offset=11) is None


def test_parquet_of_bytes_nulls_and_wrong_types():
    table = pa.table({"html": pa.array([b"<p>\xff</p>", None], pa.binary()), "text": pa.array([None, "t"])})
    assert [item.body for item in _read(_parquet(table), "parquet")] == [b"<p>\xff</p>", b"t"]
    table = pa.table({"text": pa.array([1, None]), "id": pa.array(["a", "b"])})
    assert [item.reason for item in _read(_parquet(table), "parquet")] == ["not_a_record"] * 2
    table = pa.table({"other": [1]})
    assert [item.reason for item in _read(_parquet(table), "parquet")] == ["not_a_record"]
    table = pa.table({"text": pa.array(["x" * 5000, "y"])})
    assert [i.over_bound for i in _read(_parquet(table), "parquet", bounds=WarcBounds(body_bytes=99))] == [True, False]


def test_a_row_group_that_cannot_be_decoded_costs_its_rows():
    rows = [{"text": f"{n} {'word' * n}", "url": f"https://mill.example/{n}"} for n in range(30)]
    body = _parquet(rows, 10, compression="zstd", use_dictionary=False)
    start = pq.ParquetFile(pa.BufferReader(body)).metadata.row_group(1).column(0).data_page_offset
    spoilt = body[: start + 4] + b"\xff" * 40 + body[start + 44 :]
    items = _read(spoilt, "parquet")
    assert [item.offset for item in items if isinstance(item, Record)][-10:] == list(range(20, 30))
    assert sum(isinstance(item, Damage) for item in items) == 1


@pytest.mark.parametrize(
    "body", [b"PAR1", b"PAR1PAR1", b"PAR1" + b"\xff\xff\xff\x7fPAR1", b"x" * 99, b"PAR1xxxx\4\0\0\0PAR1"]
)
def test_what_is_no_parquet_is_one_damage_of_the_first_unit(body):
    (item,) = _read(body, "parquet")
    assert item.reason == "not_a_warc"
    assert _read(body, "parquet", start=2) == []


@given(st.integers(0, 3000), st.binary(max_size=12))
def test_spoilt_parquet_never_raises(at, noise):
    body = _parquet([{"text": f"text {n}", "id": str(n)} for n in range(9)], 3)
    at %= len(body)
    _read(body[:at] + noise + body[at + len(noise) :], "parquet")


def test_an_error_of_the_store_is_no_damage():
    class Failing(MemorySource):
        def read(self, start, size):
            if 4 < start < self.size_bytes - 2000:
                raise StoreError("503")
            return super().read(start, size)

    body = _parquet([{"text": f"{n}" * 4000} for n in range(99)], 9, use_dictionary=False, compression="none")
    with pytest.raises(StoreError):
        list(read_records(Failing(body), form="parquet"))
