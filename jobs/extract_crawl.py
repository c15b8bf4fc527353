"""Read a crawl's WARC files: decode, extract the main text, identify the language, measure for the filters.

Writes `documents`, the annotations `filters` beside it, and a ledger row for each record that is no document.
A crawl file is a unit: a file that is added to the crawl costs its own work and nothing else.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa

from jobs.extract_index import Fetch, is_index, lines_of, plans_of, remember, rules_for
from jobs.runtime.config import content_config, setting, stage_id
from jobs.runtime.context import Context
from jobs.runtime.cost import Plan, Request
from jobs.runtime.run import run_stage
from jobs.runtime.stage import Output, Stage, Unit, unit_table
from pipelines.crawl.cc_index import PLAN_SUFFIX
from pipelines.crawl.rows import RowColumns
from pipelines.datasets import Dataset
from pipelines.datasets.books import Equation
from pipelines.datasets.manifest import Manifest
from pipelines.datasets.schemas import DOCUMENTS
from pipelines.datasets.store import Store, open_store
from pipelines.errors import ConfigError, InputError

ENGINE = "spark"
VERSION = 3
SAMPLE = str(Path(__file__).resolve().parents[1] / "tests" / "sample")


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """Settings of extract_crawl."""

    __pydantic_config__ = {"extra": "forbid"}  # noqa: RUF012
    crawl: str = setting(
        "sample",
        "crawl files: path/*.warc.gz, s3://bucket/prefix/*.warc.gz; cc-index:PATTERN: the pages that an index names;"
        " `sample`: the crawl that ships",
        content=False,
    )
    documents: str = setting("documents", "dataset to write", content=False)
    filters: str = setting("filters", "annotations to write: measures that the filter rules read", content=False)
    unit_bytes: int = setting(64 << 20, "larger crawl files are cut into units of about so many bytes", content=False)
    source: str = setting("crawl", "name of the source, kept with each document")
    source_type: str = setting("web", "web, code, book or qa, kept with each document")
    languages: tuple[str, ...] = setting(
        (), "languages to keep, as lid.176 names them (zh, en; zh means yue too); none named: all"
    )
    sniff: bool = setting(
        True, "drop pages before extraction that hold next to no letter of the wanted languages' scripts"
    )
    sniff_language: bool = setting(
        False, "and those that the language model is sure of; pays where extraction is dear, as with trafilatura"
    )
    min_letters: int = setting(0, "drop pages before extraction that have fewer letters outside their tags")
    engine: Literal["gristmill", "trafilatura"] = setting("gristmill", "what finds the main text")
    markdown: bool = setting(False, "mark headings, lists, tables and code as Markdown does")
    script: str = setting(
        "keep", "Chinese script: keep, convert:hans, convert:hant (hans-cn, hant-tw, hant-hk), or route"
    )
    opt_out: Literal["keep", "mark", "drop"] = setting(
        "mark", "signals against use by machines: keep (not recorded), mark (a column), drop (see refused_signals)"
    )
    refused_signals: tuple[str, ...] = setting(("noai", "tdm-reservation"), "signals that opt_out=drop honours")
    blocklists: str | None = setting(
        None, "folder of blocklists in UT1's layout, on every worker; their digest is part of the stage", content=False
    )
    lines: bool | None = setting(None, "take boilerplate lines out; null: where the source type is web")
    pii: bool = setting(True, "mask personal data")
    language_model: str | None = setting(None, "another fastText language model: its path on every worker")
    language_model_sha256: str | None = setting(None, "and the sha256 of that file")
    columns: dict[str, tuple[str, ...]] = setting(  # noqa: RUF009
        factory=dict, doc="JSON lines and Parquet: names of columns by what they hold, such as {text: [body]}"
    )
    isolate_bytes: int | Literal["engine"] | None = setting(
        "engine",
        "pages of at least so many bytes are extracted in a process that can be ended; 0: all, null: none;"
        " engine: 262144 with gristmill, 32768 with trafilatura",
        content=False,
    )
    page_seconds: float = setting(
        5.0, "CPU seconds of a page in that process; one that needs more gets ten times as many, once", content=False
    )
    page_memory_mb: int = setting(1024, "memory of a page in that process", content=False)
    fetch: Fetch = setting(factory=Fetch, doc="pages of an index: which, and how politely")  # noqa: RUF009
    max_failed_fraction: float = setting(0.5, "the job stops when more of the records cannot be read", content=False)


def run(config: Config, context: Context) -> list[Manifest]:
    """List the crawl, extract what is new, commit documents and filters."""
    from pipelines.crawl.inputs import uncut_files

    stats: dict[str, Any] = {}
    plans = None
    if is_index(config.crawl):
        plans, report = plans_of(config.crawl, config.fetch, context.store)
        for line in lines_of(report):
            context.progress.say(line)
        stats["fetch_plan"] = {"dropped": report.dropped, **report.counters}
        config = replace(config, crawl=f"{plans}/*{PLAN_SUFFIX}")
    pattern, store, listed = _list(config)
    for name in uncut_files(listed, config.unit_bytes)[:3]:
        context.progress.say(f"{name} is larger than a unit and cannot be cut: one process will read all of it")
    stage = make_stage(config, store.location, context)
    units = crawl_units(listed)
    made = run_stage(context, stage, units, stats={"crawl_root": store.location, **stats})
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
    if plans is not None:
        remember(plans, config.fetch)
    return [made[config.documents], made[config.filters]]


def plan(config: Config, _context: Context, request: Request) -> Plan:
    """CPU, wall time, documents, bytes, requests and memory, from a sample of the crawl."""
    from jobs.extract_plan import plan_crawl

    if is_index(config.crawl):
        raise ConfigError(
            "the pages of an index are not here yet, and a plan fetches nothing",
            mend="`gristmill run` tells pages, requests and bytes before it fetches; plan a crawl of files",
        )
    _, store, listed = _list(config)
    return plan_crawl(listed, store, make_stage(config, store.location).worker_config, request)


def _list(config: Config) -> tuple[str, Store, pa.Table]:
    """The pattern, the store at the crawl root, the units."""
    from pipelines.crawl.inputs import crawl_root, list_inputs

    if not config.crawl:
        raise ConfigError("no crawl is given", mend="--crawl 'path/*.warc.gz', or --set crawl=...")
    pattern = SAMPLE if config.crawl == "sample" else config.crawl
    root, below = crawl_root(pattern)
    store = open_store(root)
    return pattern, store, list_inputs(store, below, pattern=pattern, unit_bytes=config.unit_bytes)


def make_stage(config: Config, crawl_root: str, context: Context | None = None) -> Stage:
    """The stage, and what its workers are told; `context` tells how many of them share a server's patience."""
    from pipelines.filters.measures import MEASURE_SCHEMA
    from pipelines.language.convert import check_policy

    check_policy(config.script)
    if unknown := set(config.columns) - {f.name for f in fields(RowColumns)}:
        raise ConfigError(
            f"columns: {sorted(unknown)} is nothing that a row holds",
            mend=f"known: {', '.join(f.name for f in fields(RowColumns))}",
        )

    return Stage(
        job="extract_crawl",
        stage_id=stage_id("extract_crawl", VERSION, config, _artifacts(config)),
        outputs=(
            Output(dataset=config.documents, kind="documents", schema=DOCUMENTS),
            Output(
                dataset=config.filters, kind="annotations", schema=pa.schema([DOCUMENTS.field("id"), *MEASURE_SCHEMA])
            ),
        ),
        worker="jobs.extract_worker:open_worker",
        worker_config={
            **content_config(config),
            "crawl_root": crawl_root,
            "documents": config.documents,
            "filters": config.filters,
            "blocklists": config.blocklists,
            "isolate_bytes": config.isolate_bytes,
            "page_seconds": config.page_seconds,
            "page_memory_mb": config.page_memory_mb,
            "fetch_rules": asdict(rules_for(config.fetch, context)),
            "takedowns": _takedowns(context.store) if context is not None else [],
        },
        equations={
            "documents": Equation(total="read", terms=("kept", "rejected", "failed")),
            "filters": Equation(total="rows", terms=("annotated", "failed")),
            "characters": Equation(total="in", terms=("out", "removed")),
        },
        config=content_config(config),
        artifacts=tuple({"name": name, "sha256": digest} for name, digest in _artifacts(config).items()),
        max_failed_fraction=config.max_failed_fraction,
    )


def retry_stage(config: Config, dataset: Dataset, reason: str) -> Stage:
    """The stage that tries again what `reason` cost `dataset`; its units are those that lost something to it."""
    root = dataset.manifest.stats.get("crawl_root")
    if not root or (config.crawl != "sample" and not is_index(config.crawl)):
        root = _root(config.crawl)
    stage = make_stage(replace(config, documents=dataset.name), root)
    told = {**stage.worker_config, "version": dataset.manifest.version, "reason": reason}
    told["takedowns"] = _takedowns(dataset.store)
    return replace(stage, worker="jobs.extract_worker:open_retry_worker", worker_config=told)


def _takedowns(store: Store) -> list[str]:
    """Keys of the list of what was asked to be taken down: no setting, so that a longer list makes nothing anew."""
    from pipelines.takedown.listing import part_keys

    return part_keys(store)


def _root(crawl: str) -> str:
    from pipelines.crawl.inputs import crawl_root

    return open_store(crawl_root(SAMPLE if crawl == "sample" else crawl)[0]).location


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


def _artifacts(config: Config) -> dict[str, str]:
    """Digests of the models and lists that decide what comes out."""
    from pipelines.crawl.html.model import model_sha256
    from pipelines.filters.blocklist import load_blocklists
    from pipelines.filters.lexicon import versions
    from pipelines.language.identify import open_identifier

    language = open_identifier(config.language_model, config.language_model_sha256)
    found = {language.name: language.sha256}
    if config.engine == "gristmill":
        found["extraction_model"] = model_sha256()
    if config.blocklists:
        found["blocklists"] = load_blocklists(config.blocklists).digest
    if config.lines is not False:
        found |= {f"lines/{name}": str(version) for name, version in versions().items()}
    return found


if __name__ == "__main__":
    from jobs.runtime.entry import job_main

    job_main("extract_crawl")
