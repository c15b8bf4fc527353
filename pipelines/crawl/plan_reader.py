"""The pages of a fetch plan, read by ranged GETs a few ahead of the one at hand.

What came is a record only if it is whole and names the URL that the index gave for it; else it is a damage with the
archive's name, offset and length, and its neighbours stay.
"""

from __future__ import annotations

import functools
from collections import Counter, deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import pyarrow as pa

from pipelines.crawl.cc_index import PLAN_SCHEMA, ROOT_KEY, ranges_of
from pipelines.crawl.fetch import FetchRules, HttpStore
from pipelines.crawl.items import Damage, Item, Record, WarcBounds
from pipelines.crawl.rows import NotParquetError, group_start, open_parquet
from pipelines.crawl.sources import MemorySource, RangeStore, Source
from pipelines.crawl.warc import read_warc
from pipelines.errors import InputError

_HTTP = ("http://", "https://")


@functools.lru_cache(maxsize=4)
def open_fetch_store(root: str, rules: FetchRules | None = None) -> RangeStore:
    """The archives' store: over HTTP by the rules, or any other store of ours.  One a process, which keeps its pace."""
    if root.startswith(_HTTP):
        return HttpStore(root, rules)
    from pipelines.datasets.store import open_store

    return open_store(root)


def plan_units(source: Source) -> list[tuple[int, int]]:
    """[start, end) of each row group of a plan: its units."""
    file = _open_plan(source)
    starts = [group_start(file.metadata.row_group(n)) for n in range(file.metadata.num_row_groups)]
    starts[:1] = [0] if starts else []
    return list(zip(starts, [*starts[1:], source.size_bytes], strict=True))


def _open_plan(source: Source) -> Any:
    try:
        file, names = open_parquet(source, frozenset(PLAN_SCHEMA.names))
    except (NotParquetError, OSError, ValueError) as error:
        raise InputError(f"The fetch plan cannot be read: {error}", mend="Make it again with plan_pages.") from None
    if set(names) != set(PLAN_SCHEMA.names):
        raise InputError(f"The fetch plan has the columns {names}.", mend="Make it with plan_pages.")
    return file


def read_plan(
    source: Source,
    *,
    start: int = 0,
    end: int | None = None,
    bounds: WarcBounds,
    store: RangeStore | None = None,
    rules: FetchRules | None = None,
    counters: Counter[str] | None = None,
) -> Iterator[Item]:
    """The records of the row groups whose first byte is in [start, end), each with the archive as its `file`.

    `store` None opens the root that the plan names.  `counters` receives gets, get_bytes, pages, and what the store
    counted beside.
    """
    end = source.size_bytes if end is None else end
    counters = Counter() if counters is None else counters
    rules = rules or FetchRules()
    file = _open_plan(source)
    meta = file.schema_arrow.metadata or {}
    store = store or open_fetch_store(plan_root(source), rules)
    gap_bytes = int(meta.get(b"gristmill.gap_bytes", b"0"))
    told = getattr(store, "counters", None)
    before = Counter(told or ())
    try:
        for group in range(file.metadata.num_row_groups):
            first = group_start(file.metadata.row_group(group)) if group else 0
            if start <= first < end:
                rows = file.read_row_group(group, columns=PLAN_SCHEMA.names, use_threads=False)
                yield from _fetched(rows, store, rules, gap_bytes, bounds, counters)
    finally:
        for name, n in (told or {}).items():
            counters[f"http_{name}"] += n - before[name]


def read_planned_page(
    store: RangeStore, file: str, offset: int, length: int, *, bounds: WarcBounds, url: bytes | None = None
) -> Item:
    """One page again, by one GET, as a ledger row names it."""
    body = store.get_ranges(file, [(offset, offset + length)])[0]
    return next(_page_items(body, file, offset, length, url, bounds))


def plan_root(source: Source) -> str:
    """Where the archives of a plan lie, for `open_fetch_store`."""
    root = (_open_plan(source).schema_arrow.metadata or {}).get(ROOT_KEY)
    if root is None:
        raise InputError("The fetch plan names no root.", mend="Make it with plan_pages, or hand in a store.")
    return root.decode()


def _fetched(
    rows: pa.Table, store: RangeStore, rules: FetchRules, gap_bytes: int, bounds: WarcBounds, counters: Counter[str]
) -> Iterator[Item]:
    """Items in the order of the rows, with GETs under way up to the rules' bytes and connections."""
    offsets, lengths = (rows[n].to_pylist() for n in PLAN_SCHEMA.names[1:3])
    urls = rows["url"].cast(pa.binary()).to_pylist()
    waiting: deque[tuple[Future[list[bytes]], str, int, int, list[int]]] = deque()
    held = 0
    ranges = ranges_of(rows, gap_bytes)
    upcoming = next(ranges, None)
    pool = ThreadPoolExecutor(rules.connections)
    try:
        while upcoming is not None or waiting:
            while upcoming is not None and len(waiting) < 2 * rules.connections:
                name, first, last, members = upcoming
                if waiting and held + last - first > rules.bytes_in_flight:
                    break
                waiting.append((pool.submit(store.get_ranges, name, [(first, last)]), name, first, last, members))
                held += last - first
                upcoming = next(ranges, None)
            future, name, first, last, members = waiting.popleft()
            body = future.result()[0]
            held -= last - first
            counters["gets"] += 1
            counters["get_bytes"] += len(body)
            for n in members:
                counters["pages"] += 1
                low = offsets[n] - first
                stored = body[low : low + lengths[n]]
                yield from _page_items(stored, name, offsets[n], lengths[n], urls[n], bounds)
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _page_items(
    stored: bytes, file: str, offset: int, length: int, url: bytes | None, bounds: WarcBounds
) -> Iterator[Item]:
    """The one record of a range, or one damage."""
    if len(stored) < length:
        yield _damage(file, offset, length, "truncated_record", f"{len(stored)} of {length} bytes are in the archive")
        return
    items = list(read_warc(MemorySource(stored), bounds=bounds))
    records = [item for item in items if isinstance(item, Record)]
    if len(items) != 1 or not records:
        reason = next((item.reason for item in items if isinstance(item, Damage)), "not_a_record")
        yield _damage(file, offset, length, reason, f"the range holds {len(items)} items, not one page")
    elif url is not None and records[0].target_uri != url:
        yield _damage(file, offset, length, "not_a_record", "the record is of another URL than the index says")
    else:
        yield replace(records[0], offset=offset, length=length, file=file)


def _damage(file: str, offset: int, length: int, reason: str, detail: str) -> Damage:
    return Damage(offset=offset, length=length, index=0, reason=reason, detail=detail, file=file)
