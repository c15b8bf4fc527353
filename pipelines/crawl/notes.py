"""What a reader should say of a record that it can read: missing or repeated ids, a crawler's own mark of a cut.

Such a record is a page like any other (an id of it is of our making), so a note is counted, never a verdict.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator

import xxhash

from pipelines.crawl.items import Item, Record

NOTES: dict[str, str] = {
    "repeated_record_id": "another record of the same unit has the same WARC-Record-ID",
    "no_record_id": "the record has no WARC-Record-ID",
    "no_date": "the record has no WARC-Date",
    "cut_by_crawler": "WARC-Truncated says that the crawler did not store all of the page",
}


class RecordNotes:
    """Notes of the records of one unit, in order; remembers eight bytes and a set's place for each id."""

    def __init__(self, form: str = "warc") -> None:
        """`form` of the unit: only records of WARC have the headers that notes are of."""
        self._silent = form not in ("warc", "wet", "wacz", "cc_plan")
        self._ids: set[int] = set()
        self.counts: Counter[str] = Counter()

    def watch(self, items: Iterable[Item]) -> Iterator[Item]:
        """The items as they come; `counts` receives the notes of their records."""
        if self._silent:
            yield from items
            return
        for item in items:
            if isinstance(item, Record) and (found := self.of(item)):
                self.counts.update(found)
            yield item

    def of(self, record: Record) -> tuple[str, ...]:
        """Keys of NOTES that hold for the record."""
        if self._silent:
            return ()
        headers = record.headers
        identity = headers.get("warc-record-id")
        if identity is None:
            out = ["no_record_id"]
        else:
            entry = xxhash.xxh3_64_intdigest(identity.encode())
            out = ["repeated_record_id"] if entry in self._ids else []
            self._ids.add(entry)
        if headers.get("warc-date") is None:
            out.append("no_date")
        if headers.get("warc-truncated") is not None:
            out.append("cut_by_crawler")
        return tuple(out)
