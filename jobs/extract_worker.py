"""What a worker of extract_crawl does with one unit: its records, or those of its ledger rows that are tried again."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeGuard

import pyarrow as pa
import pyarrow.compute as pc

from jobs.document_stats import DocumentStats
from jobs.extract_index import planned_root
from jobs.runtime.stage import Unit, UnitResult
from pipelines.crawl.batches import BATCH_BYTES, Batch, batches
from pipelines.crawl.document import DocumentRules, candidate_id, record_key
from pipelines.crawl.fetch import FetchRules
from pipelines.crawl.forms import form_of
from pipelines.crawl.inputs import open_source
from pipelines.crawl.items import Damage, Item, Record, WarcBounds
from pipelines.crawl.notes import RecordNotes
from pipelines.crawl.pages import PageRules
from pipelines.crawl.plan_reader import open_fetch_store, read_planned_page
from pipelines.crawl.records import InputSettings, read_items_at, read_records
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

if TYPE_CHECKING:
    from pipelines.takedown.requests import Listed

RETRY_ROWS = 1000  # ledger rows that are tried again at once


def open_worker(worker_config: dict[str, Any], store: Store) -> Callable[[Unit], UnitResult]:
    """Documents, measures and ledger of one unit of the crawl."""
    crawl = open_store(worker_config["crawl_root"])
    rules = rules_of(worker_config, store)

    def extract(unit: Unit) -> UnitResult:
        spec = unit.spec
        pages = [(page["file"], page["size_bytes"]) for page in spec["pages"]] if spec["pages"] else None
        source = open_source(crawl, spec["file"], spec["size_bytes"], pages=pages)
        settings = input_settings(worker_config)
        items = read_records(source, form=spec["form"], start=spec["start"], end=spec["end"], settings=settings)
        made, notes = Made(worker_config), RecordNotes(spec["form"])
        for batch in batches(notes.watch(items), spec["file"], rules):
            made.add(batch)
            made.count(batch.accounts)
        fetched = {f"fetch_{name}": n for name, n in settings.counters.items() if n}
        noted = {f"notes.{name}": n for name, n in notes.counts.items()}
        return made.result(bytes_in=unit.size_bytes, **fetched, **noted)

    return extract


def open_retry_worker(worker_config: dict[str, Any], store: Store) -> Callable[[Unit], UnitResult]:
    """What a unit lost to one reason, tried again.

    The part holds the records that are documents now; the ledger, of role `retried`, a row for each record whose
    verdict changed.  Counters are differences: what leaves an account is taken out of it, number and key sum.
    """
    crawl = open_store(worker_config["crawl_root"])
    rules = rules_of(worker_config, store)
    settings = input_settings(worker_config)
    reason = worker_config["reason"]
    lost = open_dataset(store, worker_config["documents"], worker_config["version"])

    def try_again(unit: Unit) -> UnitResult:
        made = Made(worker_config, ledger_role="retried")
        settled = 0
        for found in _found(crawl, lost.ledger(unit.id), reason, settings):
            settled += _try(found, reason, rules, made)
        return made.result(retried=settled)

    return try_again


def _try(found: list[tuple[dict[str, Any], Record | Damage]], reason: str, rules: DocumentRules, made: Made) -> int:
    """Add what became of the records otherwise than before; how many that were."""
    before = {_place(row): row for row, _ in found}
    fates: dict[tuple[Any, ...], tuple[str, dict[str, Any]]] = {}
    for batch in batches([item for _, item in found], "", rules):
        rows = batch.ledger.to_pylist()
        told = [row for row in rows if row["verdict"] == "changed"]
        for row in rows:
            old = before[_place(row)]
            if row["verdict"] != "changed" and (row["verdict"], row["reason"]) != (old["verdict"], reason):
                fates[_place(row)] = f"{row['verdict']}.{row['reason']}", old
                told.append(row)
        for place in batch.documents.select(_PLACE).to_pylist():
            old = before[_place(place)]
            fates[_place(place)] = "kept", old
            was = f"was {old['verdict']}: {reason}"
            told.append(
                {**old, "verdict": "kept", "reason": "retried", "value": None, "threshold": None, "detail": was}
            )
        made.add(batch, told=pa.Table.from_pylist(told, schema=LEDGER))
    count = 0
    for row, item in found:
        if (fate := fates.get(_place(row))) is not None:
            (hashed,) = key_hashes([record_key(row["file"], item.offset, item.index)])
            made.count({fate[0]: (1, hashed)})
            made.count({f"{row['verdict']}.{reason}": (-1, -hashed)})
            count += 1
    return count


_PLACE = ["file", "offset", "length", "id"]


def _place(row: dict[str, Any]) -> tuple[Any, ...]:
    return tuple(row[name] for name in _PLACE)


def rules_of(worker_config: dict[str, Any], store: Store | None = None) -> DocumentRules:
    """The rules that the settings mean; takedowns are read from the store of the datasets."""
    languages = frozenset(worker_config["languages"]) or None
    looks = SniffRules(
        languages=languages if worker_config["sniff"] or worker_config["sniff_language"] else None,
        ask_model=worker_config["sniff_language"],
        min_letters=worker_config["min_letters"],
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
        takedowns=open_takedowns(store, worker_config["takedowns"]),
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


def open_takedowns(store: Store | None, keys: list[str]) -> Listed | None:
    """What was asked to be taken down; None where nothing was."""
    if store is None or not keys:
        return None
    from pipelines.takedown.listing import read_listed

    return read_listed(store, keys)


@functools.lru_cache(maxsize=2)
def open_blocklists(folder: str | None) -> Blocklists | None:
    """The lists of a folder, once a process."""
    return load_blocklists(folder) if folder else None


def input_settings(worker_config: dict[str, Any]) -> InputSettings:
    """How rows are read, and pages fetched."""
    return InputSettings(
        columns=RowColumns(**{name: tuple(c) for name, c in worker_config["columns"].items()}),
        fetch=FetchRules(**worker_config["fetch_rules"]),
    )


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
        """Rows of a batch; `told` instead of its own ledger rows, and then without what decoding counted, which the
        first try counted already.
        """
        self._documents.write(batch.documents)
        self._filters.write(batch.measures)
        self._ledger.write(batch.ledger if told is None else told)
        self._stats.add(batch.documents)
        for name, n in batch.stats.items() if told is None else ():
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


def _found(
    crawl: Store, ledger: Iterable[pa.Table], reason: str, settings: InputSettings
) -> Iterator[list[tuple[dict[str, Any], Record | Damage]]]:
    """Rows with the reason and their records, as many at once as a batch holds; rows without a record are left out."""
    group: list[tuple[dict[str, Any], Record | Damage]] = []
    held = 0
    for table in ledger:
        mine = table.filter(pc.and_(pc.equal(table["reason"], reason), pc.not_equal(table["verdict"], "changed")))
        for row in (row for batch in mine.to_batches(max_chunksize=RETRY_ROWS) for row in batch.to_pylist()):
            item = _find(crawl, row, settings)
            if item is None:
                continue
            group.append((row, replace(item, file=row["file"])))
            held += len(item.body) if isinstance(item, Record) else 0
            if held >= BATCH_BYTES or len(group) >= RETRY_ROWS:
                yield group
                group, held = [], 0
    if group:
        yield group


def _find(crawl: Store, row: dict[str, Any], settings: InputSettings) -> Record | Damage | None:
    """The record or damage that the row is about, out of the crawl as it is now; None where it is not there."""
    head = crawl.head(row["file"])
    if head is None:
        return _fetched(crawl, row, settings)
    form = form_of(row["file"]) or "warc"
    pages = [(row["file"], head.size_bytes)] if form == "html" else None
    source = open_source(crawl, row["file"], head.size_bytes, pages=pages)
    found = read_items_at(source, form=form, offset=row["offset"], settings=settings)
    return next((item for item in found if _is_meant(item, row)), None)


def _is_meant(item: Item, row: dict[str, Any]) -> TypeGuard[Record | Damage]:
    """Whether the ledger row is about the item."""
    if isinstance(item, Damage):
        return row["id"] is None and item.length == row["length"]
    return isinstance(item, Record) and candidate_id(item) == row["id"]


def _fetched(crawl: Store, row: dict[str, Any], settings: InputSettings) -> Record | Damage | None:
    """The page of a fetch plan, asked for once more; None where the crawl holds no plans."""
    root = planned_root(crawl)
    if root is None:
        return None
    store = open_fetch_store(root, settings.fetch)
    url = row["url"].encode() if row["url"] else None
    item = read_planned_page(store, row["file"], row["offset"], row["length"], bounds=WarcBounds(), url=url)
    return item if isinstance(item, Damage) or _is_meant(item, row) else None
