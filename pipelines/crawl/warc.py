"""Records of one WARC file (ISO 28500, 0.18 to 1.1), plain or in gzip members, out of hostile bytes.

Own walker over zlib: the readers at hand give a cut record out as whole and end the file at the first bad
one.  Here every byte region ends in exactly one of: a `Record`, a `Skipped` record of a type that holds no
page, a `Damage`.  After a damage the walk goes on at the next place that truly starts a record, and sizes
are bounded by the bytes that inflating produces, never by what a header claims.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, replace

from pipelines.crawl.sources import Source

GZIP_MAGIC = b"\x1f\x8b\x08"
ZSTD_MAGICS = (b"\x28\xb5\x2f\xfd", b"\x5d\x2a\x4d\x18")
PAGE_TYPES = frozenset({"response", "resource", "conversion"})
_HEAD_START = b"WARC/"
_BLOCK = 1 << 16
_PROBE_BYTES = 2048


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Skipped:
    """A record that is whole and holds no page: a request, metadata, warcinfo, revisit, ..."""

    offset: int
    length: int
    index: int
    record_type: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Damage:
    """Bytes [offset, offset + length) that hold no readable record; `reason` is of the closed vocabulary."""

    offset: int
    length: int
    index: int
    reason: str
    detail: str = ""


Item = Record | Skipped | Damage


@dataclass(frozen=True, slots=True)
class _Form:
    """Gzip members or plain records: how to find the next true start, and how to read what starts there."""

    find: Callable[[Source, int, int], int | None]
    read: Callable[[Source, int, WarcBounds], Generator[Item, None, int]]


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
    head = source.read(0, 8)
    if head.startswith(ZSTD_MAGICS):
        if start == 0:
            detail = "a zstd file; write it with one gzip member a record"
            yield Damage(offset=0, length=source.size_bytes, index=0, reason="not_a_warc", detail=detail)
        return
    is_plain = head.lstrip(b"\r\n").startswith(_HEAD_START)
    forms = (_PLAIN, _MEMBERS) if is_plain else (_MEMBERS, _PLAIN)
    yield from _walk(source, start, end, bounds, forms)


class _BrokenError(Exception):
    """The bytes at hand cannot be read on; args: reason, detail."""


class _Members:
    """What one gzip member inflates to, piece by piece."""

    def __init__(self, source: Source, offset: int) -> None:
        self._source = source
        self._at = offset
        self._inflater = zlib.decompressobj(31)
        self._input = b""
        self.end: int | None = None  # the offset after the member, known once it ended well

    def more(self) -> bytes:
        """The next piece, at most 64 KiB; empty after the last; `_BrokenError` if the member is not whole."""
        while self.end is None:
            if not self._input:
                self._input = self._source.read(self._at, _BLOCK)
                self._at += len(self._input)
                if not self._input:
                    raise _BrokenError("truncated_record", "the file ends inside a gzip member")
            try:
                piece = self._inflater.decompress(self._input, _BLOCK)
            except zlib.error as error:
                raise _BrokenError("corrupt_member", str(error)) from None
            self._input = self._inflater.unconsumed_tail
            if self._inflater.eof:
                self.end = self._at - len(self._inflater.unused_data)
                return piece
            if piece:
                return piece
        return b""


class _Plain:
    """An uncompressed file from an offset on."""

    def __init__(self, source: Source, offset: int) -> None:
        self._source = source
        self._at = offset

    def more(self) -> bytes:
        """The next piece; empty at the end of the file."""
        piece = self._source.read(self._at, _BLOCK)
        self._at += len(piece)
        return piece


class _Reader:
    """A forward reader over pieces, with look-ahead; `taken` counts the bytes handed out."""

    def __init__(self, pieces: _Members | _Plain) -> None:
        self._pieces = pieces
        self._buffer = bytearray()
        self._dry = False
        self.taken = 0

    def peek(self, size: int) -> bytes:
        """Up to `size` bytes without taking them."""
        while len(self._buffer) < size and not self._dry:
            piece = self._pieces.more()
            self._dry = not piece
            self._buffer += piece
        return bytes(self._buffer[:size])

    def take(self, size: int) -> bytes:
        """Up to `size` bytes."""
        out = self.peek(size)
        del self._buffer[: len(out)]
        self.taken += len(out)
        return out

    def skip(self, size: int) -> int:
        """Drop up to `size` bytes in bounded memory; the number dropped."""
        dropped = 0
        while dropped < size and (piece := self.take(min(_BLOCK, size - dropped))):
            dropped += len(piece)
        return dropped

    def take_head(self, limit: int) -> bytes | None:
        """Bytes up to and with the first empty line; None if there is none within `limit` bytes."""
        size = 0
        while True:
            size = min(size + _BLOCK, limit)
            window = self.peek(size)
            end = _head_end(window)
            if end is not None:
                return self.take(end)
            if size >= limit or len(window) < size:
                return None


def _head_end(window: bytes) -> int | None:
    """Where the first empty line ends (CRLF or LF), or None."""
    ends = [at + len(mark) for mark in (b"\r\n\r\n", b"\n\n", b"\n\r\n") if (at := window.find(mark)) >= 0]
    return min(ends) if ends else None


def _walk(source: Source, start: int, end: int, bounds: WarcBounds, forms: tuple[_Form, _Form]) -> Iterator[Item]:
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
        except _BrokenError as error:
            reason, detail = error.args
            found, form = _resume(source, at + 1, form, forms)
            if found is None and seen == 0 and at == 0 and not _looks_like_warc(source, 0):
                reason, detail = "not_a_warc", "no WARC record in this file"
            stop_at = source.size_bytes if found is None else found
            yield Damage(offset=at, length=stop_at - at, index=given, reason=reason, detail=detail)
            seen += 1
            at = stop_at


def _resume(source: Source, at: int, form: _Form, forms: tuple[_Form, _Form]) -> tuple[int | None, _Form]:
    """Where to go on after a damage, and in which form."""
    other = forms[1] if form is forms[0] else forms[0]
    for candidate in (form, other):
        found = candidate.find(source, at, source.size_bytes)
        if found is not None:
            return found, candidate
    return None, form


def _read_member(source: Source, at: int, bounds: WarcBounds) -> Generator[Item, None, int]:
    """The records of the gzip member at `at`; returns the offset after it."""
    if source.read(at, len(GZIP_MAGIC)) != GZIP_MAGIC:
        raise _BrokenError("garbage_between_records", "no gzip member starts here")
    member = _Members(source, at)
    reader = _Reader(member)
    held: Record | Skipped | None = None
    index = 0
    while True:
        _skip_blank(reader)
        following = reader.peek(len(_HEAD_START))
        if not following:
            break
        if held is not None:
            if following != _HEAD_START:
                raise _BrokenError("bad_content_length", "what follows the block is no record")
            yield held  # a later record begins, so this one is whole; the stored length is not known yet
        held = _read_record(reader, at, index, bounds)
        index += 1
    if member.end is None:
        raise _BrokenError("corrupt_member", "the member has no end")
    if held is not None:
        yield replace(held, length=member.end - at)
    return member.end


def _read_plain(source: Source, at: int, bounds: WarcBounds) -> Generator[Item, None, int]:
    """The one record at `at` of an uncompressed file; returns the offset after it and its blank lines."""
    reader = _Reader(_Plain(source, at))
    lead = _skip_blank(reader)
    if not reader.peek(1):
        return at + lead
    record = _read_record(reader, at + lead, 0, bounds)
    length = reader.taken - lead
    blank = _skip_blank(reader)
    following = reader.peek(len(_HEAD_START))
    if following and (following != _HEAD_START or not blank):
        raise _BrokenError("bad_content_length", "what follows the block is no record")
    yield replace(record, length=length)
    return at + reader.taken


def _skip_blank(reader: _Reader) -> int:
    """Drop CR and LF; the number dropped."""
    dropped = 0
    while window := reader.peek(256):
        rest = window.lstrip(b"\r\n")
        dropped += reader.skip(len(window) - len(rest))
        if rest:
            break
    return dropped


def _read_record(reader: _Reader, offset: int, index: int, bounds: WarcBounds) -> Record | Skipped:
    """One record from its version line to the end of its block; `_BrokenError` where it is not whole."""
    if reader.peek(len(_HEAD_START)) != _HEAD_START:
        raise _BrokenError("not_a_record", "no WARC version line")
    head = reader.take_head(bounds.header_bytes)
    if head is None:
        raise _BrokenError("header_over_bound", f"no end of the header within {bounds.header_bytes} bytes")
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
            raise _BrokenError("record_over_bound", f"more than {bounds.record_bytes} bytes in one record")
    if reader.taken - before < length:
        raise _BrokenError("truncated_record", f"{reader.taken - before} of {length} bytes")
    if not keep:
        return Skipped(offset=offset, length=0, index=index, record_type=record_type or "unnamed")
    return Record(
        offset=offset, length=0, index=index, record_type=record_type, headers=headers, target_uri=target_uri,
        http_status=status, http_headers=http_headers, body=b"" if over else body, over_bound=over,
    )  # fmt: skip


def _is_http(headers: dict[str, str], reader: _Reader, length: int) -> bool:
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
        raise _BrokenError("bad_content_length", f"Content-Length is {text[:40]!r}")
    return int(text)


def _looks_like_warc(source: Source, at: int) -> bool:
    """Whether the gzip member, or the plain record, at `at` begins like a WARC record."""
    probe = source.read(at, _PROBE_BYTES)
    if not probe.startswith(GZIP_MAGIC):
        return probe.lstrip(b"\r\n").startswith(_HEAD_START)
    try:
        head = zlib.decompressobj(31).decompress(probe, _PROBE_BYTES)
    except zlib.error:
        return False
    return head.lstrip(b"\r\n").startswith(_HEAD_START + b"1.") or head.startswith(_HEAD_START + b"0.")


def _next_member(source: Source, at: int, end: int) -> int | None:
    """Offset of the first gzip member in [at, end) that inflates to a WARC version line."""
    return _scan(source, at, end, GZIP_MAGIC, 0)


def _next_plain(source: Source, at: int, end: int) -> int | None:
    """Offset of the first version line in [at, end) that stands after a line end."""
    return _scan(source, max(at - 1, 0), end, b"\nWARC/", 1)


def _scan(source: Source, at: int, end: int, mark: bytes, skip: int) -> int | None:
    """First place at or after `at` where `mark` stands and what follows it begins a record."""
    while at < end:
        block = source.read(at, _BLOCK)
        if len(block) < len(mark):
            more = source.read(at + len(block), len(mark) - len(block))
            if not more:
                return None
            block += more
        hit = block.find(mark)
        while hit >= 0:
            place = at + hit + skip
            if place >= end:
                return None
            if skip and _version_line(source.read(place, 10)):
                return place
            if not skip and _looks_like_warc(source, place):
                return place
            hit = block.find(mark, hit + 1)
        at += len(block) - len(mark) + 1
    return None


def _version_line(text: bytes) -> bool:
    return text[:5] == _HEAD_START and text[5:6].isdigit() and text[6:7] == b"." and text[7:8].isdigit()


_MEMBERS = _Form(_next_member, _read_member)
_PLAIN = _Form(_next_plain, _read_plain)
