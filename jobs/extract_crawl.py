"""Read a crawl's WARC files: decode, extract the main text, identify the language, measure for the filters.

Writes `documents`, the annotations `filters` beside it, and a ledger row for each record that is no document.
A crawl file is a unit: a file that is added to the crawl costs its own work and nothing else.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from jobs.runtime.config import content_config, setting, stage_id
from jobs.runtime.context import Context
from jobs.runtime.run import run_stage
from jobs.runtime.stage import Output, Stage, Unit, UnitResult
from pipelines.datasets.books import Equation
from pipelines.datasets.manifest import Manifest
from pipelines.datasets.schemas import DOCUMENTS, LEDGER
from pipelines.datasets.store import Store, open_store
from pipelines.errors import ConfigError, InputError

ENGINE = "spark"
VERSION = 1
SAMPLE = str(Path(__file__).resolve().parents[1] / "tests" / "sample")
DOMAINS_PER_UNIT = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """Settings of extract_crawl."""

    __pydantic_config__ = {"extra": "forbid"}  # noqa: RUF012
    crawl: str = setting(
        "sample",
        "crawl files: path/*.warc.gz, s3://bucket/prefix/*.warc.gz; `sample`: the crawl that ships",
        content=False,
    )
    documents: str = setting("documents", "dataset to write", content=False)
    filters: str = setting("filters", "annotations to write: measures that the filter rules read", content=False)
    source: str = setting("crawl", "name of the source, kept with each document")
    source_type: str = setting("web", "web, code, book or qa, kept with each document")
    languages: tuple[str, ...] = setting((), "languages to keep, as lid.176 names them (zh, en); none named: all")
    max_failed_fraction: float = setting(0.5, "the job stops when more of the records cannot be read", content=False)


def run(config: Config, context: Context) -> list[Manifest]:
    """List the crawl, extract what is new, commit documents and filters."""
    from pipelines.crawl.inputs import crawl_root, list_inputs
    from pipelines.filters.measures import MEASURE_SCHEMA

    if not config.crawl:
        raise ConfigError("no crawl is given", mend="--crawl 'path/*.warc.gz', or --set crawl=...")
    pattern = SAMPLE if config.crawl == "sample" else config.crawl
    root, below = crawl_root(pattern)
    store = open_store(root)
    files = list_inputs(store, below, pattern=pattern)
    stage = Stage(
        job="extract_crawl",
        stage_id=stage_id("extract_crawl", VERSION, config, _artifacts()),
        outputs=(
            Output(dataset=config.documents, kind="documents", schema=DOCUMENTS),
            Output(
                dataset=config.filters, kind="annotations", schema=pa.schema([DOCUMENTS.field("id"), *MEASURE_SCHEMA])
            ),
        ),
        worker="jobs.extract_crawl:open_worker",
        worker_config={
            "crawl_root": store.location,
            "documents": config.documents,
            "filters": config.filters,
            "source": config.source,
            "source_type": config.source_type,
            "languages": list(config.languages),
        },
        equations={
            "documents": Equation(total="read", terms=("kept", "rejected", "failed")),
            "filters": Equation(total="rows", terms=("annotated", "failed")),
        },
        config=content_config(config),
        artifacts=tuple({"name": name, "sha256": digest} for name, digest in _artifacts().items()),
        max_failed_fraction=config.max_failed_fraction,
    )
    units = [
        Unit(id=row["unit"], input=row["file"], size_bytes=row["size_bytes"])
        for row in files.select(["unit", "file", "size_bytes"]).to_pylist()
    ]
    made = run_stage(context, stage, units)
    failed = made[config.documents].books["documents"]["failed"]
    if failed:
        told = ", ".join(f"{reason} {n}" for reason, n in failed.items())
        count = sum(failed.values())
        context.progress.say(f"{count} records could not be read ({told}); each has its row in the ledger")
    if made[config.documents].part_list["rows"] == 0:
        books = made[config.documents].books["documents"]
        raise InputError(
            f"{pattern} gave no document: {books['read']} records read,"
            f" rejected {books['rejected']}, failed {books['failed']}",
            mend=f"`gristmill datasets show {config.documents}` and the ledger tell more",
        )
    return [made[config.documents], made[config.filters]]


def _artifacts() -> dict[str, str]:
    from pipelines.language.identify import MODEL_NAME, MODEL_SHA256

    return {MODEL_NAME: MODEL_SHA256}


def open_worker(worker_config: dict[str, Any], _store: Store) -> Callable[[Unit], UnitResult]:
    """Documents, measures and ledger of one crawl file."""
    from pipelines.crawl.document import DocumentRules, outcome_of, record_key
    from pipelines.crawl.sources import StoreSource
    from pipelines.crawl.warc import Skipped, read_warc
    from pipelines.filters.measures import measure

    crawl = open_store(worker_config["crawl_root"])
    wanted = frozenset(worker_config["languages"]) or None
    rules = DocumentRules(source=worker_config["source"], source_type=worker_config["source_type"], languages=wanted)

    def extract(unit: Unit) -> UnitResult:
        documents: list[dict[str, Any]] = []
        ledger: list[dict[str, Any]] = []
        accounts: dict[str, list[bytes]] = {}
        skipped = 0
        for item in read_warc(StoreSource(crawl, unit.input, unit.size_bytes)):
            if isinstance(item, Skipped):
                skipped += 1
                continue
            outcome = outcome_of(item, unit.input, rules)
            key = record_key(unit.input, item.offset, item.index)
            accounts.setdefault("read", []).append(key)
            if outcome.document is not None:
                documents.append(outcome.document)
                accounts.setdefault("kept", []).append(key)
            else:
                row = outcome.ledger or {}
                ledger.append(row)
                accounts.setdefault(f"{row['verdict']}.{row['reason']}", []).append(key)
        table = pa.Table.from_pylist(documents, schema=DOCUMENTS)
        measures = measure(table["text"]).add_column(0, DOCUMENTS.field("id"), table["id"])
        result = UnitResult(
            parts={worker_config["documents"]: table, worker_config["filters"]: measures},
            ledger=pa.Table.from_pylist(ledger, schema=LEDGER),
            stats={"skipped_records": skipped, **document_stats(table), "bytes_in": unit.size_bytes},
        )
        for account, keys in accounts.items():
            result.counters.add(f"documents.{account}", keys)
        ids = [i.encode() for i in table["id"].to_pylist()]
        result.counters.add("filters.rows", ids)
        result.counters.add("filters.annotated", ids)
        return result

    return extract


def document_stats(table: pa.Table, prefix: str = "") -> dict[str, int]:
    """Characters, and documents by language, script, charset, source and domain (the 1,000 largest of a unit)."""
    stats = {f"{prefix}characters": sum(len(t or "") for t in table["text"].to_pylist())}
    for column in ("language", "script", "charset", "source", "source_type"):
        for value, n in Counter(table[column].to_pylist()).items():
            if value is not None:
                stats[f"{prefix}by_{column}.{value}"] = n
    for domain, n in Counter(table["domain"].to_pylist()).most_common(DOMAINS_PER_UNIT):
        stats[f"{prefix}by_domain.{domain or 'unknown'}"] = n
    return stats


if __name__ == "__main__":
    from jobs.runtime.entry import job_main

    job_main("extract_crawl")
