"""What a reader of any form gives: a record, a record that holds no page, or a damaged region."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

PAGE_TYPES = frozenset({"response", "resource", "conversion"})


@dataclass(frozen=True, slots=True, kw_only=True)
class WarcBounds:
    """Upper bounds in bytes, each inclusive; a record over the body bound comes out with `over_bound` set."""

    header_bytes: int = 256 << 10
    http_head_bytes: int = 1 << 20
    body_bytes: int = 16 << 20
    record_bytes: int = 512 << 20


# A frozen dataclass takes three times as long to make, and a crawl makes two of these a page: nobody writes to them.
@dataclass(slots=True, kw_only=True)
class Record:
    """A response, resource or conversion record, or a page or row of another form.

    `offset` and `length` are the stored bytes in the crawl file; records that share one gzip member share the
    offset, differ in `index`, and all but the last have length 0.  `headers` have lower-case names; the first
    of a repeated name wins.  `http_status` is None where the block is not HTTP or its head cannot be read.
    `body` is as stored, after the HTTP head.
    """

    offset: int
    length: int
    index: int
    record_type: str
    headers: Mapping[str, str]
    target_uri: bytes
    http_status: int | None
    http_headers: Mapping[str, str]
    body: bytes
    over_bound: bool = False
    fields: dict[str, Any] | None = None  # columns that came with a row: title, date, language, ...; None elsewhere
    file: str | None = None  # where the record lies, if not in the unit's own file


@dataclass(slots=True, kw_only=True)
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
