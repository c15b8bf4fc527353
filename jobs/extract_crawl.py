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
import pyarrow.compute as pc

from jobs.runtime.config import content_config, setting, stage_id
from jobs.runtime.context import Context
from jobs.runtime.run import run_stage
from jobs.runtime.stage import Output, Stage, Unit, UnitResult, unit_table
from pipelines.datasets.books import Equation
from pipelines.datasets.content import key_sum
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
    unit_bytes: int = setting(
        64 << 20, "larger crawl files are cut into units of about so many bytes", content=False
    )
    source: str = setting("crawl", "name of the source, kept with each document")
    source_type: str = setting("web", "web, code, book or qa, kept with each document")
    languages: tuple[str, ...] = setting((), "languages to keep, as lid.176 names them (zh, en); none named: all")
    max_failed_fraction: float = setting(0.5, "the job stops when more of the records cannot be read", content=False)


def run(config: Config, context: Context) -> list[Manifest]:
    """List the crawl, extract what is new, commit documents and filters."""
    from pipelines.crawl.inputs import crawl_root, list_inputs, uncut_files
    from pipelines.filters.measures import MEASURE_SCHEMA

    if not config.crawl:
        raise ConfigError("no crawl is given", mend="--crawl 'path/*.warc.gz', or --set crawl=...")
    pattern = SAMPLE if config.crawl == "sample" else config.crawl
    root, below = crawl_root(pattern)
    store = open_store(root)
    listed = list_inputs(store, below, pattern=pattern, unit_bytes=config.unit_bytes)
    for name in uncut_files(listed, config.unit_bytes)[:3]:
        context.progress.say(f"{name} is larger than a unit and cannot be cut: one process will read all of it")
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
    units = crawl_units(listed)
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


def crawl_units(listed: pa.Table) -> pa.Table:
    """Units of the runtime for rows of INPUT_SCHEMA."""
    from pipelines.crawl.inputs import unit_name

    rows = listed.to_pylist()
    return unit_table(
        Unit(
            id=row["unit"],
            input=unit_name(row["file"], row["size_bytes"], row["start"], row["end"]),
            size_bytes=row["end"] - row["start"],
            spec={
                "file": row["file"],
                "size_bytes": row["size_bytes"],
                "start": row["start"],
                "end": row["end"],
                "form": row["form"],
                "pages": row["pages"],
            },
        )
        for row in rows
    )


def _artifacts() -> dict[str, str]:
    from pipelines.language.identify import MODEL_NAME, MODEL_SHA256

    return {MODEL_NAME: MODEL_SHA256}


def open_worker(worker_config: dict[str, Any], _store: Store) -> Callable[[Unit], UnitResult]:
    """Documents, measures and ledger of one unit of the crawl."""
    from pipelines.crawl.batches import batches
    from pipelines.crawl.document import DocumentRules
    from pipelines.crawl.inputs import open_source
    from pipelines.crawl.records import read_records
    from pipelines.datasets.parts import PartWriter
    from pipelines.filters.measures import MEASURE_SCHEMA

    crawl = open_store(worker_config["crawl_root"])
    wanted = frozenset(worker_config["languages"]) or None
    rules = DocumentRules(source=worker_config["source"], source_type=worker_config["source_type"], languages=wanted)
    filters_schema = pa.schema([DOCUMENTS.field("id"), *MEASURE_SCHEMA])

    def extract(unit: Unit) -> UnitResult:
        documents, filters, ledger = PartWriter(DOCUMENTS), PartWriter(filters_schema), PartWriter(LEDGER)
        stats = DocumentStats()
        result = UnitResult(
            parts={worker_config["documents"]: documents, worker_config["filters"]: filters}, ledger=ledger
        )
        spec = unit.spec
        pages = [(page["file"], page["size_bytes"]) for page in spec["pages"]] if spec["pages"] else None
        source = open_source(crawl, spec["file"], spec["size_bytes"], pages=pages)
        items = read_records(source, form=spec["form"], start=spec["start"], end=spec["end"])
        for batch in batches(items, spec["file"], rules):
            documents.write(batch.documents)
            filters.write(batch.measures)
            ledger.write(batch.ledger)
            stats.add(batch.documents)
            for account, (n, total) in batch.accounts.items():
                result.counters.add_sum(f"documents.{account}", n, total)
            for name, n in batch.stats.items():
                result.counters.add_count(f"stats.{name}", n)
            ids = key_sum(i.encode() for i in batch.documents["id"].to_pylist())
            for account in ("rows", "annotated"):
                result.counters.add_sum(f"filters.{account}", batch.documents.num_rows, ids)
        result.stats = {**stats.values(), "bytes_in": unit.size_bytes}
        return result

    return extract


class DocumentStats:
    """Characters, and documents by language, script, charset, source and domain (the 1,000 largest of a unit)."""

    _COLUMNS = ("language", "script", "charset", "source", "source_type")

    def __init__(self) -> None:
        self._characters = 0
        self._counts: dict[str, Counter[str | None]] = {name: Counter() for name in (*self._COLUMNS, "domain")}

    def add(self, table: pa.Table) -> None:
        """Count rows of documents."""
        self._characters += pc.sum(pc.utf8_length(table["text"])).as_py() or 0
        for name, counts in self._counts.items():
            for pair in pc.value_counts(table[name]).to_pylist():
                counts[pair["values"]] += pair["counts"]

    def values(self, prefix: str = "") -> dict[str, int]:
        """By the names that statistics have in a manifest."""
        found = {f"{prefix}characters": self._characters}
        for column in self._COLUMNS:
            found |= {f"{prefix}by_{column}.{v}": n for v, n in self._counts[column].items() if v is not None}
        # Equal counts are cut by name, not by the order of the rows.
        domains = sorted(self._counts["domain"].items(), key=lambda pair: (-pair[1], pair[0] or ""))
        return found | {f"{prefix}by_domain.{name or 'unknown'}": n for name, n in domains[:DOMAINS_PER_UNIT]}


def document_stats(table: pa.Table, prefix: str = "") -> dict[str, int]:
    """`DocumentStats` of one table."""
    stats = DocumentStats()
    stats.add(table)
    return stats.values(prefix)


if __name__ == "__main__":
    from jobs.runtime.entry import job_main

    job_main("extract_crawl")
