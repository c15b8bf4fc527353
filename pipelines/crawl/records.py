"""The one entry to everything that a crawl may lie in: a unit of any form -> its records, in order.

A form's reader never raises on what the bytes hold: each region ends in a `Record`, a `Skipped` or a `Damage`.
"""

from __future__ import annotations

from collections.abc import Iterator

from pipelines.crawl.sources import Source
from pipelines.crawl.warc import Item, WarcBounds, read_warc
from pipelines.errors import InputError


def read_records(
    source: Source, *, form: str = "warc", start: int = 0, end: int | None = None, bounds: WarcBounds | None = None
) -> Iterator[Item]:
    """What starts in [start, end) of the source, in file order."""
    if form in ("warc", "wet", "arc"):
        return read_warc(source, start=start, end=end, bounds=bounds)
    raise InputError(f"Files of form {form!r} cannot be read.", mend="Name files of a form that docs/inputs.md lists.")


def read_record_at(
    source: Source, *, form: str = "warc", offset: int, index: int = 0, bounds: WarcBounds | None = None
) -> Item | None:
    """The one item at (offset, index), as a ledger row names it; None where there is none (the file changed)."""
    for item in read_records(source, form=form, start=offset, end=offset + 1, bounds=bounds):
        if (item.offset, item.index) == (offset, index):
            return item
    return None
