"""Stored payload -> entity bytes -> text: transfer and content encodings, then the charset.

Sizes are bounded by bytes produced.  Crawlers differ in whether they store what was sent or what it decodes
to, so a header is believed only where the bytes agree.  Charset order as measured on Chinese pages: BOM,
strict UTF-8, HTTP header, meta, detection; `gb2312` and `gbk` mean gb18030, `big5` means Big5-HKSCS, as
browsers read them.  A few broken bytes become U+FFFD; they never cost the page.
"""

from __future__ import annotations

import codecs
import functools
import re
import zlib
from collections.abc import Mapping

_ALIASES = {
    "gb2312": "gb18030", "gbk": "gb18030", "gb_2312-80": "gb18030", "x-gbk": "gb18030", "cp936": "gb18030",
    "gb18030": "gb18030", "big5": "big5hkscs", "big5-hkscs": "big5hkscs", "x-x-big5": "big5hkscs",
    "cp950": "big5hkscs", "iso-8859-1": "cp1252", "latin1": "cp1252", "latin-1": "cp1252", "ascii": "cp1252",
    "us-ascii": "cp1252", "utf8": "utf-8", "unicode-1-1-utf-8": "utf-8", "shift_jis": "cp932",
    "shift-jis": "cp932", "x-sjis": "cp932", "euc-kr": "cp949", "ks_c_5601-1987": "cp949",
    "iso-8859-9": "cp1254", "tis-620": "cp874", "utf-16": "utf-8", "utf-16le": "utf-8", "utf-16be": "utf-8",
}  # fmt: skip
_WIDE = {"utf-8", "gb18030", "big5hkscs", "cp932", "euc_jp", "iso2022_jp", "cp949", "euc_kr"}
_CHINESE = ("gb18030", "big5hkscs")
_REFUSED = {"utf-7", "idna", "punycode", "unicode_escape", "raw_unicode_escape", "undefined", "mbcs", "oem"}
_BOMS = ((codecs.BOM_UTF8, "utf-8"), (codecs.BOM_UTF16_LE, "utf-16-le"), (codecs.BOM_UTF16_BE, "utf-16-be"))
_META = re.compile(rb"<meta[^>]{0,500}?charset\s*=\s*[\"']?\s*([A-Za-z0-9_:.-]{2,40})", re.IGNORECASE)
_HEADER = re.compile(r"charset\s*=\s*[\"']?\s*([A-Za-z0-9_:.-]{2,40})", re.IGNORECASE)
_PUNCTUATION = frozenset("，。、！？；：“”‘’（）《》「」『』【】…—·　©®×→")
_MIN_EVIDENCE = 8
_META_BYTES = 8192
_DETECT_BYTES = 1 << 16
_FEED = 1 << 14


class UndecodableError(Exception):
    """The payload cannot be turned into entity bytes; args: ledger reason, detail."""


def entity_body(body: bytes, headers: Mapping[str, str], *, max_bytes: int) -> bytes:
    """Payload with chunking and content encodings undone, at most `max_bytes`; `UndecodableError` otherwise.

    A body that does not look like what its headers claim (already decoded by the crawler) is left alone.
    """
    if "chunked" in headers.get("transfer-encoding", "").lower():
        body = _unchunk(body)
    names = [name.strip() for name in headers.get("content-encoding", "").lower().split(",") if name.strip()]
    if len(names) > 3:
        raise UndecodableError("bad_encoding", f"{len(names)} content encodings")
    for name in reversed(names):
        body = _decode_one(name, body, max_bytes)
    if len(body) > max_bytes:
        raise UndecodableError("too_long", f"{len(body)} bytes")
    return body


def decode_text(body: bytes, content_type: str | None = None) -> tuple[str, str]:
    """(text, charset used).  Never raises; broken bytes become U+FFFD."""
    for bom, charset in _BOMS:
        if body.startswith(bom):
            return body[len(bom) :].decode(charset, "replace"), charset
    try:
        return body.decode("utf-8"), "utf-8"
    except UnicodeDecodeError:
        pass
    declared = declared_charsets(body, content_type)
    detected = _detect(body)
    named = list(dict.fromkeys([*declared, *([detected] if detected else [])]))
    # A single-byte charset reads any bytes, so it is no evidence: those that can fail are tried first.
    wide = [name for name in named if name in _WIDE]
    if next((name for name in wide if name != "utf-8"), "gb18030") in _CHINESE:
        chinese = _chinese_charset(body)
        wide = [chinese, *(name for name in wide if name != chinese)] if chinese else wide
    for charset in wide:
        try:
            return body.decode(charset), charset
        except (UnicodeDecodeError, ValueError):
            continue
    wide = [*wide, "utf-8"]
    broken = {name: _broken(body, name) for name in wide}
    nearest = min(wide, key=lambda name: broken[name])
    if broken[nearest] <= max(8 if nearest in declared else 2, _non_ascii(body) // 50):
        return body.decode(nearest, "replace"), nearest
    narrow = [name for name in named if name not in _WIDE]
    charset = min([*narrow, *wide, "cp1252"], key=lambda name: _broken(body, name))
    return body.decode(charset, "replace"), charset


def declared_charsets(body: bytes, content_type: str | None) -> list[str]:
    """Known charsets that the HTTP header and the page's meta name, in that order, as Python codec names."""
    names = []
    if content_type and (match := _HEADER.search(content_type)):
        names.append(match.group(1))
    if match := _META.search(body[:_META_BYTES]):
        names.append(match.group(1).decode("ascii"))
    known = [codec for name in names if (codec := _codec(name))]
    return list(dict.fromkeys(known))


def _codec(name: str) -> str | None:
    name = name.strip().lower()
    name = _ALIASES.get(name, name)
    if name in _REFUSED:
        return None
    try:
        found = codecs.lookup(name)
    except (LookupError, ValueError):
        return None
    return found.name if found._is_text_encoding else None


def _detect(body: bytes) -> str | None:
    import cchardet

    found = cchardet.detect(body[:_DETECT_BYTES]).get("encoding")
    return _codec(found) if found else None


def _chinese_charset(body: bytes) -> str | None:
    """GB or Big5, where the text reads as everyday characters in one of them only.

    Either codec decodes most bytes of the other without an error, so what tells is how many characters are of
    the first, everyday level of its own standard: nearly all in the right one, about half in the wrong one.
    """
    head = body[:_DETECT_BYTES]
    if _non_ascii(head) < 2 * _MIN_EVIDENCE:
        return None
    shares = {charset: _everyday_share(head, charset) for charset in _CHINESE}
    best, other = sorted(_CHINESE, key=lambda name: -shares[name])
    return best if shares[best] >= 0.75 and shares[best] - shares[other] >= 0.15 else None


def _everyday_share(body: bytes, charset: str) -> float:
    """Share of everyday Han characters among all that are not ASCII; broken ones count as not."""
    text = body.decode(charset, "replace")
    foreign = [char for char in text if char > "\x7f" and char not in _PUNCTUATION]
    everyday = _everyday(charset)
    return sum(char in everyday for char in foreign) / len(foreign) if len(foreign) >= _MIN_EVIDENCE else 0.0


@functools.cache
def _everyday(charset: str) -> frozenset[str]:
    """Level 1 of GB 2312 (B0A1 to D7F9) or of Big5 (A440 to C67E)."""
    codec, leads = ("gb2312", range(0xB0, 0xD8)) if charset == "gb18030" else ("big5", range(0xA4, 0xC7))
    pairs = (bytes((lead, trail)) for lead in leads for trail in range(0x40, 0xFF))
    return frozenset(char for pair in pairs if (char := pair.decode(codec, "ignore")) > "\x7f")


def _broken(body: bytes, charset: str) -> int:
    return body.decode(charset, "replace").count("\ufffd")


def _non_ascii(body: bytes) -> int:
    return len(body) - len(body.translate(None, bytes(range(128, 256))))


def _decode_one(name: str, body: bytes, max_bytes: int) -> bytes:
    if name in ("identity", "none", "utf-8") or not body:
        return body
    if name in ("gzip", "x-gzip"):
        return _inflate(body, 31, max_bytes) if body[:2] == b"\x1f\x8b" else body
    if name == "deflate":
        return _undeflate(body, max_bytes)
    if name == "br":
        return _unbrotli(body, max_bytes)
    if name == "zstd":
        return _unzstd(body, max_bytes) if body[:4] == b"\x28\xb5\x2f\xfd" else body
    raise UndecodableError("bad_encoding", f"Content-Encoding {name[:40]!r}")


def _inflate(body: bytes, wbits: int, max_bytes: int) -> bytes:
    inflater = zlib.decompressobj(wbits)
    try:
        out = inflater.decompress(body, max_bytes + 1)
    except zlib.error as error:
        raise UndecodableError("bad_encoding", str(error)) from None
    if len(out) > max_bytes:
        raise UndecodableError("too_long", f"inflates to more than {max_bytes} bytes")
    if not inflater.eof:
        raise UndecodableError("bad_encoding", "the compressed body is cut")
    return out


def _undeflate(body: bytes, max_bytes: int) -> bytes:
    """Zlib or raw deflate, as servers send either; plain text that fits neither is left alone."""
    for wbits in (15, -15):
        try:
            return _inflate(body, wbits, max_bytes)
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
