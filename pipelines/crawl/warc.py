"""Records of one WARC file (ISO 28500, 0.18 to 1.1), plain, in gzip members or zstd frames, out of hostile bytes.

Own walker: the readers at hand give a cut record out as whole and end the file at the first bad
one.  Here every byte region ends in exactly one of: a `Record`, a `Skipped` record of a type that holds no
page, a `Damage`.  After a damage the walk goes on at the next place that truly starts a record, and sizes
are bounded by the bytes that inflating produces, never by what a header claims.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, replace
from typing import Any

from pipelines.crawl.members import (
    BLOCK_BYTES,
    GZIP,
    ZSTD_MAGIC,
    ZSTD_SKIPPABLE,
    BrokenError,
    Member,
    Packing,
    Plain,
    Reader,
    zstd_packing,
)
from pipelines.crawl.sources import Source

PAGE_TYPES = frozenset({"response", "resource", "conversion"})
_HEAD_START = b"WARC/"


@dataclass(frozen=True, slots=True, kw_only=True)
class WarcBounds:
    """Upper bounds in bytes, each inclusive; a record over the body bound comes out with `over_bound` set."""

    header_bytes: int = 256 << 10
    http_head_bytes: int = 1 << 20
    body_bytes: int = 16 << 20
    record_bytes: int = 512 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """A response, resource or conversion record.

    `offset` and `length` are the stored bytes in the crawl file; records that share one gzip member share the
    offset, differ in `index`, and all but the last have length 0.  `headers` have lower-case names; the first
    of a repeated name wins.  `http_status` is None where the block is not HTTP or its head cannot be read.
    `body` is as stored, after the HTTP head.
    """

    offset: int
    length: int
    index: int
    record_type: str
    headers: dict[str, str]
    target_uri: bytes
    http_status: int | None
    http_headers: dict[str, str]
    body: bytes
    over_bound: bool = False
    fields: dict[str, Any] | None = None  # columns that came with a row: title, date, language, ...; None elsewhere
    file: str | None = None  # where the record lies, if not in the unit's own file


@dataclass(frozen=True, slots=True, kw_only=True)
class Skipped:
    """A record that is whole and holds no page: a request, metadata, warcinfo, revisit, ..."""

    offset: int
    length: int
    index: int
    record_type: str
    file: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Damage:
    """Bytes [offset, offset + length) that hold no readable record; `reason` is of the closed vocabulary."""

    offset: int
    length: int
    index: int
    reason: str
    detail: str = ""
    file: str | None = None


Item = Record | Skipped | Damage


@dataclass(frozen=True, slots=True)
class _Form:
    """Packed or plain records: how to find the next true start, to read what starts there, to tell a start."""

    find: Callable[[Source, int, int], int | None]
    read: Callable[[Source, int, WarcBounds], Generator[Item, None, int]]
    begins: Callable[[Source, int], bool]


def read_warc(
    source: Source, *, start: int = 0, end: int | None = None, bounds: WarcBounds | None = None
) -> Iterator[Item]:
    """Everything that starts in [start, end), in file order; never raises on what the bytes hold.

    A record that starts before `end` is read to its own end.  A file of zero bytes yields nothing.
    """
    bounds = bounds or WarcBounds()
    end = source.size_bytes if end is None else min(end, source.size_bytes)
    if source.size_bytes == 0 or start >= end:
        return
    yield from _walk(source, start, end, bounds, _forms(source))


def _forms(source: Source) -> tuple[_Form, ...]:
    """The form that the first bytes tell, and after it those that damage may reveal."""
    head = source.read(0, 8)
    gzip = _members(GZIP)
    if head.startswith(ZSTD_MAGIC) or head[1:4] == ZSTD_SKIPPABLE:
        try:
            return _members(zstd_packing(source)), gzip, _PLAIN
        except BrokenError:
            return gzip, _PLAIN
    return (_PLAIN, gzip) if head.lstrip(b"\r\n").startswith(_HEAD_START) else (gzip, _PLAIN)


def _walk(source: Source, start: int, end: int, bounds: WarcBounds, forms: tuple[_Form, ...]) -> Iterator[Item]:
    """Items from `start` on, in the file's own form; the other one only where the own has no more starts."""
    form = forms[0]
    at = start if start == 0 else form.find(source, start, end)
    seen = 0
    while at is not None and at < end:
        stream = form.read(source, at, bounds)
        given = 0
        try:
            while True:
                try:
                    item = next(stream)
                except StopIteration as stop:
                    at = stop.value
                    break
                given += 1
                seen += 1
                yield item
        except BrokenError as error:
            reason, detail = error.reason, error.detail
            found, form = _resume(source, at + 1, form, forms)
            if found is None and seen == 0 and not error.reason.startswith("bad_") and not form.begins(source, at):
                reason, detail = "not_a_warc", "no WARC record in this file"
            stop_at = source.size_bytes if found is None else found
            yield Damage(offset=at, length=stop_at - at, index=given, reason=reason, detail=detail)
            seen += 1
            at = stop_at


def _resume(source: Source, at: int, form: _Form, forms: tuple[_Form, ...]) -> tuple[int | None, _Form]:
    """Where to go on after a damage, and in which form."""
    for candidate in (form, *(f for f in forms if f is not form)):
        found = candidate.find(source, at, source.size_bytes)
        if found is not None:
            return found, candidate
    return None, form


def _members(packing: Packing) -> _Form:
    """The form of a file whose records are packed so."""

    def begins(source: Source, at: int) -> bool:
        head = packing.probe(source, at).lstrip(b"\r\n")
        return _version_line(head)

    def find(source: Source, at: int, end: int) -> int | None:
        return _scan(source, at, end, packing.magic, 0, begins)

    def read(source: Source, at: int, bounds: WarcBounds) -> Generator[Item, None, int]:
        return _read_member(source, at, bounds, packing)

    return _Form(find, read, begins)


def _read_member(source: Source, at: int, bounds: WarcBounds, packing: Packing) -> Generator[Item, None, int]:
    """The records of the member at `at`; returns the offset after it."""
    if (after := packing.padding_end(source, at)) is not None:
        return after
    if source.read(at, len(packing.magic)) != packing.magic:
        raise BrokenError("garbage_between_records", "no compressed member starts here")
    member = Member(source, at, packing)
    reader = Reader(member)
    held: Record | Skipped | None = None
    index = 0
    while True:
        _skip_blank(reader)
        following = reader.peek(len(_HEAD_START))
        if not following:
            break
        if held is not None:
            if following != _HEAD_START:
                raise BrokenError("bad_content_length", "what follows the block is no record")
            yield held  # a later record begins, so this one is whole; the stored length is not known yet
        held = _read_record(reader, at, index, bounds)
        index += 1
    if member.end is None:
        raise BrokenError("corrupt_member", "the member has no end")
    if held is not None:
        yield replace(held, length=member.end - at)
    return member.end


def _read_plain(source: Source, at: int, bounds: WarcBounds) -> Generator[Item, None, int]:
    """The one record at `at` of an uncompressed file; returns the offset after it and its blank lines."""
    reader = Reader(Plain(source, at))
    lead = _skip_blank(reader)
    if not reader.peek(1):
        return at + lead
    record = _read_record(reader, at + lead, 0, bounds)
    length = reader.taken - lead
    blank = _skip_blank(reader)
    following = reader.peek(len(_HEAD_START))
    if following and (following != _HEAD_START or not blank):
        raise BrokenError("bad_content_length", "what follows the block is no record")
    yield replace(record, length=length)
    return at + reader.taken


def _skip_blank(reader: Reader) -> int:
    """Drop CR and LF; the number dropped."""
    dropped = 0
    while window := reader.peek(256):
        rest = window.lstrip(b"\r\n")
        dropped += reader.skip(len(window) - len(rest))
        if rest:
            break
    return dropped


def _read_record(reader: Reader, offset: int, index: int, bounds: WarcBounds) -> Record | Skipped:
    """One record from its version line to the end of its block; `BrokenError` where it is not whole."""
    if reader.peek(len(_HEAD_START)) != _HEAD_START:
        raise BrokenError("not_a_record", "no WARC version line")
    head = reader.take_head(bounds.header_bytes)
    if head is None:
        raise BrokenError("header_over_bound", f"no end of the header within {bounds.header_bytes} bytes")
    headers, target_uri = _parse_warc_head(head)
    length = _content_length(headers)
    record_type = headers.get("warc-type", "").lower()
    before = reader.taken
    keep = record_type in PAGE_TYPES
    body, status, http_headers, over = b"", None, {}, False
    if keep:
        if _is_http(headers, reader, length):
            http_head = reader.take_head(min(bounds.http_head_bytes, length))
            if http_head is not None:
                status, http_headers = _parse_http_head(http_head)
        left = length - (reader.taken - before)
        body = reader.take(min(left, bounds.body_bytes))
        over = left > bounds.body_bytes
    left = length - (reader.taken - before)
    if left > 0:
        dropped = reader.skip(min(left, bounds.record_bytes))
        if dropped < left and dropped == bounds.record_bytes:
            raise BrokenError("record_over_bound", f"more than {bounds.record_bytes} bytes in one record")
    if reader.taken - before < length:
        raise BrokenError("truncated_record", f"{reader.taken - before} of {length} bytes")
    if not keep:
        return Skipped(offset=offset, length=0, index=index, record_type=record_type or "unnamed")
    return Record(
        offset=offset, length=0, index=index, record_type=record_type, headers=headers, target_uri=target_uri,
        http_status=status, http_headers=http_headers, body=b"" if over else body, over_bound=over,
    )  # fmt: skip


def _is_http(headers: dict[str, str], reader: Reader, length: int) -> bool:
    content_type = headers.get("content-type", "").lower()
    if content_type.startswith("application/http"):
        return True
    return not content_type and reader.peek(min(5, length)) == b"HTTP/"


def _parse_warc_head(head: bytes) -> tuple[dict[str, str], bytes]:
    """Headers by lower-case name, and the target URI as raw bytes without the angle brackets of WARC 1.0."""
    headers: dict[str, str] = {}
    target_uri = b""
    for name, value in _fields(head):
        if name == "warc-target-uri" and "warc-target-uri" not in headers:
            target_uri = value[1:-1] if value.startswith(b"<") and value.endswith(b">") else value
            value = target_uri
        headers.setdefault(name, value.decode("utf-8", "replace"))
    return headers, target_uri


def _parse_http_head(head: bytes) -> tuple[int | None, dict[str, str]]:
    """Status and headers of an HTTP response; status None where the first line is none."""
    parts = head.split(b"\n", 1)[0].split(None, 2)
    status = None
    if len(parts) >= 2 and parts[0].upper().startswith(b"HTTP/"):
        status = int(parts[1]) if len(parts[1]) == 3 and parts[1].isdigit() else None
    headers: dict[str, str] = {}
    for name, value in _fields(head):
        headers.setdefault(name, value.decode("latin-1"))
    return status, headers


def _fields(head: bytes) -> Iterator[tuple[str, bytes]]:
    """(lower-case name, value) of each header line after the first; folded lines are joined."""
    pending: tuple[str, list[bytes]] | None = None
    for line in head.split(b"\n")[1:]:
        stripped = line.rstrip(b"\r")
        if stripped[:1] in (b" ", b"\t"):
            if pending is not None:
                pending[1].append(stripped.strip())
            continue
        name, colon, value = stripped.partition(b":")
        if not colon:
            continue
        if pending is not None:
            yield pending[0], b" ".join(pending[1])
        pending = (name.strip().lower().decode("latin-1"), [value.strip()])
    if pending is not None:
        yield pending[0], b" ".join(pending[1])


def _content_length(headers: dict[str, str]) -> int:
    text = headers.get("content-length", "")
    if not (text.isascii() and text.isdigit() and len(text) <= 18):
        raise BrokenError("bad_content_length", f"Content-Length is {text[:40]!r}")
    return int(text)


def _begins_plain(source: Source, at: int) -> bool:
    return _version_line(source.read(at, 16).lstrip(b"\r\n"))


def _next_plain(source: Source, at: int, end: int) -> int | None:
    """Offset of the first version line in [at, end) that stands after a line end."""
    return _scan(source, max(at - 1, 0), end, b"\n" + _HEAD_START, 1, _begins_plain)


def _scan(
    source: Source, at: int, end: int, mark: bytes, skip: int, begins: Callable[[Source, int], bool]
) -> int | None:
    """First place before `end` where `mark` stands at or after `at` and what follows it begins a record."""
    while at < end:
        block = source.read(at, BLOCK_BYTES)
        if len(block) < len(mark):
            return None
        hit = block.find(mark)
        while hit >= 0:
            place = at + hit + skip
            if place >= end:
                return None
            if begins(source, place):
                return place
            hit = block.find(mark, hit + 1)
        at += len(block) - len(mark) + 1
    return None


def _version_line(text: bytes) -> bool:
    return text[:5] == _HEAD_START and text[5:6].isdigit() and text[6:7] == b"." and text[7:8].isdigit()


_PLAIN = _Form(_next_plain, _read_plain, _begins_plain)
