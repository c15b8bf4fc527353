"""The fast inflater gives what zlib gives, and what is said of broken streams is zlib's word."""

from __future__ import annotations

import gzip
import random
import zlib

import pytest

from pipelines.crawl.entity import UndecodableError, entity_body
from pipelines.crawl.inflate import InflateError, inflater

GZIPPED = {"content-encoding": "gzip"}


def _outcome(stream, packed: bytes, limit: int) -> tuple:
    try:
        return stream.decompress(packed, limit), stream.eof, stream.unused_data, len(stream.unconsumed_tail) > 0
    except (zlib.error, InflateError):
        return ("broken",)


@pytest.mark.parametrize("level", [0, 1, 6, 9])
def test_sound_cut_and_spoilt_members_come_out_as_from_zlib(level):
    rng = random.Random(level)
    for n in range(60):
        body = rng.choice([rng.randbytes(n * 37), b"mill " * n * 40, bytes(n * 900)])
        packed = bytearray(gzip.compress(body, level) + b"rest")
        if n % 3 == 1:
            packed[rng.randrange(len(packed))] ^= 1 << rng.randrange(8)
        if n % 3 == 2:
            del packed[rng.randrange(len(packed)) :]
        for limit in (1 << 20, 100):
            ours, theirs = (_outcome(make(31), bytes(packed), limit) for make in (inflater, zlib.decompressobj))
            assert ours == theirs


def test_a_broken_body_is_told_in_the_words_of_zlib():
    spoilt = bytearray(gzip.compress(b"mill " * 999))
    spoilt[12] ^= 0xFF
    with pytest.raises(zlib.error) as known:
        zlib.decompressobj(31).decompress(bytes(spoilt))
    with pytest.raises(UndecodableError) as told:
        entity_body(bytes(spoilt), GZIPPED, max_bytes=1 << 20)
    assert told.value.args == ("bad_encoding", str(known.value))
