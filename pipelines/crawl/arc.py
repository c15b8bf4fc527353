"""Records of ARC files, versions 1 and 2: the Internet Archive's form before WARC.

A record is one line of fields, the block of as many bytes as its last field says, and a line end.  Version 1: URL,
address, date, type, length; version 2 puts status, checksum, location, offset and file name before the length.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from pipelines.crawl.heads import NO_HEADERS, Headers, parse_http_head
from pipelines.crawl.items import Record, Skipped, WarcBounds
from pipelines.crawl.members import BrokenError, Reader, head_end

LOOK_BYTES = 16 << 10  # a URL may be long
_ABOUT_THE_FILE = b"filedesc:"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Line:
    """The fields of a record's line that matter, and the bytes that the line takes with its end."""

    url: bytes
    address: bytes
    date: bytes
    mime: bytes
    length: int
    size_bytes: int


def starts_arc(head: bytes) -> bool:
    """Whether the bytes begin with the line of an ARC record."""
    return _line_of(head) is not None


def arc_claim(reader: Reader) -> int:
    """Takes a record's line; the length that it claims for the block."""
    line = _line_of(reader.peek(LOOK_BYTES))
    if line is None:
        raise BrokenError("not_a_record", "no line of an ARC record")
    reader.skip(line.size_bytes)
    return line.length


def read_arc_record(reader: Reader, offset: int, index: int, bounds: WarcBounds) -> Record | Skipped:
    """One record from its line to the end of its block; `BrokenError` where it is not whole."""
    line = _line_of(reader.peek(LOOK_BYTES))
    if line is None:
        raise BrokenError("not_a_record", "no line of an ARC record")
    reader.skip(line.size_bytes)
    about = line.url.startswith(_ABOUT_THE_FILE)
    block = b"" if about else reader.take(min(line.length, bounds.body_bytes + bounds.http_head_bytes))
    left = line.length - len(block)
    dropped = reader.skip(min(left, bounds.record_bytes))
    if dropped < left:
        if dropped == bounds.record_bytes:
            raise BrokenError("record_over_bound", f"more than {bounds.record_bytes} bytes in one record")
        raise BrokenError("truncated_record", f"{line.length - left + dropped} of {line.length} bytes")
    if about:
        return Skipped(offset=offset, length=0, index=index, record_type="filedesc")
    return _record(line, block, offset, index, bounds)


def quick_arc_record(body: bytes, offset: int, length: int, bounds: WarcBounds) -> Record | Skipped | None:
    """The record that is all of an inflated member; None where anything is unusual."""
    line = _line_of(body[:LOOK_BYTES])
    if line is None or line.url.startswith(_ABOUT_THE_FILE) or line.length > bounds.body_bytes:
        return None
    end = line.size_bytes + line.length
    if end > len(body) or body[end:].strip(b"\r\n"):
        return None
    return replace(_record(line, body[line.size_bytes : end], offset, 0, bounds), length=length)


def _record(line: _Line, block: bytes, offset: int, index: int, bounds: WarcBounds) -> Record:
    """As the WARC record that the same capture would have given."""
    status, http_headers, body = None, NO_HEADERS, block
    after = head_end(block, 0, min(len(block), bounds.http_head_bytes)) if block[:5] == b"HTTP/" else None
    if after is not None:
        status, http_headers = parse_http_head(block[:after])
        body = block[after:]
    is_http = block[:5] == b"HTTP/"
    raw = b"ARC\r\nWARC-Type: response\r\nWARC-Date: %s\r\nWARC-IP-Address: %s\r\nContent-Type: %s\r\n\r\n" % (
        _iso(line.date),
        line.address,
        b"application/http; msgtype=response" if is_http else line.mime,
    )
    over = len(body) > bounds.body_bytes or line.length > len(block)
    return Record(
        offset=offset, length=0, index=index, record_type="response", headers=Headers(raw, charset="utf-8"),
        target_uri=line.url, http_status=status, http_headers=http_headers, body=b"" if over else body,
        over_bound=over,
    )  # fmt: skip


def _line_of(head: bytes) -> _Line | None:
    """The line that `head` begins with, after blank lines; None where it is no ARC line."""
    text = head.lstrip(b"\r\n")
    stop = text.find(b"\n")
    if stop < 0:
        return None
    fields = text[:stop].rstrip(b"\r").split(b" ")
    dated = next((n for n in range(2, len(fields) - 2) if len(fields[n]) == 14 and fields[n].isdigit()), None)
    claim = fields[-1]
    if dated is None or not claim.isdigit() or len(claim) > 18 or b":" not in fields[0]:
        return None
    return _Line(
        url=b" ".join(fields[: dated - 1]),
        address=fields[dated - 1],
        date=fields[dated],
        mime=fields[dated + 1].rstrip(b";"),
        length=int(claim),
        size_bytes=len(head) - len(text) + stop + 1,
    )


def _iso(digits: bytes) -> bytes:
    """20010203040506 as 2001-02-03T04:05:06Z."""
    y, m, d, h, n, s = (digits[a:b] for a, b in ((0, 4), (4, 6), (6, 8), (8, 10), (10, 12), (12, 14)))
    return b"%s-%s-%sT%s:%s:%sZ" % (y, m, d, h, n, s)
