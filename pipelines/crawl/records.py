"""The one entry to everything that a crawl may lie in: a unit of any form -> its records, in order.

A form's reader never raises on what the bytes hold: each region ends in a `Record`, a `Skipped` or a `Damage`.
Errors of the store are raised: they say nothing of the bytes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

from pipelines.crawl.fetch import FetchRules
from pipelines.crawl.items import Item, WarcBounds
from pipelines.crawl.page_folder import read_pages
from pipelines.crawl.plan_reader import read_plan
from pipelines.crawl.rows import RowColumns, read_jsonl, read_parquet_row, read_parquet_rows
from pipelines.crawl.sources import PageSource, RangeStore, Source
from pipelines.crawl.wacz import read_wacz
from pipelines.crawl.warc import read_warc
from pipelines.errors import InputError


@dataclass(frozen=True, slots=True, kw_only=True)
class InputSettings:
    """What reading needs to know beyond the bytes."""

    columns: RowColumns = field(default_factory=RowColumns)
    fetch: FetchRules = field(default_factory=FetchRules)
    fetch_store: RangeStore | None = None  # instead of the root that a fetch plan names
    counters: Counter[str] = field(default_factory=Counter)  # receives what fetching a plan's pages took


def read_records(
    source: Source,
    *,
    form: str = "warc",
    start: int = 0,
    end: int | None = None,
    bounds: WarcBounds | None = None,
    settings: InputSettings | None = None,
) -> Iterator[Item]:
    """What starts in [start, end) of the source, in file order; `form` is one of `forms.FORMS`.

    `source` is what `open_source` gives for a row of `list_inputs`.  A record whose `fields` are not None came with
    no crawl: its URL may be empty or a file's.
    """
    bounds = bounds or WarcBounds()
    settings = settings or InputSettings()
    columns = settings.columns
    if form in ("warc", "wet", "arc"):
        return read_warc(source, start=start, end=end, bounds=bounds, arc=form == "arc")
    if form == "wacz":
        return read_wacz(source, start=start, end=end, bounds=bounds)
    if form == "html" and isinstance(source, PageSource):
        return read_pages(source, bounds=bounds)
    if form == "jsonl":
        return read_jsonl(source, start=start, end=end, bounds=bounds, columns=columns)
    if form == "parquet":
        return read_parquet_rows(source, start=start, end=end, bounds=bounds, columns=columns)
    if form == "cc_plan":
        return read_plan(
            source, start=start, end=end, bounds=bounds, store=settings.fetch_store, rules=settings.fetch,
            counters=settings.counters,
        )  # fmt: skip
    raise InputError(f"Files of form {form!r} cannot be read.", mend="Name files of a form that docs/inputs.md lists.")


def read_items_at(
    source: Source,
    *,
    form: str = "warc",
    offset: int,
    bounds: WarcBounds | None = None,
    settings: InputSettings | None = None,
) -> Iterator[Item]:
    """All items at an offset, as ledger rows name them: several where records share a member, none if the file changed.

    For form `html` the source holds the one page: `open_source(store, file, size, pages=[(file, size)])`.  Lines of a
    compressed file have no place of their own in it, so all before the line are inflated.  Pages of a fetch plan lie
    in their archives: `plan_reader.read_planned_page`.
    """
    bounds = bounds or WarcBounds()
    settings = settings or InputSettings()
    if form == "parquet":
        item = read_parquet_row(source, offset, bounds=bounds, columns=settings.columns)
        yield from () if item is None else (item,)
        return
    for item in read_records(source, form=form, start=offset, end=offset + 1, bounds=bounds, settings=settings):
        if item.offset == offset:
            yield item
        elif item.offset > offset:
            return


def read_record_at(
    source: Source,
    *,
    form: str = "warc",
    offset: int,
    index: int = 0,
    bounds: WarcBounds | None = None,
    settings: InputSettings | None = None,
) -> Item | None:
    """The one of `read_items_at` that has the index; None where there is none."""
    items = read_items_at(source, form=form, offset=offset, bounds=bounds, settings=settings)
    return next((item for item in items if item.index == index), None)
