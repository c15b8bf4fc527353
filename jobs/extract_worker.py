"""What a worker of extract_crawl does with one unit: its records, or those of its ledger rows that are tried again."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from jobs.document_stats import DocumentStats
from jobs.runtime.stage import Unit, UnitResult
from pipelines.crawl.batches import Batch, batches
from pipelines.crawl.document import DocumentRules, candidate_id, record_key
from pipelines.crawl.forms import form_of
from pipelines.crawl.inputs import open_source
from pipelines.crawl.items import Damage, Item, Record
from pipelines.crawl.pages import PageRules
from pipelines.crawl.records import InputSettings, read_record_at, read_records
from pipelines.crawl.rows import RowColumns
from pipelines.crawl.sniff import SniffRules
from pipelines.datasets import open_dataset
from pipelines.datasets.content import key_hashes, key_sum
from pipelines.datasets.parts import PartWriter
from pipelines.datasets.schemas import DOCUMENTS, LEDGER
from pipelines.datasets.store import Store, open_store
from pipelines.filters.blocklist import Blocklists, load_blocklists
from pipelines.filters.clean import CleanRules
from pipelines.filters.measures import MEASURE_SCHEMA

RETRY_ROWS = 1000  # ledger rows that are tried again at once
_ITEMS_AT_OFFSET = 10_000


def open_worker(worker_config: dict[str, Any], _store: Store) -> Callable[[Unit], UnitResult]:
    """Documents, measures and ledger of one unit of the crawl."""
    crawl = open_store(worker_config["crawl_root"])
    rules = rules_of(worker_config)

    def extract(unit: Unit) -> UnitResult:
        spec = unit.spec
        pages = [(page["file"], page["size_bytes"]) for page in spec["pages"]] if spec["pages"] else None
        source = open_source(crawl, spec["file"], spec["size_bytes"], pages=pages)
        items = read_records(
            source, form=spec["form"], start=spec["start"], end=spec["end"], settings=input_settings(worker_config)
        )
        made = Made(worker_config)
        for batch in batches(items, spec["file"], rules):
            made.add(batch)
            made.count(batch.accounts)
        return made.result(bytes_in=unit.size_bytes)

    return extract


def open_retry_worker(worker_config: dict[str, Any], store: Store) -> Callable[[Unit], UnitResult]:
    """What a unit lost to one reason, tried again.

    The part holds the records that are documents now; the ledger, of role `retried`, a row for each record whose
    verdict changed.  Counters are differences: what leaves an account is taken out of it, number and key sum.
    """
    crawl = open_store(worker_config["crawl_root"])
    rules = rules_of(worker_config)
    settings = input_settings(worker_config)
    reason = worker_config["reason"]
    lost = open_dataset(store, worker_config["documents"], worker_config["version"])

    def try_again(unit: Unit) -> UnitResult:
        made = Made(worker_config, ledger_role="retried")
        settled = 0
        for rows in _rows_of(lost.ledger(unit.id), reason):
            found = [(row, item) for row in rows if (item := _find(crawl, row, settings)) is not None]
            for row, item in found:
                # One by one: which record became what must be known, and few are tried again.
                (batch,) = batches([item], row["file"], rules)
                account = next(name for name in batch.accounts if name != "read")
                if account == f"{row['verdict']}.{reason}":
                    continue
                settled += 1
                made.add(batch, told=_settled(row, batch))
                key = record_key(item.file or row["file"], item.offset, item.index)
                (hashed,) = key_hashes([key])
                made.count({account: (1, hashed), f"{row['verdict']}.{reason}": (-1, -hashed)})
        return made.result(retried=settled)

    return try_again


def rules_of(worker_config: dict[str, Any]) -> DocumentRules:
    """The rules that the settings mean."""
    languages = frozenset(worker_config["languages"]) or None
    looks = SniffRules(
        languages=languages if worker_config["sniff"] else None, min_letters=worker_config["min_letters"]
    )
    pii = CleanRules().pii if worker_config["pii"] else ()
    return DocumentRules(
        source=worker_config["source"],
        source_type=worker_config["source_type"],
        languages=languages,
        script=worker_config["script"],
        opt_out=worker_config["opt_out"],
        refused_signals=frozenset(worker_config["refused_signals"]),
        clean=CleanRules(lines=worker_config["lines"], pii=pii),
        blocklists=open_blocklists(worker_config["blocklists"]),
        page=PageRules(
            engine=worker_config["engine"],
            markdown=worker_config["markdown"],
            sniff=looks,
            model=(worker_config["language_model"], worker_config["language_model_sha256"]),
            isolate_bytes=worker_config["isolate_bytes"],
            seconds=worker_config["page_seconds"],
            memory_bytes=worker_config["page_memory_mb"] << 20,
        ),
    )


@functools.lru_cache(maxsize=2)
def open_blocklists(folder: str | None) -> Blocklists | None:
    """The lists of a folder, once a process."""
    return load_blocklists(folder) if folder else None


def input_settings(worker_config: dict[str, Any]) -> InputSettings:
    """How rows are read."""
    return InputSettings(columns=RowColumns(**{name: tuple(c) for name, c in worker_config["columns"].items()}))


class Made:
    """What a unit makes, written batch by batch."""

    def __init__(self, worker_config: dict[str, Any], *, ledger_role: str = "ledger") -> None:
        self._documents = PartWriter(DOCUMENTS)
        self._filters = PartWriter(pa.schema([DOCUMENTS.field("id"), *MEASURE_SCHEMA]))
        self._ledger = PartWriter(LEDGER)
        self._stats = DocumentStats()
        self._result = UnitResult(
            parts={worker_config["documents"]: self._documents, worker_config["filters"]: self._filters},
            ledger=self._ledger,
            ledger_role=ledger_role,
        )

    def add(self, batch: Batch, *, told: pa.Table | None = None) -> None:
        """Rows of a batch; `told` instead of its own ledger rows."""
        self._documents.write(batch.documents)
        self._filters.write(batch.measures)
        self._ledger.write(batch.ledger if told is None else told)
        self._stats.add(batch.documents)
        for name, n in batch.stats.items():
            self._result.counters.add_count(f"stats.{name}", n)
        for name, n in batch.characters.items():
            self._result.counters.add_count(f"characters.{name}", n)
        ids = key_sum(i.encode() for i in batch.documents["id"].to_pylist())
        for account in ("rows", "annotated"):
            self._result.counters.add_sum(f"filters.{account}", batch.documents.num_rows, ids)

    def count(self, accounts: dict[str, tuple[int, int]]) -> None:
        """Numbers and key sums by account."""
        for account, (n, total) in accounts.items():
            self._result.counters.add_sum(f"documents.{account}", n, total)

    def writers(self) -> tuple[PartWriter, ...]:
        """Of documents, filters and ledger."""
        return self._documents, self._filters, self._ledger

    def result(self, **stats: int) -> UnitResult:
        """All of it."""
        self._result.stats = {**self._stats.values(), **stats}
        return self._result


def _rows_of(ledger: Iterable[pa.Table], reason: str) -> Iterator[list[dict[str, Any]]]:
    for table in ledger:
        mine = table.filter(pc.and_(pc.equal(table["reason"], reason), pc.not_equal(table["verdict"], "changed")))
        for batch in mine.to_batches(max_chunksize=RETRY_ROWS):
            yield batch.to_pylist()


def _find(crawl: Store, row: dict[str, Any], settings: InputSettings) -> Item | None:
    """The record or damage that the row is about, out of the crawl as it is now; None where it is not there."""
    head = crawl.head(row["file"])
    if head is None:
        return None
    form = form_of(row["file"]) or "warc"
    pages = [(row["file"], head.size_bytes)] if form == "html" else None
    source = open_source(crawl, row["file"], head.size_bytes, pages=pages)
    for index in range(_ITEMS_AT_OFFSET):
        item = read_record_at(source, form=form, offset=row["offset"], index=index, settings=settings)
        if item is None:
            return None
        if isinstance(item, Damage) and row["id"] is None and item.length == row["length"]:
            return item
        if isinstance(item, Record) and candidate_id(item) == row["id"]:
            return item
    return None


def _settled(row: dict[str, Any], batch: Batch) -> pa.Table:
    """The record's row of role `retried`: its new verdict, or that it is a document now, and what it was before."""
    before = f"was {row['verdict']}: {row['reason']}"
    told = batch.ledger.to_pylist() or []
    if batch.documents.num_rows:
        told.append({**row, "verdict": "kept", "reason": "retried", "value": None, "threshold": None, "detail": before})
    return pa.Table.from_pylist(told, schema=LEDGER)
