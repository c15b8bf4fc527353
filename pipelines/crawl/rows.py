"""Documents that come as rows: JSON lines (plain, gzip, zstd) and Parquet.

A row becomes the record that its page would have been: HTML as a `resource`, text as a `conversion`, with the other
known columns in `Record.fields`.  A row that is no such thing is one `Damage`, and the next row is read.

`offset` is the byte at which a line begins (in a compressed file: of the inflated bytes), or a Parquet row's number
in its file.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from pipelines.crawl.items import Damage, Item, Record, WarcBounds
from pipelines.crawl.members import GZIP, ZSTD_MAGIC, ZSTD_SKIPPABLE, BrokenError, Pieces, Plain, zstd_packing
from pipelines.crawl.sources import Source
from pipelines.errors import GristmillError

_BATCH_ROWS = 64
_MAX_GROUP_BYTES = 2 << 30
_MAX_FOOTER_BYTES = 64 << 20
_MARK = "\ufeff"


@dataclass(frozen=True, slots=True, kw_only=True)
class RowColumns:
    """Names of the columns that are read; the first name that a row has counts.  A row's HTML goes before its text.

    `date` is the day of publication, `captured` the time of the visit.
    """

    html: tuple[str, ...] = ("html", "raw_html")
    text: tuple[str, ...] = ("text", "content")
    url: tuple[str, ...] = ("url", "source_url")
    id: tuple[str, ...] = ("id",)
    title: tuple[str, ...] = ("title",)
    date: tuple[str, ...] = ("published", "publish_date")
    captured: tuple[str, ...] = ("date", "timestamp", "crawl_date")
    language: tuple[str, ...] = ("language", "lang")

    def names(self) -> frozenset[str]:
        """All columns that are read."""
        groups = (self.html, self.text, self.url, self.id, self.title, self.date, self.captured, self.language)
        return frozenset(name for group in groups for name in group)


def read_jsonl(
    source: Source, *, start: int = 0, end: int | None = None, bounds: WarcBounds, columns: RowColumns
) -> Iterator[Item]:
    """Rows whose line begins in [start, end).  Empty lines are nothing."""
    head = source.read(0, 4)
    packed = head.startswith((GZIP.magic, ZSTD_MAGIC)) or head[1:4] == ZSTD_SKIPPABLE
    end = None if packed else min(source.size_bytes if end is None else end, source.size_bytes)
    inside = start > 0 and not packed
    begin = start - 1 if inside else 0  # a line begins at `start` if the byte before it ends one
    pieces: Iterator[bytes] = _members(source) if packed else _plain(source, begin)
    lines = _Lines(pieces, begin, 2 * bounds.body_bytes)
    if inside:
        lines.next_line()  # the end of a line that another unit owns
    while (end is None or lines.at < end) and (line := lines.next_line()) is not None:
        offset, length, body = line
        if body is None:
            yield _damage(offset, "record_over_bound", f"a line of {length} bytes", length)
        elif body.strip():
            yield _json_item(body, offset, length, columns, bounds)
    if lines.broken is not None:
        yield Damage(offset=lines.at, length=0, index=1, reason=lines.broken.reason, detail=lines.broken.detail)


class _Lines:
    """Lines of a stream, each held only up to a bound."""

    def __init__(self, pieces: Iterator[bytes], at: int, most: int) -> None:
        self._pieces = pieces
        self._most = most
        self._buffer = b""
        self._next = 0
        self.at = at
        self.broken: BrokenError | None = None

    def next_line(self) -> tuple[int, int, bytes | None] | None:
        """(offset, bytes with the line end, line without it); the line is None where it is too long."""
        held: list[bytes] = []
        size, kept = 0, 0
        while True:
            stop = self._buffer.find(b"\n", self._next)
            piece = self._buffer[self._next : stop + 1 if stop >= 0 else None]
            self._next += len(piece)
            size += len(piece)
            if kept + len(piece) <= self._most:
                held.append(piece)
                kept += len(piece)
            if stop >= 0:
                break
            self._buffer, self._next = self._more(), 0
            if not self._buffer:
                if size == 0 or self.broken is not None:
                    return None  # what a broken stream gave of a line is told with the damage
                break
        offset, self.at = self.at, self.at + size
        return offset, size, b"".join(held).rstrip(b"\r\n") if kept == size else None

    def _more(self) -> bytes:
        try:
            return next(self._pieces, b"")
        except BrokenError as error:
            self.broken = error
            return b""


def _plain(source: Source, at: int) -> Iterator[bytes]:
    plain = Plain(source, at)
    while piece := plain.more():
        yield piece


def _members(source: Source) -> Iterator[bytes]:
    """The content of all members or frames, one after another, as one stream."""
    packing = GZIP if source.read(0, 3) == GZIP.magic else zstd_packing(source)
    at = 0
    while at < source.size_bytes:
        after = packing.padding_end(source, at)
        if after is None:
            if source.read(at, len(packing.magic)) != packing.magic:
                raise BrokenError("corrupt_member", f"{source.size_bytes - at} bytes after the last member")
            member: Pieces = packing.open(source, at)
            while piece := member.more():
                yield piece
            if member.end is None:
                raise BrokenError("corrupt_member", "the member has no end")
            after = member.end
        at = after


def _json_item(line: bytes, offset: int, length: int, columns: RowColumns, bounds: WarcBounds) -> Item:
    try:
        row = json.loads(line.decode("utf-8", "replace").removeprefix(_MARK))
    except (ValueError, RecursionError) as error:
        return _damage(offset, "not_a_record", f"the line is no JSON: {str(error)[:120]}", length)
    if not isinstance(row, dict):
        return _damage(offset, "not_a_record", f"the line is a {type(row).__name__}, not an object", length)
    return _item(row, offset, length, columns, bounds)


def read_parquet_rows(
    source: Source, *, start: int = 0, end: int | None = None, bounds: WarcBounds, columns: RowColumns
) -> Iterator[Item]:
    """Rows of the row groups whose first byte is in [start, end).  Few rows are held at once."""
    if source.size_bytes == 0:
        return
    end = source.size_bytes if end is None else end
    try:
        file, wanted = open_parquet(source, columns.names())
    except (NotParquetError, OSError, ValueError) as error:
        if start == 0:
            yield Damage(
                offset=0, length=source.size_bytes, index=0, reason="not_a_warc",
                detail=f"the file is no Parquet: {str(error)[:160]}",
            )  # fmt: skip
        return
    first_row = 0
    for group in range(file.metadata.num_row_groups):
        about = file.metadata.row_group(group)
        if start <= group_start(about) < end:
            yield from _group_items(file, group, first_row, wanted, columns, bounds)
        first_row += about.num_rows


def read_parquet_row(source: Source, row: int, *, bounds: WarcBounds, columns: RowColumns) -> Item | None:
    """The row of that number, or None where there is none."""
    try:
        file, wanted = open_parquet(source, columns.names())
    except (NotParquetError, OSError, ValueError):
        return None
    first_row = 0
    for group in range(file.metadata.num_row_groups):
        rows = file.metadata.row_group(group).num_rows
        if first_row <= row < first_row + rows:
            items = _group_items(file, group, first_row, wanted, columns, bounds)
            return next((item for item in items if item.offset == row), None)
        first_row += rows
    return None


class NotParquetError(Exception):
    """The bytes at the file's ends say that it is no Parquet."""


class _SourceFile:
    """A source as the file object that Arrow reads."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._at = 0
        self.closed = False

    def read(self, size: int = -1) -> bytes:
        body = self._source.read(self._at, self._source.size_bytes - self._at if size < 0 else size)
        self._at += len(body)
        return body

    def seek(self, offset: int, whence: int = 0) -> int:
        self._at = offset + (0, self._at, self._source.size_bytes)[whence]
        return self._at

    def tell(self) -> int:
        return self._at

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def close(self) -> None:
        self.closed = True


def open_parquet(source: Source, columns: frozenset[str]) -> tuple[Any, list[str]]:
    """The file, and those of the columns that it has; `NotParquetError` or an error of Arrow where it is none."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    tail = source.read(max(0, source.size_bytes - 8), 8)
    if source.read(0, 4) != b"PAR1" or tail[4:] != b"PAR1":
        raise NotParquetError("it does not begin and end with PAR1")
    if int.from_bytes(tail[:4], "little") > min(_MAX_FOOTER_BYTES, source.size_bytes):
        raise NotParquetError("the footer is larger than the bound or the file")
    file = pq.ParquetFile(
        pa.PythonFile(_SourceFile(source), mode="r"), pre_buffer=False, page_checksum_verification=True
    )
    return file, [field.name for field in file.schema_arrow if field.name in columns]


def group_start(group: Any) -> int:
    """The first byte of a row group, from its metadata."""
    if group.num_columns == 0:
        return 4
    column = group.column(0)
    return min(at for at in (column.dictionary_page_offset, column.data_page_offset) if at)


def _group_items(
    file: Any, group: int, first_row: int, wanted: list[str], columns: RowColumns, bounds: WarcBounds
) -> Iterator[Item]:
    rows = file.metadata.row_group(group).num_rows
    held = file.metadata.row_group(group).total_byte_size
    if held > _MAX_GROUP_BYTES:
        yield _damage(first_row, "record_over_bound", f"a row group of {held} bytes, {rows} rows")
        return
    row = first_row
    try:
        for batch in file.iter_batches(_BATCH_ROWS, row_groups=[group], columns=wanted, use_threads=False):
            names = batch.schema.names
            for n in range(batch.num_rows):
                yield _arrow_item(batch, names, n, row, columns, bounds)
                row += 1
    except GristmillError:
        raise  # the store, not the bytes
    except Exception as error:  # noqa: BLE001 - Arrow raises OSError, ValueError, NotImplementedError, ... on hostile pages
        yield _damage(
            row, "corrupt_member", f"{first_row + rows - row} rows of row group {group}: {str(error)[:160]}", 0
        )


def _arrow_item(batch: Any, names: list[str], n: int, row: int, columns: RowColumns, bounds: WarcBounds) -> Item:
    try:
        values = {name: batch.column(at)[n].as_py() for at, name in enumerate(names)}
    except Exception as error:  # noqa: BLE001 - a value that Python cannot hold: a date of year 99999, text not UTF-8
        return _damage(row, "not_a_record", f"a value cannot be read: {str(error)[:120]}")
    return _item(values, row, 0, columns, bounds)


def _item(row: Mapping[str, Any], offset: int, length: int, columns: RowColumns, bounds: WarcBounds) -> Item:
    try:
        html = _bytes(row, columns.html)
        body = html if html is not None else _bytes(row, columns.text)
        url = _bytes(row, columns.url) or b""
    except _WrongTypeError as error:
        return _damage(offset, "not_a_record", str(error), length)
    if body is None:
        return _damage(offset, "not_a_record", f"no column of {[*columns.html, *columns.text]} holds a value", length)
    headers = {"content-type": f"text/{'html' if html is not None else 'plain'}; charset=utf-8"}
    captured = _word(row, columns.captured)
    if captured is not None:
        headers["warc-date"] = captured
    given = {"id": columns.id, "title": columns.title, "date": columns.date, "language": columns.language}
    fields = {name: value for name, names in given.items() if (value := _word(row, names)) is not None}
    over = len(body) > bounds.body_bytes
    return Record(
        offset=offset, length=length, index=0, record_type="conversion" if html is None else "resource",
        headers=headers, target_uri=url.strip(), http_status=None, http_headers={}, body=b"" if over else body,
        over_bound=over, fields=fields,
    )  # fmt: skip


class _WrongTypeError(Exception):
    pass


def _bytes(row: Mapping[str, Any], names: tuple[str, ...]) -> bytes | None:
    """The first of the columns that is not null, as bytes."""
    for name in names:
        value = row.get(name)
        if isinstance(value, str):
            return _encoded(value)
        if isinstance(value, bytes):
            return value
        if value is not None:
            raise _WrongTypeError(f"column {name} is a {type(value).__name__}, not text")
    return None


def _word(row: Mapping[str, Any], names: tuple[str, ...]) -> str | None:
    """The first of the columns that is not null, as one short string; what is neither text nor number is left out."""
    value = next((row[name] for name in names if row.get(name) is not None), None)
    if isinstance(value, str):
        return _encoded(value[:4096]).decode("utf-8")
    if isinstance(value, int | float):
        return str(value)[:64]
    if hasattr(value, "isoformat"):
        return value.isoformat()
    return None


def _encoded(text: str) -> bytes:
    try:
        return text.encode("utf-8")
    except UnicodeEncodeError:  # half of a surrogate pair, which JSON can spell
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace").encode("utf-8")


def _damage(offset: int, reason: str, detail: str, length: int = 0) -> Damage:
    return Damage(offset=offset, length=length, index=0, reason=reason, detail=detail)
