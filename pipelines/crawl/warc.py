"""Records of one WARC or ARC file, plain, in gzip members, zstd or lz4 frames, out of hostile bytes.

WARC is ISO 28500, 0.18 to 1.1.  Own walker: the readers at hand give a cut record out as whole and end the file at
the first bad one.  Here every byte region ends in exactly one of: a `Record`, a `Skipped` record of a type that
holds no page, a `Damage`.  After a damage the walk goes on at the next place that truly starts a record, and sizes
are bounded by the bytes that inflating produces, never by what a header claims.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, replace

from pipelines.crawl.arc import LOOK_BYTES, arc_claim, quick_arc_record, read_arc_record, starts_arc
from pipelines.crawl.frames import LZ4_MAGIC
from pipelines.crawl.heads import NO_HEADERS, Headers, content_length, parse_http_head, parse_warc_head, with_target_uri
from pipelines.crawl.items import PAGE_TYPES, Damage, Item, Record, Skipped, WarcBounds
from pipelines.crawl.lz4 import LZ4
from pipelines.crawl.members import (
    BLOCK_BYTES,
    GZIP,
    ZSTD_MAGIC,
    ZSTD_SKIPPABLE,
    BrokenError,
    Packing,
    Plain,
    Reader,
    head_end,
    zstd_packing,
)
from pipelines.crawl.sources import Source
from pipelines.crawl.walk import Form, scan, walk_range

__all__ = ["PAGE_TYPES", "Damage", "Item", "Record", "Skipped", "WarcBounds", "read_warc"]
_HEAD_START = b"WARC/"
_CLOSING = b"\r\n\r\n"
_TYPES = {name.encode(): name for name in (*PAGE_TYPES, "request", "metadata", "revisit", "warcinfo")}
_PLAIN_WINDOW = 32 << 10
_QUICK_PLAIN_BYTES = 2 << 20
_MAX_PADDING_FRAMES = 16
_MAX_BLANK_BYTES = 64 << 10
_OPEN_HEAD_BYTES = 4 << 10


@dataclass(frozen=True, slots=True)
class _Dialect:
    """WARC or ARC.

    `starts` judges the first `look` bytes of a record, `follows` whether another one comes next, `claim` takes a
    record's head and gives the length that it claims for the block.
    """

    starts: Callable[[bytes], bool]
    look: int
    follows: Callable[[Reader], bool]
    claim: Callable[[Reader, WarcBounds], int]
    read: Callable[[Reader, int, int, WarcBounds], Record | Skipped]
    quick: Callable[[bytes, int, int, WarcBounds], Record | Skipped | None]


def read_warc(
    source: Source, *, start: int = 0, end: int | None = None, bounds: WarcBounds | None = None, arc: bool = False
) -> Iterator[Item]:
    """Everything that starts in [start, end), in file order; never raises on what the bytes hold.

    A record that starts before `end` is read to its own end.  A file of zero bytes yields nothing.  WARC or ARC is
    told by the first record; `arc` decides where that cannot be read.
    """
    bounds = bounds or WarcBounds()
    end = source.size_bytes if end is None else min(end, source.size_bytes)
    if source.size_bytes == 0 or start >= end:
        return
    yield from walk_range(source, start, end, bounds, _forms(source, arc))


def _forms(source: Source, arc: bool) -> tuple[Form, ...]:
    """The form that the first bytes tell, and after it those that damage may reveal."""
    head = source.read(0, 8)
    packing = GZIP
    if head.startswith(ZSTD_MAGIC) or head[1:4] == ZSTD_SKIPPABLE:
        try:
            packing = zstd_packing(source)
        except BrokenError:
            packing = GZIP
    elif head.startswith(LZ4_MAGIC):
        packing = LZ4
    elif head.lstrip(b"\r\n").startswith(_HEAD_START):
        return _plain(_WARC), _members(GZIP, _WARC)
    elif not head.startswith(GZIP.magic) and starts_arc(source.read(0, LOOK_BYTES)):
        return _plain(_ARC), _members(GZIP, _ARC)
    first = _first_content(source, packing)
    is_arc = starts_arc(first) or (arc and not first.lstrip(b"\r\n").startswith(_HEAD_START))
    dialect = _ARC if is_arc else _WARC
    forms = (_members(packing, dialect), _plain(dialect))
    return forms if packing is GZIP else (forms[0], _members(GZIP, dialect), forms[1])


def _first_content(source: Source, packing: Packing) -> bytes:
    """The first bytes that the first member with any content inflates to."""
    at = 0
    for _ in range(_MAX_PADDING_FRAMES):
        first = packing.probe(source, at, LOOK_BYTES)
        if first:
            return first
        after = packing.padding_end(source, at)
        if after is None:
            empty = packing.whole(source, at)
            after = None if empty is None else empty[1]
        if after is None:
            break
        at = after
    return b""


def _members(packing: Packing, dialect: _Dialect) -> Form:
    """The form of a file whose records are packed so."""

    def begins(source: Source, at: int) -> bool:
        return dialect.starts(packing.probe(source, at, dialect.look).lstrip(b"\r\n"))

    def find(source: Source, at: int, end: int) -> int | None:
        return scan(source, at, end, packing.magic, 0, begins)

    def read(source: Source, at: int, bounds: WarcBounds) -> Generator[Item, None, int]:
        return _read_member(source, at, bounds, packing, dialect)

    def quick(source: Source, at: int, bounds: WarcBounds) -> tuple[Item, int] | None:
        whole = packing.whole(source, at)
        if whole is None:
            return None
        item = dialect.quick(whole[0], at, whole[1] - at, bounds)
        return None if item is None else (item, whole[1])

    def skip(source: Source, at: int, bounds: WarcBounds) -> int | None:
        done = quick(source, at, bounds)
        return None if done is None else done[1]

    return Form(find, begins, read, quick, skip, packing.block_bytes)


def _plain(dialect: _Dialect) -> Form:
    """The form of an uncompressed file."""
    if dialect is _WARC:
        return _PLAIN_WARC

    def begins(source: Source, at: int) -> bool:
        return starts_arc(source.read(at, LOOK_BYTES))

    def find(source: Source, at: int, end: int) -> int | None:
        return scan(source, max(at - 1, 0), end, b"\nhttp", 1, begins)

    def read(source: Source, at: int, bounds: WarcBounds) -> Generator[Item, None, int]:
        return _read_plain(source, at, bounds, _ARC)

    def none(_source: Source, _at: int, _bounds: WarcBounds) -> None:
        return None

    return Form(find, begins, read, none, none, None)


def _quick_record(body: bytes, offset: int, length: int, bounds: WarcBounds) -> Record | Skipped | None:
    """The record that is all of an inflated member, told apart by few looks; None where anything is unusual."""
    if body[:5] != _HEAD_START:
        return None
    start = head_end(body, 0, bounds.header_bytes)
    if start is None:
        return None
    headers = Headers(body[:start], charset="utf-8")
    claim = headers.value(b"content-length")
    if claim is None or not claim.isdigit() or len(claim) > 18:
        return None
    length_claimed = int(claim)
    end = start + length_claimed
    if end > len(body) or length_claimed > bounds.body_bytes or length_claimed > bounds.record_bytes:
        return None
    if (len(body) - end != 4 or not body.endswith(_CLOSING)) and body[end:].strip(b"\r\n"):
        return None
    found = headers.value(b"warc-type") or b""
    record_type = _TYPES.get(found) or found.decode("utf-8", "replace").lower()
    if record_type not in PAGE_TYPES:
        return Skipped(offset=offset, length=length, index=0, record_type=record_type or "unnamed")
    headers, target_uri = with_target_uri(headers)
    status, http_headers = None, NO_HEADERS
    content_type = (headers.value(b"content-type") or b"").lower()
    if content_type.startswith(b"application/http") or (not content_type and body.startswith(b"HTTP/", start, end)):
        after = head_end(body, start, min(start + bounds.http_head_bytes, end))
        if after is not None:
            status, http_headers = parse_http_head(body[start:after])
            start = after
    return Record(
        offset=offset, length=length, index=0, record_type=record_type, headers=headers,
        target_uri=target_uri, http_status=status, http_headers=http_headers, body=body[start:end],
    )  # fmt: skip


def _read_member(
    source: Source, at: int, bounds: WarcBounds, packing: Packing, dialect: _Dialect
) -> Generator[Item, None, int]:
    """The records of the member at `at`; returns the offset after it."""
    if (after := packing.padding_end(source, at)) is not None:
        return after
    if source.read(at, len(packing.magic)) != packing.magic:
        raise BrokenError("garbage_between_records", "no compressed member starts here")
    member = packing.open(source, at)
    reader = Reader(member)
    held: Record | Skipped | None = None
    index = 0
    while True:
        _skip_blank(reader)
        if not reader.peek(1):
            break
        if held is not None:
            if not dialect.follows(reader):
                raise BrokenError("bad_content_length", "what follows the block is no record")
            yield held  # a later record begins, so this one is whole; the stored length is not known yet
        held = dialect.read(reader, at, index, bounds)
        index += 1
    if member.end is None:
        raise BrokenError("corrupt_member", "the member has no end")
    if held is not None:
        yield replace(held, length=member.end - at)
    return member.end


def _read_plain(source: Source, at: int, bounds: WarcBounds, dialect: _Dialect) -> Generator[Item, None, int]:
    """The one record at `at` of an uncompressed file; returns the offset after it and its blank lines.

    The place where the block is said to end is looked at first: false claims would else be read to their ends, each.
    """
    if dialect is _WARC:
        _refuse_open_head(source.read(at, _OPEN_HEAD_BYTES))
    reader = Reader(Plain(source, at))
    lead = _skip_blank(reader)
    if not reader.peek(1):
        return at + lead
    claim = dialect.claim(reader, bounds)
    end = at + reader.taken + claim
    if end > source.size_bytes:
        raise BrokenError("truncated_record", f"{source.size_bytes - at - reader.taken} of {claim} bytes")
    if claim > bounds.record_bytes:
        raise BrokenError("record_over_bound", f"{claim} bytes in one record")
    after = Reader(Plain(source, end))
    blank = _skip_blank(after, _MAX_BLANK_BYTES)
    if after.peek(1) and not (blank and dialect.follows(after)):
        raise BrokenError("bad_content_length", "what follows the block is no record")
    record = dialect.read(Reader(Plain(source, at + lead)), at + lead, 0, bounds)
    yield replace(record, length=end - at - lead)
    return end + after.taken


def _quick_plain(source: Source, at: int, bounds: WarcBounds) -> tuple[Item, int] | None:
    """The usual record of an uncompressed file: its four closing bytes, and after them another record or nothing."""
    length = _plain_length(source, at, bounds)
    if length is None or length > _QUICK_PLAIN_BYTES:
        return None
    item = _quick_record(source.read(at, length), at, length, bounds)
    return None if item is None else (item, at + length + 4)


def _skip_plain(source: Source, at: int, bounds: WarcBounds) -> int | None:
    length = _plain_length(source, at, bounds)
    return None if length is None else at + length + 4


def _plain_length(source: Source, at: int, bounds: WarcBounds) -> int | None:
    """Head and block of the record at `at`, where it is closed as usual."""
    window = source.read(at, _OPEN_HEAD_BYTES)
    start = head_end(window, 0, min(len(window), bounds.header_bytes))
    if start is None and b"\n" + _HEAD_START not in window:
        window = source.read(at, _PLAIN_WINDOW)
        start = head_end(window, 0, min(len(window), bounds.header_bytes))
    if start is None or window[:5] != _HEAD_START or window.find(b"\n" + _HEAD_START, 0, start) >= 0:
        return None
    try:
        claim = content_length(parse_warc_head(window[:start])[0])
    except BrokenError:
        return None
    if claim > bounds.record_bytes:
        return None
    end = at + start + claim
    tail = source.read(end, 9)
    return start + claim if tail == b"\r\n\r\nWARC/" or tail == b"\r\n\r\n" else None


def _skip_blank(reader: Reader, most: int | None = None) -> int:
    """Drop CR and LF; the number dropped."""
    dropped, look = 0, 256
    while (most is None or dropped < most) and (window := reader.peek(look)):
        rest = window.lstrip(b"\r\n")
        dropped += reader.skip(len(window) - len(rest))
        look = BLOCK_BYTES
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
    headers, target_uri = parse_warc_head(head)
    length = content_length(headers)
    record_type = headers.get("warc-type", "").lower()
    before = reader.taken
    keep = record_type in PAGE_TYPES
    body, status, http_headers, over = b"", None, NO_HEADERS, False
    if keep:
        if _is_http(headers, reader, length):
            http_head = reader.take_head(min(bounds.http_head_bytes, length))
            if http_head is not None:
                status, http_headers = parse_http_head(http_head)
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


def _refuse_open_head(window: bytes) -> None:
    """A version line inside a head begins another record: else a file of version lines is searched from each."""
    following = window.find(b"\n" + _HEAD_START, 1)
    if following >= 0 and head_end(window, 0, following + 2) is None and window[:5] == _HEAD_START:
        raise BrokenError("not_a_record", "another record begins inside the header")


def _claim(reader: Reader, bounds: WarcBounds) -> int:
    if reader.peek(len(_HEAD_START)) != _HEAD_START:
        raise BrokenError("not_a_record", "no WARC version line")
    head = reader.take_head(bounds.header_bytes)
    if head is None:
        raise BrokenError("header_over_bound", f"no end of the header within {bounds.header_bytes} bytes")
    return content_length(Headers(head, charset="utf-8"))


def _is_http(headers: Headers, reader: Reader, length: int) -> bool:
    content_type = headers.get("content-type", "").lower()
    if content_type.startswith("application/http"):
        return True
    return not content_type and reader.peek(min(5, length)) == b"HTTP/"


def _begins_plain(source: Source, at: int) -> bool:
    return _version_line(source.read(at, 16).lstrip(b"\r\n"))


def _next_plain(source: Source, at: int, end: int) -> int | None:
    """Offset of the first version line in [at, end) that stands after a line end."""
    return scan(source, max(at - 1, 0), end, b"\n" + _HEAD_START, 1, _begins_plain)


def _version_line(text: bytes) -> bool:
    return text[:5] == _HEAD_START and text[5:6].isdigit() and text[6:7] == b"." and text[7:8].isdigit()


_WARC = _Dialect(
    starts=_version_line,
    look=16,
    follows=lambda reader: reader.peek(len(_HEAD_START)) == _HEAD_START,
    claim=_claim,
    read=_read_record,
    quick=_quick_record,
)
_ARC = _Dialect(
    starts=starts_arc,
    look=LOOK_BYTES,
    follows=lambda reader: starts_arc(reader.peek(LOOK_BYTES)),
    claim=lambda reader, _bounds: arc_claim(reader),
    read=read_arc_record,
    quick=quick_arc_record,
)
_PLAIN_WARC = Form(
    _next_plain, _begins_plain, lambda source, at, bounds: _read_plain(source, at, bounds, _WARC),
    _quick_plain, _skip_plain, None,
)  # fmt: skip
