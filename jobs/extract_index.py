"""A crawl that is named by its index: `cc-index:PATTERN` becomes fetch plans under the root, and they are the crawl.

Plans are made once for an index and a choice, and lie in `fetch-plans/ID/` with their report, which is written last:
the same command finds them again and goes on.  Seen sets are files of a folder, two a crawl, named by its plan's ID:
a plan drops what the files of other crawls hold, and a crawl's own files are written once its documents are committed.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from jobs.runtime.config import setting
from jobs.runtime.context import Context
from pipelines.crawl.cc_index import PLAN_SUFFIX, PageChoice, PlanReport, plan_hashes, plan_pages
from pipelines.crawl.fetch import FetchRules
from pipelines.crawl.inputs import crawl_root, find_inputs
from pipelines.crawl.seen import SeenSet, write_seen
from pipelines.crawl.sources import StoreSource
from pipelines.datasets.store import Store, open_store
from pipelines.errors import ConfigError, InputError

SCHEME = "cc-index:"
_PLANS = "fetch-plans"
_REPORT = "report.json"
_PAGE_SECONDS = 0.0025  # CPU of a page of the wanted kind, of which docs/extraction.md tells
_SEEN = {"url": ".urls", "content_digest": ".payloads"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Fetch:
    """Which pages of an index are fetched, and how politely.  None of it decides what becomes of a page."""

    root: str = setting(
        "https://data.commoncrawl.org/", "where the index's archives lie; or s3://commoncrawl", content=False
    )
    languages: tuple[str, ...] = setting(
        ("zho",), "languages of the index (ISO 639-3), any of a page's; none named: all", content=False
    )
    first_language_only: bool = setting(False, "only a page's first language counts", content=False)
    seen: str | None = setting(
        None, "folder of what earlier crawls had; pages in it are not fetched, and it learns of these", content=False
    )
    requests_per_second: float = setting(5.0, "of all processes together", content=False)
    connections: int = setting(4, "of all processes together, at least one each", content=False)


def is_index(crawl: str) -> bool:
    """Whether the crawl is named by its index."""
    return crawl.startswith(SCHEME)


def plans_of(crawl: str, fetch: Fetch, store: Store) -> tuple[str, PlanReport]:
    """(folder of the plans, their report), made where they are not there; `store` is the root of the datasets."""
    root, below = crawl_root(crawl.removeprefix(SCHEME))
    index = open_store(root)
    files = find_inputs(index, below, pattern=crawl)
    fetch_root = fetch.root if "://" in fetch.root else Path(fetch.root).resolve().as_posix()
    choice = PageChoice(languages=fetch.languages or None, first_language_only=fetch.first_language_only)
    name = _plan_name([index.location, *files], choice, fetch_root)
    folder = f"{store.location.rstrip('/')}/{_PLANS}/{name}"
    plans = open_store(folder)
    if plans.head(_REPORT) is None:
        for old in list(plans.list("")):  # of a run that ended before its report
            plans.delete(old.key)
        urls, payloads = (_seen_of_others(fetch.seen, name, suffix) for suffix in _SEEN.values())
        made = plan_pages(
            index, files, plans, fetch_root=fetch_root, choice=choice, seen_urls=urls, seen_payloads=payloads
        )
        plans.put(_REPORT, json.dumps(asdict(made)).encode())
    report = PlanReport(**json.loads(plans.get(_REPORT)))
    if not report.files:
        raise InputError(
            f"No page of {crawl!r} is to be fetched: {report.dropped}",
            key=crawl,
            mend="Look at fetch.languages, and at fetch.seen, which drops what earlier crawls had.",
        )
    return folder, report


def lines_of(report: PlanReport) -> list[str]:
    """The report as lines for a person."""
    n = report.counters
    dropped = ", ".join(f"{reason} {count}" for reason, count in report.dropped.items() if count)
    lines = [
        f"{n['pages']} of {n['indexed']} pages are to be fetched: {n['gets']} requests, {n['get_bytes'] / 1e6:.1f} MB"
        f" (not wanted: {dropped or 'none'})"
    ]
    if saved := n.get("bytes_saved", 0):
        lines.append(
            f"earlier crawls have {report.dropped['seen_url'] + report.dropped['seen_payload']} of the wanted ones:"
            f" {saved / 1e6:.1f} MB and about {report.cpu_saved_seconds(_PAGE_SECONDS):.1f} s of CPU are saved"
        )
    return lines


def remember(folder: str, fetch: Fetch) -> None:
    """Write what the crawl of these plans had into the folder of seen sets; nothing where it is there."""
    if fetch.seen is None:
        return
    plans = open_store(folder)
    name = folder.rpartition("/")[2]
    Path(fetch.seen).mkdir(parents=True, exist_ok=True)
    for column, suffix in _SEEN.items():
        if not (path := Path(fetch.seen, name + suffix)).exists():
            write_seen(path, _hashes(plans, column))


def rules_for(fetch: Fetch, context: Context | None) -> FetchRules:
    """The share of one worker process; without a context of one on each core of this machine."""
    rules = FetchRules(requests_per_second=fetch.requests_per_second, connections=fetch.connections)
    if context is None:
        return rules.divided(len(os.sched_getaffinity(0)))
    if context.engine == "spark" and context.spark_master is not None:
        return rules.divided(context.spark().sparkContext.defaultParallelism)
    return rules.divided(1 if context.engine == "process" else context.cores)


@functools.lru_cache(maxsize=4)
def planned_root(crawl: Store) -> str | None:
    """Where the archives of a folder's fetch plans lie; None where it holds no plans."""
    from pipelines.crawl.plan_reader import plan_root

    for item in crawl.list(""):
        if item.key.endswith(PLAN_SUFFIX):
            return plan_root(StoreSource(crawl, item.key, item.size_bytes))
    return None


def _plan_name(index: list[Any], choice: PageChoice, fetch_root: str) -> str:
    body = json.dumps([index, asdict(choice), fetch_root], sort_keys=True)
    return hashlib.sha256(body.encode()).hexdigest()[:16]


def _hashes(plans: Store, column: str) -> Iterator[np.ndarray]:
    for item in plans.list(""):
        if item.key.endswith(PLAN_SUFFIX):
            yield from plan_hashes(StoreSource(plans, item.key, item.size_bytes), column)


def _seen_of_others(folder: str | None, name: str, suffix: str) -> SeenSet | None:
    if folder is None:
        return None
    if "://" in folder:
        raise ConfigError(f"fetch.seen is {folder!r}", mend="give a folder of this machine: its files are mapped")
    paths = [path for path in sorted(Path(folder).glob(f"*{suffix}")) if path.name != name + suffix]
    return SeenSet(*paths) if paths else None
