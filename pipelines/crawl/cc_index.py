"""Common Crawl by its columnar index: which pages to fetch, decided before a byte of them is.

`plan_pages` reads the index (a table with a row a capture), keeps the pages that are wanted and new, and writes *fetch
plans*: Parquet files `NNNNN.fetch.parquet`, sorted by archive and offset, a row group a unit.  The plans are then the
crawl: `list_inputs` makes units of them, `read_records` fetches their pages by ranged GETs (plan_reader.py).
"""

from __future__ import annotations

import json
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipelines.crawl.rows import NotParquetError, open_parquet
from pipelines.crawl.seen import SeenSet, hashes_of
from pipelines.crawl.sources import RangeStore, StoreSource
from pipelines.errors import InputError

PLAN_SCHEMA = pa.schema(
    [
        ("warc_filename", pa.string()),
        ("warc_record_offset", pa.int64()),
        ("warc_record_length", pa.int64()),
        ("url", pa.string()),
        ("content_digest", pa.string()),
        ("content_languages", pa.string()),
    ]
)
PLAN_SUFFIX = ".fetch.parquet"
ROOT_KEY = b"gristmill.fetch_root"
_ABOUT = ("fetch_status", "content_mime_detected")
_BATCH_ROWS = 64 << 10
_MOST_PLANS = 256  # as many files are open at once
_KEY = r"^[!-~]+$"
_UNSAFE_KEY = r"(^|/)\.{0,2}(/|$)"


@dataclass(frozen=True, slots=True, kw_only=True)
class PageChoice:
    """Which captures are wanted.

    `languages` are codes of the index (ISO 639-3: zho); a page counts where any of its languages is one of them, or
    with `first_language_only` its first.  None takes every language.
    """

    languages: tuple[str, ...] | None = ("zho",)
    first_language_only: bool = False
    mimes: tuple[str, ...] = ("text/html", "application/xhtml+xml")
    longest_record_bytes: int = 32 << 20
    unit_bytes: int = 64 << 20
    unit_pages: int = 20_000
    gap_bytes: int = 64 << 10
    plan_pages: int = 2_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanReport:
    """What the plan saves: `dropped` by reason before fetching, `counters` of pages, GETs and bytes."""

    files: tuple[str, ...]
    dropped: dict[str, int]
    counters: dict[str, int] = field(default_factory=dict)

    def cpu_saved_seconds(self, seconds_per_page: float) -> float:
        """CPU that pages of the wanted kind would have cost that earlier crawls have."""
        return seconds_per_page * (self.dropped.get("seen_url", 0) + self.dropped.get("seen_payload", 0))

    def to_json(self) -> str:
        """One line."""
        return json.dumps({"files": list(self.files), "dropped": self.dropped, **self.counters})


class _PlanStore(Protocol):
    def put(self, key: str, body: bytes, *, create_only: bool = False) -> bool: ...


def plan_pages(
    index: RangeStore,
    files: Sequence[tuple[str, int]],
    out: _PlanStore,
    *,
    fetch_root: str,
    choice: PageChoice | None = None,
    seen_urls: SeenSet | None = None,
    seen_payloads: SeenSet | None = None,
) -> PlanReport:
    """Writes the plans of an index's files, (key, size in bytes) each, into `out`.

    `fetch_root` is where `warc_filename` lies: https://data.commoncrawl.org/ or s3://commoncrawl.  Memory holds one
    plan's rows at a time; the chosen rows wait in a temporary folder, spread by archive.
    """
    choice = choice or PageChoice()
    dropped: Counter[str] = Counter()
    counters: Counter[str] = Counter()
    with tempfile.TemporaryDirectory(prefix="fetch-plan-") as folder:
        opened = [(key, StoreSource(index, key, size)) for key, size in files]
        rows = sum(_open_index(key, source)[0].metadata.num_rows for key, source in opened)
        spill = _Spill(Path(folder), min(max(1, -(-rows // choice.plan_pages)), _MOST_PLANS))
        for key, source in opened:
            for batch in _batches(key, source):
                counters["indexed"] += batch.num_rows
                spill.add(_chosen(batch, choice, seen_urls, seen_payloads, dropped, counters))
        names = []
        for number, table in enumerate(spill.tables()):
            names.append(f"{number:05d}{PLAN_SUFFIX}")
            out.put(names[-1], _encoded(table, choice, fetch_root, counters))
    return PlanReport(files=tuple(names), dropped=dict(dropped), counters=dict(counters))


def plan_hashes(source: StoreSource, column: str) -> Iterator[np.ndarray]:
    """Entries of `url` or `content_digest` of a plan, for `write_seen` once its pages are read."""
    file, _ = open_parquet(source, frozenset())
    for batch in file.iter_batches(_BATCH_ROWS, columns=[column], use_threads=False):
        yield hashes_of(batch.column(0).cast(pa.binary()).to_pylist())


def _open_index(key: str, source: StoreSource) -> tuple[Any, list[str]]:
    wanted = frozenset(PLAN_SCHEMA.names) | frozenset(_ABOUT)
    try:
        file, names = open_parquet(source, wanted)
    except (NotParquetError, OSError, ValueError) as error:
        raise InputError(f"{key} is no Parquet: {error}", key=key, mend="Fetch the index file again.") from None
    missing = wanted - frozenset(names)
    if missing:
        raise InputError(
            f"{key} has no column {', '.join(sorted(missing))}.", key=key, mend="Give files of the columnar index."
        )
    return file, names


def _batches(key: str, source: StoreSource) -> Iterator[pa.RecordBatch]:
    file, names = _open_index(key, source)
    yield from file.iter_batches(_BATCH_ROWS, columns=names, use_threads=False)


def _chosen(
    batch: pa.RecordBatch,
    choice: PageChoice,
    seen_urls: SeenSet | None,
    seen_payloads: SeenSet | None,
    dropped: Counter[str],
    counters: Counter[str],
) -> pa.Table:
    """Rows of PLAN_SCHEMA that are wanted and new; each other row is counted under the first reason against it."""
    table = pa.Table.from_batches([batch])
    table = _without(table, pc.equal(table["fetch_status"].cast(pa.int64()), 200), "status", dropped)
    table = _without(table, pc.is_in(table["content_mime_detected"], pa.array(choice.mimes)), "mime", dropped)
    if choice.languages is not None:
        codes = "|".join(choice.languages)
        pattern = f"^(?:{codes})(?:,|$)" if choice.first_language_only else f"(?:^|,)(?:{codes})(?:,|$)"
        table = _without(table, pc.match_substring_regex(table["content_languages"], pattern), "language", dropped)
    table = table.select(PLAN_SCHEMA.names).cast(PLAN_SCHEMA)
    length, offset, name = (table[n] for n in ("warc_record_length", "warc_record_offset", "warc_filename"))
    sound = pc.and_(pc.greater(length, 0), pc.less_equal(length, choice.longest_record_bytes))
    safe = pc.and_(pc.match_substring_regex(name, _KEY), pc.invert(pc.match_substring_regex(name, _UNSAFE_KEY)))
    sound = pc.and_(sound, pc.and_(pc.greater_equal(offset, 0), safe))
    table = _without(table, sound, "invalid", dropped)
    for known, column, reason in ((seen_urls, "url", "seen_url"), (seen_payloads, "content_digest", "seen_payload")):
        if known is not None and table.num_rows:
            new = ~known.holds(hashes_of(table[column].cast(pa.binary()).to_pylist()))
            before = pc.sum(table["warc_record_length"]).as_py() or 0
            table = _without(table, pa.array(new), reason, dropped)
            counters["bytes_saved"] += before - (pc.sum(table["warc_record_length"]).as_py() or 0)
    counters["pages"] += table.num_rows
    counters["page_bytes"] += pc.sum(table["warc_record_length"]).as_py() or 0
    return table


def _without(table: pa.Table, keep: Any, reason: str, dropped: Counter[str]) -> pa.Table:
    kept = table.filter(keep)  # null counts as no
    dropped[reason] += table.num_rows - kept.num_rows
    return kept


class _Spill:
    """Chosen rows spread by archive over as many temporary files as there will be plans."""

    def __init__(self, folder: Path, count: int) -> None:
        self._paths = [folder / f"{n:05d}.arrow" for n in range(count)]
        self._writers: dict[int, pa.RecordBatchFileWriter] = {}

    def add(self, table: pa.Table) -> None:
        if table.num_rows == 0:
            return
        names = table["warc_filename"].combine_chunks().dictionary_encode()
        homes = hashes_of(names.dictionary.cast(pa.binary()).to_pylist()) % np.uint64(len(self._paths))
        home = homes[names.indices.to_numpy()]
        for n in np.unique(home):
            if int(n) not in self._writers:
                self._writers[int(n)] = pa.ipc.new_file(str(self._paths[int(n)]), PLAN_SCHEMA)
            self._writers[int(n)].write_table(table.filter(pa.array(home == n)))

    def tables(self) -> Iterator[pa.Table]:
        """Each plan's rows, by archive and offset; the same rows in the same order whatever the batches were."""
        for writer in self._writers.values():
            writer.close()
        for n in sorted(self._writers):
            with pa.ipc.open_file(pa.memory_map(str(self._paths[n]))) as reader:
                table = reader.read_all()
            keys = [(name, "ascending") for name in ("warc_filename", "warc_record_offset", "url")]
            yield table.take(pc.sort_indices(table, sort_keys=keys))


def _encoded(table: pa.Table, choice: PageChoice, fetch_root: str, counters: Counter[str]) -> bytes:
    """The plan as Parquet; a row group ends where its pages make a unit."""
    meta = {ROOT_KEY: fetch_root.encode(), b"gristmill.gap_bytes": str(choice.gap_bytes).encode()}
    schema = PLAN_SCHEMA.with_metadata(meta)
    table = table.replace_schema_metadata(meta)
    sink = pa.BufferOutputStream()
    lengths = np.cumsum(table["warc_record_length"].to_numpy())
    with pq.ParquetWriter(sink, schema, compression="zstd", write_page_checksum=True) as writer:
        start, base = 0, 0
        while start < table.num_rows:
            stop = int(np.searchsorted(lengths, base + choice.unit_bytes, side="right"))
            stop = min(max(stop, start + 1), start + choice.unit_pages, table.num_rows)
            piece = table.slice(start, stop - start)
            writer.write_table(piece, row_group_size=stop - start)
            counters["units"] += 1
            for _, first, end, _ in ranges_of(piece, choice.gap_bytes):
                counters["gets"] += 1
                counters["get_bytes"] += end - first
            base, start = int(lengths[stop - 1]), stop
    return sink.getvalue().to_pybytes()


_LONGEST_GET_BYTES = 8 << 20


def ranges_of(rows: pa.Table, gap_bytes: int) -> Iterator[tuple[str, int, int, list[int]]]:
    """(archive, start, end, rows) of each GET: neighbours in one archive whose gap is at most `gap_bytes` share it."""
    names, offsets, lengths = (rows[n].to_pylist() for n in PLAN_SCHEMA.names[:3])
    members: list[int] = []
    end = 0
    for n in range(rows.num_rows):
        stop = offsets[n] + lengths[n]
        if members:
            first = members[0]
            near = names[n] == names[first] and offsets[n] - end <= gap_bytes
            if not near or max(stop, end) - offsets[first] > _LONGEST_GET_BYTES:
                yield names[first], offsets[first], end, members
                members, end = [], 0
        members.append(n)
        end = max(end, stop)
    if members:
        yield names[members[0]], offsets[members[0]], end, members
