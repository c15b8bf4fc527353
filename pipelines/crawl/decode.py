"""Entity bytes -> text: which charset, and what to do where bytes and declarations disagree.

Order: byte order mark, strict UTF-8 (an accident in no other charset), then the HTTP header, the page's own
declaration and the bytes themselves as evidence (`evidence.py`): a declaration is worth a few characters of text,
so it decides where the bytes say nothing and is overruled where they plainly read as something else.  A few broken
bytes become U+FFFD; they never cost the page.
"""

from __future__ import annotations

import codecs
import functools
import re
from dataclasses import dataclass

from pipelines.crawl.labels import MULTIBYTE, SHIFTED, codec_of

_BOMS = ((codecs.BOM_UTF8, "utf-8"), (codecs.BOM_UTF16_LE, "utf-16-le"), (codecs.BOM_UTF16_BE, "utf-16-be"))
_HEADER = re.compile(r"charset\s*=\s*[\"']?\s*([A-Za-z0-9_:.-]{1,40})", re.IGNORECASE)
_PRESCAN_BYTES = 8_192
# An unclosed comment hides the rest, as in a browser; every alternative moves on, so this is linear.
_PRESCAN = re.compile(rb"<!--(?:.*?-->|.*\Z)|<meta[\s/][^>]*+", re.IGNORECASE | re.DOTALL)
_META_CHARSET = re.compile(rb"charset\s*+=\s*+[\"']?\s*+([A-Za-z0-9_:.-]{1,40})", re.IGNORECASE)
_XML = re.compile(rb"\s{0,64}<\?xml[^>]{0,200}?encoding\s{0,9}=\s{0,9}[\"']([A-Za-z0-9_:.-]{1,40})")
_SHIFTS = {"iso2022_jp_1": b"\x1b$", "iso2022_kr": b"\x0e", "hz": b"~{"}
# What a declaration is worth, in nats: about one or two characters of text.
_DECLARED = 9.0
_DECLARED_TWICE = 11.0
_SURE = 3.0  # nats; below this margin windows-1252 was not detected, it is what is left


@dataclass(frozen=True, slots=True, kw_only=True)
class Decoded:
    """A page as text.

    `charset` is the Python codec; `how` is what decided: bom, utf8, header, meta, evidence (a declaration was
    overruled), detected (nothing usable was declared) or default; `broken` counts the U+FFFD made; `repaired`
    says that the text had been encoded twice and was put right.
    """

    text: str
    charset: str
    how: str
    broken: int = 0
    repaired: bool = False


def decode(body: bytes, content_type: str | None = None) -> Decoded:
    """The page as text, whatever was declared.  Never raises; time is linear in the bytes."""
    for bom, charset in _BOMS:
        if body.startswith(bom) and (found := _with_bom(body[len(bom) :], charset)) is not None:
            return found
    if body.isascii():
        return _ascii(body, content_type)
    try:
        text = body.decode("utf-8")
    except UnicodeDecodeError as error:
        if error.reason == "unexpected end of data" and not body[: error.start].isascii():
            # A page cut inside its last character is UTF-8 up to there.
            return Decoded(text=body[: error.start].decode("utf-8") + "\ufffd", charset="utf-8", how="utf8", broken=1)
        return _by_evidence(body, content_type)
    if b"\0" in body[:64] and (wide := _utf16_of(body)) is not None:
        return _read(body, wide, "detected")
    return _repaired(text, body)


def decode_text(body: bytes, content_type: str | None = None) -> tuple[str, str]:
    """(text, charset used) of `decode`."""
    found = decode(body, content_type)
    return found.text, found.charset


def header_charset(content_type: str | None) -> str | None:
    """The charset that an HTTP Content-Type names, as a Python codec."""
    match = _HEADER.search(content_type[:1_000]) if content_type else None
    return codec_of(match.group(1)) if match else None


def meta_charset(body: bytes) -> str | None:
    """The charset that the page itself names: the first known one of its meta tags, or of an XML declaration.

    Looks at the first 8 KB outside comments; `utf-16` here means UTF-8, since the tag could be read.
    """
    head = body[:_PRESCAN_BYTES]
    names = [match.group(1)] if (match := _XML.match(head)) else []
    for found in _PRESCAN.finditer(head):
        if not found.group().startswith(b"<!") and (match := _META_CHARSET.search(found.group())):
            names.append(match.group(1))
            break
    for name in reversed(names):
        if (codec := codec_of(name.decode("ascii"))) is not None:
            return "utf-8" if codec.startswith("utf-16") else codec
    return None


def _with_bom(rest: bytes, charset: str) -> Decoded | None:
    """By its byte order mark, unless what follows shows that the mark is none."""
    if charset == "utf-8":
        try:
            return _repaired(rest.decode("utf-8"), rest, how="bom")
        except UnicodeDecodeError:
            found = _by_evidence(rest, "charset=utf-8")
            return Decoded(text=found.text, charset=found.charset, how="bom", broken=found.broken)
    if len(rest) >= 64 and b"\0" not in rest[:512] and b"<" in rest[:512] and b">" in rest[:512]:
        return None
    return _read(rest, charset, "bom")


def _ascii(body: bytes, content_type: str | None) -> Decoded:
    if b"\0" in body[:64] and (wide := _utf16_of(body)) is not None:
        return _read(body, wide, "detected")
    if b"\x1b$" in body or b"~{" in body or b"\x0e" in body:
        for how, charset in (("header", header_charset(content_type)), ("meta", meta_charset(body))):
            if charset in SHIFTED and _SHIFTS[charset] in body:
                return _read(body, charset, how)
        if b"\x1b$B" in body or b"\x1b$@" in body:
            return _read(body, "iso2022_jp_1", "detected")
    return Decoded(text=body.decode("ascii"), charset="utf-8", how="utf8")


def _utf16_of(body: bytes) -> str | None:
    """Which half of the byte pairs of the page's beginning is zero."""
    head = body[:1_024]
    even, odd = head[::2].count(0), head[1::2].count(0)
    if max(even, odd) < len(head) // 5 or min(even, odd) > len(head) // 50:
        return None
    return "utf-16-le" if odd > even else "utf-16-be"


def _by_evidence(body: bytes, content_type: str | None) -> Decoded:
    """A page that is not UTF-8 throughout, by what was declared and how its bytes read."""
    from pipelines.crawl.evidence import readings

    if b"\0" in body[:64] and (wide := _utf16_of(body)) is not None:
        return _read(body, wide, "detected")
    header, meta = header_charset(content_type), meta_charset(body)
    named = {name for name in (header, meta) if name is not None}
    worth = _DECLARED_TWICE if header == meta else _DECLARED
    found = readings(body, dict.fromkeys(named, worth))
    best = min(found, key=found.__getitem__)
    if best in named:
        how = "header" if best == header else "meta"
    elif named:
        how = "evidence"
    else:
        second = min((cost for name, cost in found.items() if name != best), default=float("inf"))
        how = "default" if best == "cp1252" and second - found[best] < _SURE else "detected"
    return _read(body, best, how)


def _read(body: bytes, charset: str, how: str) -> Decoded:
    """The page in this charset; what cannot be read in it becomes U+FFFD."""
    if (table := _octet_table(charset)) is not None:
        text = codecs.charmap_decode(body, "strict", table)[0]
        return Decoded(text=text, charset=charset, how=how)
    try:
        return Decoded(text=body.decode(charset), charset=charset, how=how)
    except (UnicodeDecodeError, ValueError):
        pass
    if charset in MULTIBYTE:
        from pipelines.crawl.resync import read_broken

        text = read_broken(body, charset)
    else:
        text = body.decode(charset, "replace")
    return Decoded(text=text, charset=charset, how=how, broken=text.count("\ufffd"))


@functools.cache
def _octet_table(charset: str) -> str | None:
    """What each byte means in a charset of one byte a character; an undefined byte is a control, as in browsers."""
    if charset in MULTIBYTE or charset in SHIFTED or charset.startswith("utf"):
        return None
    return "".join(bytes((octet,)).decode(charset, "ignore") or chr(octet) for octet in range(256))


def _others(body: bytes) -> int:
    return body.count(b"\xc2") + body.count(b"\xc5") + body.count(b"\xe2")


def _repaired(text: str, body: bytes, how: str = "utf8") -> Decoded:
    """A page that is valid UTF-8, with a second encoding undone where there plainly was one."""
    # A second encoding writes runs of U+0080 to U+00FF: lead bytes C3 with many C2, C5 or E2 between them.  A Chinese
    # page has no C3, a Western one few others.
    if b"\xc3" in body and (letters := body.count(b"\xc3")) >= 8 and 4 * _others(body) >= letters:
        from pipelines.crawl.repair import encoded_once

        if (once := encoded_once(text)) is not None:
            return Decoded(text=once, charset="utf-8", how=how, broken=once.count("\ufffd"), repaired=True)
    return Decoded(text=text, charset="utf-8", how=how)
