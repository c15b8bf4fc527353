"""WACZ: a zip whose folder `archive/` holds WARC files.

Entries are stored, as the format recommends, so that their members lie in the zip as they are: a unit owns those
that start in its range, and offsets are of the zip.  Of a deflated entry the unit owns all if the entry begins in its
range; its records then share the entry's offset and are numbered by `index`.
"""

from __future__ import annotations

import tempfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import IO

from pipelines.crawl.forms import form_of
from pipelines.crawl.items import Damage, Item, WarcBounds
from pipelines.crawl.sources import Source
from pipelines.crawl.warc import read_warc

_MAX_DIRECTORY_BYTES = 32 << 20  # half a million entries
_MAX_INFLATED_BYTES = 8 << 30
_MAX_GROWTH = 64  # the entries are compressed archives already
_HELD_IN_MEMORY = 64 << 20
_BLOCK_BYTES = 1 << 20
_STORED, _DEFLATED = 0, 8


@dataclass(frozen=True, slots=True)
class _Entry:
    name: str
    header: int
    start: int
    packed_bytes: int
    method: int
    flags: int

    @property
    def end(self) -> int:
        """The offset after the entry's bytes."""
        return self.start + self.packed_bytes


class _BadZipError(Exception):
    pass


def read_wacz(source: Source, *, start: int = 0, end: int | None = None, bounds: WarcBounds) -> Iterator[Item]:
    """The records of all archives in the zip that are of [start, end), in the order of their bytes."""
    if source.size_bytes == 0:
        return
    end = source.size_bytes if end is None else end
    try:
        entries = _entries(source)
        if not entries:
            raise _BadZipError("no archive/*.warc in the zip")
    except _BadZipError as error:
        if start == 0:
            yield Damage(offset=0, length=source.size_bytes, index=0, reason="not_a_warc", detail=str(error))
        return
    seen = 0
    for entry in entries:
        fault = _fault(entry, source, seen)
        seen = max(seen, entry.end)
        if fault is None:
            yield from _entry_items(source, entry, start, end, bounds)
        elif start <= entry.header < end:
            yield Damage(
                offset=entry.header, length=entry.packed_bytes, index=0, reason="corrupt_member",
                detail=f"{entry.name[:80]!r}: {fault}",
            )  # fmt: skip


def _entry_items(source: Source, entry: _Entry, start: int, end: int, bounds: WarcBounds) -> Iterator[Item]:
    if entry.method == _DEFLATED:
        if start <= entry.header < end:
            yield from _deflated_items(source, entry, bounds)
        return
    low, high = max(start, entry.start), min(end, entry.end)
    if low < high:
        inside = _Slice(source, entry.start, entry.packed_bytes)
        for item in read_warc(inside, start=low - entry.start, end=high - entry.start, bounds=bounds):
            yield replace(item, offset=item.offset + entry.start)


def _fault(entry: _Entry, source: Source, seen: int) -> str | None:
    if entry.flags & 1:
        return "the entry is encrypted"
    if entry.method not in (_STORED, _DEFLATED):
        return f"compression method {entry.method} is not read"
    if entry.end > source.size_bytes:
        return "the entry goes past the end of the file"
    if entry.header < seen:
        return "the entry overlaps another one"  # else one run of bytes could be read as often as it is named
    return None


def _deflated_items(source: Source, entry: _Entry, bounds: WarcBounds) -> Iterator[Item]:
    """Inflated to a temporary file, since a reader looks back."""
    with tempfile.SpooledTemporaryFile(_HELD_IN_MEMORY) as spool:
        fault = _inflate(source, entry, spool)
        index = 0
        size = spool.seek(0, 2)
        for item in read_warc(_FileSource(spool, size), bounds=bounds):
            yield replace(item, offset=entry.header, length=0, index=index)
            index += 1
        if fault is not None:
            yield Damage(
                offset=entry.header, length=entry.packed_bytes, index=index, reason=fault,
                detail=f"{entry.name[:80]!r}: the entry gave {size} bytes",
            )  # fmt: skip


def _inflate(source: Source, entry: _Entry, spool: IO[bytes]) -> str | None:
    """Writes what the entry inflates to; the reason why it ended before its end."""
    inflater = zlib.decompressobj(-15)
    most = min(_MAX_INFLATED_BYTES, _MAX_GROWTH * entry.packed_bytes + _BLOCK_BYTES)
    at, written = entry.start, 0
    try:
        while not inflater.eof:
            packed = inflater.unconsumed_tail
            if not packed:
                packed = source.read(at, min(_BLOCK_BYTES, entry.end - at))
                at += len(packed)
            if not packed:
                return "truncated_record"
            written += spool.write(inflater.decompress(packed, _BLOCK_BYTES))
            if written > most:
                return "record_over_bound"
    except zlib.error:
        return "corrupt_member"
    return None


class _Slice:
    """A part of a source as a source."""

    def __init__(self, source: Source, start: int, size_bytes: int) -> None:
        self._source = source
        self._start = start
        self.size_bytes = size_bytes

    def read(self, start: int, size: int) -> bytes:
        return self._source.read(self._start + start, max(0, min(size, self.size_bytes - start)))


class _FileSource:
    """An open file as a source."""

    def __init__(self, file: IO[bytes], size_bytes: int) -> None:
        self._file = file
        self.size_bytes = size_bytes

    def read(self, start: int, size: int) -> bytes:
        self._file.seek(start)
        return self._file.read(size)


def _entries(source: Source) -> list[_Entry]:
    """The archives that the zip's directory names, in the order of their bytes."""
    directory = _directory(source)
    names = []
    at = 0
    while directory[at : at + 4] == b"PK\x01\x02" and at + 46 <= len(directory):
        fixed = directory[at : at + 46]
        name_bytes, extra_bytes, comment_bytes = (_u(fixed, n, 2) for n in (28, 30, 32))
        name = directory[at + 46 : at + 46 + name_bytes].decode("utf-8", "replace")
        extra = directory[at + 46 + name_bytes : at + 46 + name_bytes + extra_bytes]
        packed, whole, header = _u(fixed, 20, 4), _u(fixed, 24, 4), _u(fixed, 42, 4)
        packed, header = _zip64(extra, packed, whole, header)
        at += 46 + name_bytes + extra_bytes + comment_bytes
        if form_of(name, guess=False) in ("warc", "arc", "wet"):
            names.append((header, name, packed, _u(fixed, 10, 2), _u(fixed, 8, 2)))
    in_archive = [entry for entry in names if entry[1].startswith("archive/")]
    out = []
    for header, name, packed, method, flags in sorted(in_archive or names):
        local = source.read(header, 30)
        if local[:4] != b"PK\x03\x04":
            raise _BadZipError(f"no entry begins at {header}, where the directory names one")
        start = header + 30 + _u(local, 26, 2) + _u(local, 28, 2)
        out.append(_Entry(name, header, start, packed, method, flags))
    return out


def _directory(source: Source) -> bytes:
    tail_at = max(0, source.size_bytes - 66_000)
    tail = source.read(tail_at, 66_000)
    at = tail.rfind(b"PK\x05\x06")
    if at < 0 or len(tail) - at < 22:
        raise _BadZipError("the file is no zip: it has no directory")
    size, start = _u(tail, at + 12, 4), _u(tail, at + 16, 4)
    if (size == 0xFFFFFFFF or start == 0xFFFFFFFF) and at >= 20 and tail[at - 20 : at - 16] == b"PK\x06\x07":
        large = source.read(_u(tail, at - 12, 8), 56)
        if large[:4] != b"PK\x06\x06" or len(large) < 56:
            raise _BadZipError("the directory's large record cannot be read")
        size, start = _u(large, 40, 8), _u(large, 48, 8)
    if size > _MAX_DIRECTORY_BYTES or start + size > source.size_bytes:
        raise _BadZipError(f"a directory of {size} bytes at {start}")
    return source.read(start, size)


def _zip64(extra: bytes, packed: int, whole: int, header: int) -> tuple[int, int]:
    """Packed size and header offset, from the large fields where the small ones say so."""
    at = 0
    while at + 4 <= len(extra):
        kind, size = _u(extra, at, 2), _u(extra, at + 2, 2)
        if kind == 1:
            values = [_u(extra, at + 4 + n, 8) for n in range(0, size - 7, 8)]
            if whole == 0xFFFFFFFF and values:
                values.pop(0)
            if packed == 0xFFFFFFFF and values:
                packed = values.pop(0)
            if header == 0xFFFFFFFF and values:
                header = values.pop(0)
        at += 4 + size
    return packed, header


def _u(body: bytes, at: int, size: int) -> int:
    return int.from_bytes(body[at : at + size], "little")
