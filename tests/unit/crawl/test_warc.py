"""Every byte region of a crawl file ends in exactly one item, whatever the bytes are."""

from __future__ import annotations

import gzip
import zlib
from itertools import pairwise

import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.crawl.sources import MemorySource, StoreSource
from pipelines.crawl.warc import Damage, Record, Skipped, WarcBounds, read_warc
from pipelines.datasets.store import MemoryStore
from tests.sample.warc_writer import crawl_file, http_response, member, response_record, warc_record


def _page(n: int, size: int = 400) -> bytes:
    noise = "".join(chr(97 + (i * i + n) % 26) for i in range(size))
    return response_record(f"https://mill.example/{n}", f"<p>page {n} {noise}</p>".encode())


def _read(body: bytes, **how) -> list:
    return list(read_warc(MemorySource(body), **how))


def _kinds(items: list) -> list[str]:
    return [
        i.reason if isinstance(i, Damage) else i.target_uri.decode()[-1] if isinstance(i, Record) else "s"
        for i in items
    ]


def test_members_come_out_in_order_with_their_place_in_the_file():
    records = [
        _page(0),
        warc_record("request", b"GET / HTTP/1.1\r\n\r\n", url="https://mill.example/0"),
        _page(1),
    ]
    members = [member(r) for r in records]
    items = _read(b"".join(members))
    assert _kinds(items) == ["0", "s", "1"]
    assert [(i.offset, i.length) for i in items] == [
        (0, len(members[0])),
        (len(members[0]), len(members[1])),
        (len(members[0]) + len(members[1]), len(members[2])),
    ]
    assert items[0].http_status == 200
    assert items[0].body.startswith(b"<p>page 0")
    assert items[0].http_headers["content-type"] == "text/html; charset=utf-8"


def test_a_truncated_last_member_is_damage_and_not_a_record():
    first, last = member(_page(0)), member(_page(1))
    for cut in range(1, len(last)):
        items = _read(first + last[:cut])
        assert _kinds(items)[0] == "0", cut
        assert len(items) == 2 and isinstance(items[1], Damage), cut
        assert (items[1].offset, items[1].length) == (len(first), cut)


def test_a_flipped_bit_in_the_middle_costs_one_record():
    members = [member(_page(n)) for n in range(3)]
    start = len(members[0])
    for at in range(20, len(members[1]) - 8, 7):
        body = bytearray(b"".join(members))
        body[start + at] ^= 0x40
        items = _read(bytes(body))
        assert isinstance(items[1], Damage), at
        assert [_kinds(items)[0], _kinds(items)[-1]] == ["0", "2"], at
        assert (items[1].offset, items[1].length) == (start, len(members[1]))


def test_a_member_cut_in_the_middle_of_the_file_loses_no_neighbour():
    members = [member(_page(n)) for n in range(3)]
    items = _read(members[0] + members[1][:150] + members[2])
    assert [type(i) for i in items] == [Record, Damage, Record]
    assert _kinds(items)[2] == "2"


def test_garbage_between_members_is_one_region():
    items = _read(member(_page(0)) + b"\0" * 777 + member(_page(1)))
    assert _kinds(items) == ["0", "garbage_between_records", "1"]
    assert items[1].length == 777


def test_a_wrong_content_length_is_reported_and_the_neighbours_stay():
    block = http_response(b"<p>page</p>" * 30)
    for claim in (len(block) - 20, len(block) + 20, "-5", "", "ten", 10**17, "9" * 40):
        wrong = warc_record("response", block, url="https://mill.example/x", content_length=claim)
        for items in (_read(crawl_file(_page(0), wrong, _page(1))), _read(_page(0) + wrong + _page(1))):
            assert [type(i) for i in items] == [Record, Damage, Record], claim
            assert _kinds(items)[::2] == ["0", "1"], claim


def test_an_uncompressed_file_gives_the_same_records_as_members():
    records = [_page(n) for n in range(4)]
    plain = _read(b"".join(records))
    packed = _read(crawl_file(*records))
    assert [i.body for i in plain] == [i.body for i in packed]
    assert [(i.offset, i.length) for i in plain][1][0] == len(records[0])


def test_a_file_that_is_one_member_gives_its_records_with_their_number():
    items = _read(gzip.compress(b"".join(_page(n) for n in range(3)), mtime=0))
    assert _kinds(items) == ["0", "1", "2"]
    assert [(i.offset, i.index) for i in items] == [(0, 0), (0, 1), (0, 2)]


def test_what_is_no_warc_is_one_damage_for_the_whole_file():
    for body in (
        b"just some text\n" * 50,
        gzip.compress(b"a,b\n1,2\n"),
        b"<html>error</html>",
        b"\x28\xb5\x2f\xfd123",
    ):
        items = _read(body)
        assert _kinds(items) == ["not_a_warc"]
        assert (items[0].offset, items[0].length) == (0, len(body))


def test_an_empty_file_and_an_empty_member_hold_nothing():
    assert _read(b"") == []
    assert _kinds(_read(gzip.compress(b"", mtime=0) + member(_page(3)))) == ["3"]


def test_a_body_over_the_bound_is_marked_and_not_held():
    bounds = WarcBounds(body_bytes=1000)
    items = _read(crawl_file(_page(0, 5000), _page(1)), bounds=bounds)
    assert items[0].over_bound and items[0].body == b""
    assert not items[1].over_bound


def test_a_record_that_inflates_without_end_is_given_up():
    bomb = warc_record("response", b"\0" * 3_000_000, url="https://mill.example/bomb")
    items = _read(crawl_file(_page(0), bomb, _page(1)), bounds=WarcBounds(body_bytes=1000, record_bytes=1 << 20))
    assert _kinds(items) == ["0", "record_over_bound", "1"]


def test_a_header_without_end_is_damage():
    endless = b"WARC/1.1\r\n" + b"X-Filler: 0123456789\r\n" * 20_000
    items = _read(crawl_file(_page(0), endless, _page(1)))
    assert _kinds(items) == ["0", "header_over_bound", "1"]


def test_line_feeds_alone_end_lines_too():
    items = _read(b"".join(_page(n).replace(b"\r\n", b"\n") for n in range(2)))
    # The block's own line ends went too, so its length claim is short by them: rebuild it honestly.
    block = http_response(b"<p>x</p>").replace(b"\r\n", b"\n")
    record = warc_record("response", block, url="https://mill.example/7").replace(b"\r\n", b"\n")
    assert _kinds(_read(record + record)) == ["7", "7"]
    assert all(isinstance(i, Damage | Record) for i in items)


def test_angle_brackets_around_the_target_uri_are_taken_off():
    record = warc_record("response", http_response(b"<p>x</p>"), url="<https://mill.example/5>", version="WARC/1.0")
    assert _read(member(record))[0].target_uri == b"https://mill.example/5"


def test_types_without_a_page_are_skipped_and_named():
    types = ["warcinfo", "request", "metadata", "revisit", "continuation", "no-such-type"]
    items = _read(crawl_file(*(warc_record(t, b"x") for t in types)))
    assert [i.record_type for i in items] == types
    assert all(isinstance(i, Skipped) for i in items)


def _zstd_file(*records: bytes, dictionary: bytes | None = None) -> bytes:
    if dictionary is None:
        return b"".join(zstandard.ZstdCompressor().compress(record) for record in records)
    trained = zstandard.ZstdCompressionDict(dictionary)
    head = b"\x5d\x2a\x4d\x18" + len(dictionary).to_bytes(4, "little") + dictionary
    return head + b"".join(zstandard.ZstdCompressor(dict_data=trained).compress(record) for record in records)


def test_zstd_frames_are_read_with_and_without_a_dictionary():
    records = [_page(n) for n in range(4)]
    expected = [item.body for item in _read(b"".join(records))]
    trained = zstandard.train_dictionary(2000, [_page(n, 40 + n) for n in range(500)]).as_bytes()
    for body in (_zstd_file(*records), _zstd_file(*records, dictionary=trained)):
        assert [item.body for item in _read(body)] == expected
    frames = [_zstd_file(record) for record in records]
    broken = frames[0] + frames[1][:-30] + b"\xff" * 9 + frames[2] + frames[3][:50]
    assert [type(item) for item in _read(broken)] == [Record, Damage, Record, Damage]


def test_a_zstd_frame_that_inflates_without_end_is_given_up():
    bomb = warc_record("response", b"\0" * (64 << 20), url="https://mill.example/bomb")
    items = _read(_zstd_file(_page(0), bomb, _page(1)), bounds=WarcBounds(body_bytes=1000, record_bytes=1 << 20))
    assert _kinds(items) == ["0", "record_over_bound", "1"]


def test_a_zstd_file_whose_dictionary_is_no_dictionary_is_no_warc():
    for size in (10, 2**31):
        (item,) = _read(b"\x5d\x2a\x4d\x18" + size.to_bytes(4, "little") + b"\x28\xb5\x2f\xfdxxxxxxxxx")
        assert item.reason == "not_a_warc"


def test_a_zstd_file_whose_dictionary_is_spoilt_is_no_warc():
    trained = zstandard.train_dictionary(2048, [b"%d mill" % n * 9 for n in range(2000)]).as_bytes()
    frame = zstandard.compress(_page(0))
    for at in range(8, 200, 3):
        spoilt = trained[:at] + bytes([trained[at] ^ 255]) + trained[at + 1 :]
        for item in _read(b"\x5d\x2a\x4d\x18" + len(spoilt).to_bytes(4, "little") + spoilt + frame):
            assert isinstance(item, Damage | Record)


def test_a_store_read_in_small_blocks_gives_the_same_items():
    body = crawl_file(*(_page(n) for n in range(6)))[:-9]
    store = MemoryStore()
    store.put("a.warc.gz", body)
    for block_bytes in (1, 7, 100, 1 << 20):
        source = StoreSource(store, "a.warc.gz", len(body), block_bytes=block_bytes)
        assert list(read_warc(source)) == _read(body)


@given(cuts=st.lists(st.integers(0, 3000), max_size=5), count=st.integers(1, 8))
@settings(deadline=None, max_examples=60)
def test_cutting_a_file_into_ranges_changes_nothing(cuts, count):
    body = crawl_file(*(_page(n, 50 + 40 * n) for n in range(count)))
    edges = sorted({0, len(body), *(c for c in cuts if c < len(body))})
    pieces = [i for a, b in pairwise(edges) for i in _read(body, start=a, end=b)]
    assert pieces == _read(body)


@given(at=st.integers(0, 2500), noise=st.binary(max_size=40), drop=st.integers(0, 60))
@settings(deadline=None, max_examples=200)
def test_any_damage_leaves_disjoint_regions_and_far_records_alone(at, noise, drop):
    members = [member(_page(n)) for n in range(6)]
    whole = b"".join(members)
    at = min(at, len(whole))
    items = _read(whole[:at] + noise + whole[at + drop :])
    ends = 0
    for item in items:
        assert item.offset >= ends
        ends = item.offset + item.length
    starts = [sum(map(len, members[:n])) for n in range(7)]
    far = [str(n) for n in range(6) if starts[n + 1] <= at or starts[n] >= at + drop]
    assert [k for k in _kinds(items) if k in far] == far


@given(st.binary(max_size=300))
@settings(deadline=None, max_examples=200)
def test_arbitrary_bytes_never_raise(body):
    for head in (b"", b"\x1f\x8b\x08", b"WARC/1.0\r\n", zlib.compress(body), gzip.compress(body)):
        for item in _read(head + body):
            assert 0 <= item.offset <= item.offset + item.length <= len(head + body)


def test_false_claims_of_a_plain_file_are_not_read_to_their_ends():
    """Else a file of such records would cost the square of its size."""
    record = b"WARC/1.1\r\nWARC-Type: response\r\nContent-Length: %d\r\n\r\nx\r\n\r\n"
    body = b"".join(record % (900_000 - 100 * n) for n in range(5000)) + b"\n" * 1_000_000
    read = 0

    class Counted(MemorySource):
        def read(self, start, size):
            nonlocal read
            got = super().read(start, size)
            read += len(got)
            return got

    items = list(read_warc(Counted(body)))
    assert len(items) == 5000 and all(isinstance(item, Damage) for item in items)
    assert read < 5000 * (300 << 10)


def test_a_version_line_inside_a_head_begins_another_record():
    broken = b"WARC/1.1\r\nWARC-Type: response\r\n"
    items = _read(_page(0) + broken + _page(1))
    assert _kinds(items) == ["0", "not_a_record", "1"]
    assert items[1].length == len(broken)
    assert len(_read(b"WARC/1.0\r\n" * 3000)) == 3000
