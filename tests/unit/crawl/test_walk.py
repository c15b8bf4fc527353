"""However a file is cut, its units hold together what the whole read holds, with damage and archives as payloads."""

from __future__ import annotations

import gzip
import random
import zlib

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from pipelines.crawl import walk
from pipelines.crawl.inputs import cuts
from pipelines.crawl.records import read_items_at, read_record_at
from pipelines.crawl.sources import MemorySource
from pipelines.crawl.warc import Damage, Record, read_warc
from tests.sample.warc_writer import crawl_file, member, response_record

COUNTS = (1, 3, 7, 40)


def _whole(body: bytes) -> list:
    return list(read_warc(MemorySource(body)))


def _cut(body: bytes, count: int) -> list:
    size = max(1, len(body) // count)
    out = []
    for start, end in cuts(len(body), size):
        items = list(read_warc(MemorySource(body), start=start, end=end))
        assert all(start <= item.offset < end for item in items)
        out += items
    return out


def _assert_cuts_agree(body: bytes, counts=COUNTS) -> list:
    whole = _whole(body)
    for count in counts:
        assert _cut(body, count) == whole, count
    return whole


def _noise(rng: random.Random, size: int) -> bytes:
    return rng.randbytes(size).hex().encode()


def _stored(record: bytes) -> bytes:
    """A member that deflate did not compress: its payload lies open in the file."""
    packer = zlib.compressobj(0, zlib.DEFLATED, 31)
    return packer.compress(record) + packer.flush()


def _frame(record: bytes, level: int = 3, dictionary: zstandard.ZstdCompressionDict | None = None) -> bytes:
    return zstandard.ZstdCompressor(level=level, dict_data=dictionary).compress(record)


def _records(rng: random.Random, count: int, inner: list[bytes]) -> list[bytes]:
    """Pages, some of which are archives themselves."""
    out = []
    for n in range(count):
        body = rng.choice(inner) if rng.random() < 0.3 else _noise(rng, rng.choice((10, 300, 3000)))
        out.append(response_record(f"https://mill.example/{n}", body))
    return out


def _inner_archives(rng: random.Random) -> list[bytes]:
    pages = [response_record(f"https://inner.example/{n}", _noise(rng, 400)) for n in range(6)]
    return [
        crawl_file(*pages),
        b"".join(_stored(page) for page in pages),
        b"".join(_frame(page) for page in pages),
        b"".join(pages),
        member(b"".join(pages)),
    ]


def _packed(rng: random.Random, form: str, count: int) -> list[bytes]:
    """The pieces of a file: members, frames or plain records, and now and then a stored one."""
    records = _records(rng, count, _inner_archives(rng))
    if form == "plain":
        return records
    if form == "gzip":
        return [_stored(r) if rng.random() < 0.5 else member(r, level=1) for r in records]
    dictionary = zstandard.train_dictionary(4096, [response_record(str(n), _noise(rng, 200)) for n in range(200)])
    head = b"\x5d\x2a\x4d\x18" + len(dictionary.as_bytes()).to_bytes(4, "little") + dictionary.as_bytes()
    return [head, *(_frame(r, dictionary=dictionary) for r in records)]


@pytest.mark.parametrize("form", ["gzip", "zstd", "plain"])
@pytest.mark.parametrize("seed", range(4))
def test_any_cut_gives_the_whole_reads_items(form, seed):
    body = b"".join(_packed(random.Random(f"{form} {seed}"), form, 60))
    whole = _assert_cuts_agree(body)
    assert [item.target_uri[:20] for item in whole] == [b"https://mill.example"] * 60


@pytest.mark.parametrize("form", ["gzip", "zstd", "plain"])
@pytest.mark.parametrize("seed", range(6))
def test_any_cut_of_a_damaged_file_gives_the_whole_reads_items(form, seed):
    rng = random.Random(f"damaged {form} {seed}")
    pieces = _packed(rng, form, 60)
    for n in rng.sample(range(1, len(pieces)), 8):
        piece = pieces[n]
        at = rng.randrange(len(piece))
        pieces[n] = rng.choice(
            (
                piece[:at],
                piece[:at] + rng.randbytes(5) + piece[at + 5 :],
                rng.randbytes(rng.choice((3, 900))) + piece,
                piece[at:],
                b"\0" * 700 + piece,
            )
        )
    whole = _assert_cuts_agree(b"".join(pieces))
    assert any(isinstance(item, Damage) for item in whole)
    assert sum(isinstance(item, Record) for item in whole) >= 40


@given(
    st.integers(0, 2**32),
    st.sampled_from(["gzip", "zstd", "plain"]),
    st.lists(st.tuples(st.floats(0, 1), st.binary(max_size=9), st.integers(0, 400)), max_size=4),
    st.integers(2, 50),
)
def test_any_cut_of_anything_gives_the_whole_reads_items(seed, form, edits, count):
    body = bytearray(b"".join(_packed(random.Random(seed), form, 12)))
    for where, noise, drop in edits:
        at = int(where * len(body))
        body[at : at + drop] = noise
    _assert_cuts_agree(bytes(body), (count,))


@pytest.mark.parametrize("form", ["gzip", "zstd"])
def test_far_from_its_start_a_file_is_read_from_an_anchor_and_not_from_the_start(form, monkeypatch):
    """Sizes at which units never look at the first megabyte, with open payloads longer than a stored block."""
    rng = random.Random(form)
    pack = _stored if form == "gzip" else _frame
    inner = b"".join(pack(response_record(f"https://inner.example/{n}", rng.randbytes(18_000))) for n in range(20))
    assert len(inner) > 300_000
    pieces = []
    for n in range(40):
        body = inner if n % 3 == 0 and n < 20 else rng.randbytes(12_000)
        record = response_record(f"https://mill.example/{n}", body)
        pieces.append(pack(record))
    body = b"".join(pieces)
    middle = len(b"".join(pieces[:17])) + 100
    damaged = body[:middle] + b"\xff" * 9 + body[middle + 9 :]
    monkeypatch.setattr(walk, "_FIRST_LOOK_BACK", 200 << 10)
    for each in (body, damaged):
        assert len(each) > 2_000_000
        whole = _assert_cuts_agree(each, (3, 7, 40))
        assert all(b"mill" in item.target_uri for item in whole if isinstance(item, Record))
    seen = []

    class Watched(MemorySource):
        def read(self, start, size):
            seen.append(start)
            return super().read(start, size)

    start = len(body) - 20_000
    assert list(read_warc(Watched(body), start=start))
    assert [at for at in seen if 64 < at < start - 300_000] == []


@pytest.mark.parametrize("form", ["gzip", "zstd"])
@pytest.mark.parametrize("size", [10, 50_000, 400_000])
def test_records_of_any_size_are_found_after_damage(form, size):
    rng = random.Random(size)
    pack = member if form == "gzip" else _frame
    pieces = [pack(response_record(f"https://mill.example/{n}", rng.randbytes(size))) for n in range(4)]
    pieces[1] = pieces[1][: len(pieces[1]) // 2]
    items = _assert_cuts_agree(b"".join(pieces), (3,))
    assert [type(item) for item in items] == [Record, Damage, Record, Record]


def test_a_file_that_is_one_member_is_given_by_its_first_unit_alone():
    rng = random.Random(1)
    body = gzip.compress(b"".join(_records(rng, 50, _inner_archives(rng))), mtime=0)
    assert len(_assert_cuts_agree(body)) == 50
    assert len(list(read_items_at(MemorySource(body), offset=0))) == 50
    assert read_record_at(MemorySource(body), offset=0, index=7) == _whole(body)[7]
    assert list(read_warc(MemorySource(body), start=1)) == []


def test_a_unit_far_inside_one_member_does_not_inflate_it(monkeypatch):
    monkeypatch.setattr(walk, "_FIRST_LOOK_BACK", 1 << 10)
    monkeypatch.setattr(walk, "_FAR", 4 << 10)
    body = member(response_record("https://mill.example/1", _noise(random.Random(2), 400_000)))
    asked = []

    class Counted(MemorySource):
        def read(self, start, size):
            asked.append(size)
            return super().read(start, size)

    assert list(read_warc(Counted(body), start=len(body) - 5000)) == []
    assert sum(asked) < len(body)
    assert len(list(read_warc(MemorySource(body)))) == 1
