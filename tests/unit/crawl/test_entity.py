"""Stored payloads become entity bytes, whatever the headers claim."""

from __future__ import annotations

import gzip
import zlib

import brotli
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.crawl.entity import UndecodableError, entity_body

HANS = "<p>磨坊把谷物磨成面粉，过程分为清理、研磨和筛分三步。镕基、㙍这些字不在国标里。</p>" * 3
BIG = 1 << 20


def _raw_deflate(body: bytes) -> bytes:
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    return packer.compress(body) + packer.flush()


ENCODERS = {
    "gzip": gzip.compress,
    "x-gzip": gzip.compress,
    "deflate": zlib.compress,
    "deflate (raw)": _raw_deflate,
    "br": brotli.compress,
    "zstd": zstandard.ZstdCompressor().compress,
    "identity": bytes,
}


def _chunked(body: bytes, size: int = 100) -> bytes:
    pieces = [body[at : at + size] for at in range(0, len(body), size)]
    return b"".join(b"%x;note=1\r\n%s\r\n" % (len(p), p) for p in pieces) + b"0\r\n\r\n"


@pytest.mark.parametrize("name", ENCODERS)
def test_content_encodings_are_undone_also_inside_chunks(name):
    body = HANS.encode() * 20
    headers = {"content-encoding": name.split(" ")[0]}
    assert entity_body(ENCODERS[name](body), headers, max_bytes=BIG) == body
    headers["transfer-encoding"] = "Chunked"
    assert entity_body(_chunked(ENCODERS[name](body)), headers, max_bytes=BIG) == body


@pytest.mark.parametrize("name", ENCODERS)
def test_a_body_that_was_stored_decoded_is_left_alone(name):
    body = HANS.encode()
    headers = {"content-encoding": name.split(" ")[0], "transfer-encoding": "chunked"}
    assert entity_body(body, headers, max_bytes=BIG) == body


@pytest.mark.parametrize("name", [n for n in ENCODERS if n != "identity"])
def test_a_small_body_that_inflates_without_end_is_refused_in_bounded_memory(name):
    bomb = ENCODERS[name](bytes(20 << 20))
    with pytest.raises(UndecodableError) as caught:
        entity_body(bomb, {"content-encoding": name.split(" ")[0]}, max_bytes=BIG)
    assert caught.value.args[0] == "too_long"


def test_encodings_on_top_of_each_other_are_undone_from_the_last():
    body = gzip.compress(brotli.compress(b"<p>twice</p>"))
    assert entity_body(body, {"content-encoding": "br, gzip"}, max_bytes=BIG) == b"<p>twice</p>"


@pytest.mark.parametrize(
    ("body", "headers"),
    [
        (gzip.compress(b"<p>x</p>" * 99)[:-20], {"content-encoding": "gzip"}),
        (b"<p>", {"content-encoding": "sdch"}),
        (b"<p>", {"content-encoding": "gzip," * 9}),
        (b"5\r\nabc", {"transfer-encoding": "chunked"}),
        (b"ffffffffffffffff\r\nabc", {"transfer-encoding": "chunked"}),
        (b"3\r\nabc\r\nzz\r\n", {"transfer-encoding": "chunked"}),
    ],
)
def test_what_is_cut_or_unknown_is_said_to_be(body, headers):
    with pytest.raises(UndecodableError) as caught:
        entity_body(body, headers, max_bytes=BIG)
    assert caught.value.args[0] == "bad_encoding"


def test_a_gzip_body_of_several_members_is_read_whole_and_bytes_behind_it_are_left_out():
    body = gzip.compress(b"<p>one</p>") + gzip.compress(b"<p>two</p>") + b"\0\0padding"
    assert entity_body(body, {"content-encoding": "gzip"}, max_bytes=BIG) == b"<p>one</p><p>two</p>"


def test_members_without_end_are_refused_by_size_and_by_number():
    headers = {"content-encoding": "gzip"}
    for body, reason in ((gzip.compress(bytes(BIG // 8)) * 9, "too_long"), (gzip.compress(b"") * 99, "bad_encoding")):
        with pytest.raises(UndecodableError) as caught:
            entity_body(body, headers, max_bytes=BIG)
        assert caught.value.args[0] == reason


def test_a_second_member_that_is_cut_is_said_to_be():
    with pytest.raises(UndecodableError, match="cut"):
        entity_body(gzip.compress(b"one") + gzip.compress(b"two")[:-4], {"content-encoding": "gzip"}, max_bytes=BIG)


@given(st.binary(max_size=300), st.sampled_from(["gzip", "deflate", "br", "zstd", "gzip, br"]))
@settings(deadline=None, max_examples=150)
def test_any_body_under_any_header_decodes_or_is_refused(body, encoding):
    for transfer in ("", "chunked"):
        try:
            out = entity_body(body, {"content-encoding": encoding, "transfer-encoding": transfer}, max_bytes=1000)
        except UndecodableError as error:
            assert error.args[0] in ("bad_encoding", "too_long")
        else:
            assert len(out) <= 1000
