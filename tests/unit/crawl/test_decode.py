"""Bytes as sent become text, whatever was declared."""

from __future__ import annotations

import gzip
import zlib

import brotli
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.crawl.decode import decode_text
from pipelines.crawl.entity import UndecodableError, entity_body

HANS = "<p>磨坊把谷物磨成面粉，过程分为清理、研磨和筛分三步。镕基、㙍这些字不在国标里。</p>" * 3
HANT = "<p>磨坊把穀物磨成麵粉，過程分為清理、研磨和篩分三步。這是繁體中文的網頁內容。</p>" * 3
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


@pytest.mark.parametrize("declared", ["gb2312", "gbk", "GB18030", "iso-8859-1", "utf-8", None, "no-such"])
def test_gb_pages_read_right_whatever_they_declare(declared):
    body = HANS.encode("gb18030")
    content_type = f"text/html; charset={declared}" if declared else None
    assert decode_text(body, content_type) == (HANS, "gb18030")


@pytest.mark.parametrize("declared", ["big5", "Big5-HKSCS", None])
def test_big5_pages_read_right(declared):
    body = HANT.encode("big5")
    text, charset = decode_text(body, f"text/html; charset={declared}" if declared else None)
    assert (text, charset) == (HANT, "big5hkscs")


@pytest.mark.parametrize("declared", ["gb2312", "gbk", "utf-8", "iso-8859-1", None])
def test_big5_under_a_wrong_label_reads_right(declared):
    body = HANT.encode("big5")
    assert decode_text(body, f"text/html; charset={declared}" if declared else None) == (HANT, "big5hkscs")


def test_gb_under_the_label_of_big5_and_little_gb_among_much_code_read_right():
    assert decode_text(HANS.encode("gb18030"), "text/html; charset=big5")[1] == "gb18030"
    code = "<pre>" + "for (i = 0; i < n; i++) { a[i] = b[i]; }\n" * 80 + "</pre>"
    assert decode_text((code + HANS[:120]).encode("gb18030"), None)[1] == "gb18030"


@pytest.mark.parametrize(
    ("text", "codec"),
    [
        ("Жернова медленно вращаются, и зерно становится мукой. " * 5, "cp1251"),
        ("Les meules tournent lentement là où l'été s'achève déjà. " * 5, "cp1252"),
        ("石臼はゆっくりと回り、穀物は粉になる。この谷では昔からそうだった。" * 5, "cp932"),
        ("石臼はゆっくりと回り、穀物は粉になる。この谷では昔からそうだった。" * 5, "euc_jp"),
        ("맷돌은 천천히 돌고 곡식은 가루가 된다. 이 골짜기에서는 늘 그랬다. " * 5, "cp949"),
    ],
)
def test_declared_charsets_of_other_scripts_are_not_taken_for_chinese(text, codec):
    name = {"cp932": "shift_jis", "euc_jp": "euc-jp", "cp949": "euc-kr", "cp1252": "iso-8859-1"}.get(codec, codec)
    assert decode_text(text.encode(codec), f"text/html; charset={name}") == (text, codec)


def test_the_page_s_own_declaration_counts_where_the_header_has_none():
    body = b'<meta http-equiv=Content-Type content="text/html; charset=windows-1251">' + "Привет, мир".encode("cp1251")
    assert decode_text(body, "text/html")[0].endswith("Привет, мир")


def test_a_byte_order_mark_is_read_and_dropped():
    for codec in ("utf-8-sig", "utf-16"):
        assert decode_text("磨坊".encode(codec), "text/html; charset=gbk")[0] == "磨坊"


@pytest.mark.parametrize(("codec", "declared"), [("utf-8", "utf-8"), ("gb18030", "gb2312"), ("big5", "big5")])
def test_a_few_broken_bytes_do_not_lose_the_page(codec, declared):
    text = HANT * 5
    body = bytearray(text.encode(codec))
    body[40:41] = b"\xff"
    body[200:200] = b"\xff\xfe"
    read, _ = decode_text(bytes(body), f"text/html; charset={declared}")
    same = sum(a == b for a, b in zip(read[-200:], text[-200:], strict=True))
    assert same == 200 and "\ufffd" in read


def test_dangerous_and_non_text_codecs_are_never_used():
    for name in ("utf-7", "rot13", "hex", "zip", "idna", "unicode_escape", "base64"):
        assert decode_text(b"+ADw-script+AD4- \xff", f"text/html; charset={name}")[0].startswith("+ADw-")


@given(st.binary(max_size=400), st.sampled_from(["gbk", "big5", "utf-8", "shift_jis", "euc-kr", "x" * 60, ""]))
@settings(deadline=None, max_examples=200)
def test_any_bytes_become_text_that_can_be_stored(body, charset):
    text, used = decode_text(body, f"text/html; charset={charset}")
    assert text.encode("utf-8", "surrogatepass").decode("utf-8", "replace") is not None
    assert used


@given(st.text(max_size=200))
@settings(deadline=None, max_examples=100)
def test_utf8_is_read_as_it_was_written(text):
    if text.startswith("\ufeff"):
        text = text[1:]
    assert (
        decode_text(text.encode("utf-8", "replace"), "text/html; charset=gbk")[0]
        == text.encode("utf-8", "replace").decode()
    )


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
