"""Stored payload -> entity bytes: chunks joined, content encodings undone.

Sizes are bounded by bytes produced.  Crawlers differ in whether they store what was sent or what it decodes
to, so a header is believed only where the bytes agree.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Mapping

from pipelines.crawl.inflate import InflateError, inflater

_FEED = 1 << 14
_MAX_ENCODINGS = 3
_MAX_MEMBERS = 64
_GZIP = b"\x1f\x8b"


class UndecodableError(Exception):
    """The payload cannot be turned into entity bytes; args: ledger reason, detail."""


def entity_body(body: bytes, headers: Mapping[str, str], *, max_bytes: int) -> bytes:
    """Payload with chunking and content encodings undone, at most `max_bytes`; `UndecodableError` otherwise.

    A body that does not look like what its headers claim (already decoded by the crawler) is left alone.
    """
    if "chunked" in headers.get("transfer-encoding", "").lower():
        body = _unchunk(body)
    names = [name.strip() for name in headers.get("content-encoding", "").lower().split(",") if name.strip()]
    if len(names) > _MAX_ENCODINGS:
        raise UndecodableError("bad_encoding", f"{len(names)} content encodings")
    for name in reversed(names):
        body = _decode_one(name, body, max_bytes)
    if len(body) > max_bytes:
        raise UndecodableError("too_long", f"{len(body)} bytes")
    return body


def _decode_one(name: str, body: bytes, max_bytes: int) -> bytes:
    if name in ("identity", "none", "utf-8") or not body:
        return body
    if name in ("gzip", "x-gzip"):
        return _gunzip(body, max_bytes) if body[:2] == _GZIP else body
    if name == "deflate":
        return _undeflate(body, max_bytes)
    if name == "br":
        return _unbrotli(body, max_bytes)
    if name == "zstd":
        return _unzstd(body, max_bytes) if body[:4] == b"\x28\xb5\x2f\xfd" else body
    raise UndecodableError("bad_encoding", f"Content-Encoding {name[:40]!r}")


def _gunzip(body: bytes, max_bytes: int) -> bytes:
    """All members of a gzip body joined; bytes after the last that begin no member are left out."""
    pieces: list[bytes] = []
    left = max_bytes
    while body[:2] == _GZIP:
        if len(pieces) == _MAX_MEMBERS:  # each costs a copy of the rest
            raise UndecodableError("bad_encoding", f"more than {_MAX_MEMBERS} gzip members")
        piece, body = _inflate(body, 31, left)
        pieces.append(piece)
        left -= len(piece)
    return b"".join(pieces)


def _inflate(body: bytes, wbits: int, max_bytes: int) -> tuple[bytes, bytes]:
    """(what one deflate stream holds, the bytes after it)."""
    stream = inflater(wbits)
    try:
        out = stream.decompress(body, max_bytes + 1)
    except InflateError:
        stream = zlib.decompressobj(wbits)  # whose words go into the ledger
        try:
            out = stream.decompress(body, max_bytes + 1)
        except zlib.error as error:
            raise UndecodableError("bad_encoding", str(error)) from None
    if len(out) > max_bytes:
        raise UndecodableError("too_long", f"inflates to more than {max_bytes} bytes")
    if not stream.eof:
        raise UndecodableError("bad_encoding", "the compressed body is cut")
    return out, stream.unused_data


def _undeflate(body: bytes, max_bytes: int) -> bytes:
    """Zlib or raw deflate, as servers send either; plain text that fits neither is left alone."""
    for wbits in (15, -15):
        try:
            return _inflate(body, wbits, max_bytes)[0]
        except UndecodableError as error:
            if error.args[0] == "too_long":
                raise
    return _plain_or_fail(body, "deflate")


def _unbrotli(body: bytes, max_bytes: int) -> bytes:
    import brotli

    decoder = brotli.Decompressor()
    out = bytearray()
    try:
        for at in range(0, len(body), _FEED):
            out += decoder.process(body[at : at + _FEED], output_buffer_limit=_FEED * 16)
            while not decoder.can_accept_more_data():
                out += decoder.process(b"", output_buffer_limit=_FEED * 16)
                _check_size(len(out), max_bytes)
            _check_size(len(out), max_bytes)
    except brotli.error:
        return _plain_or_fail(body, "br")
    if not decoder.is_finished():
        return _plain_or_fail(body, "br")
    return bytes(out)


def _unzstd(body: bytes, max_bytes: int) -> bytes:
    import zstandard

    out = bytearray()
    try:
        with zstandard.ZstdDecompressor(max_window_size=1 << 27).stream_reader(body) as reader:
            while piece := reader.read(_FEED * 16):
                out += piece
                _check_size(len(out), max_bytes)
    except zstandard.ZstdError as error:
        raise UndecodableError("bad_encoding", str(error)) from None
    return bytes(out)


def _check_size(size: int, max_bytes: int) -> None:
    if size > max_bytes:
        raise UndecodableError("too_long", f"decodes to more than {max_bytes} bytes")


def _plain_or_fail(body: bytes, name: str) -> bytes:
    """The body itself where it is readable markup, so was decoded before it was stored."""
    if b"<" in body[:1024] and b"\0" not in body[:1024]:
        return body
    raise UndecodableError("bad_encoding", f"the body is not {name}")


def _unchunk(body: bytes) -> bytes:
    """Chunks joined; the body itself where it does not begin with a chunk head; cut chunks are an error."""
    if not re.match(rb"[0-9A-Fa-f]{1,16}[ \t]*(?:;[^\r\n]{0,1000})?\r?\n", body):
        return body
    out = bytearray()
    at = 0
    while True:
        line_end = body.find(b"\n", at, at + 1100)
        size_text = body[at:line_end].split(b";")[0].strip() if line_end >= 0 else b""
        if not re.fullmatch(rb"[0-9A-Fa-f]{1,16}", size_text):
            raise UndecodableError("bad_encoding", "a chunk head is cut or wrong")
        size = int(size_text, 16)
        if size == 0:
            return bytes(out)
        start = line_end + 1
        if start + size > len(body):
            raise UndecodableError("bad_encoding", "a chunk is cut")
        out += body[start : start + size]
        at = start + size
        at += 2 if body[at : at + 2] == b"\r\n" else 1 if body[at : at + 1] == b"\n" else 0
