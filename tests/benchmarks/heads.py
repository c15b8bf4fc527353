"""Titles and dates that pages declare, beside trafilatura's: how often both agree, and what each costs.

trafilatura's part is timed on a tree that is parsed already; ours reads the markup.
"""

from __future__ import annotations

import itertools
import logging
import statistics
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

from pipelines.crawl.decode import decode
from pipelines.crawl.head import read_head
from tests.benchmarks.decoding_pages import crawl_pages, labelled

LATEST = "2026-11-21"


def measure_heads(folder: Path, every: int) -> dict[str, Any]:
    """Agreement and CPU on every n-th page."""
    from trafilatura.metadata import extract_metadata
    from trafilatura.utils import load_html

    logging.disable(logging.CRITICAL)
    rules = {"original_date": True, "extensive_search": False, "max_date": LATEST}
    dates: Counter[str] = Counter()
    titles: Counter[str] = Counter()
    ours, theirs = [], []
    for markup, url in itertools.islice(_pages(folder), 0, None, every):
        begun = time.process_time()
        head = read_head(markup, url=url, latest=LATEST)
        ours.append(time.process_time() - begun)
        tree = load_html(markup.encode("utf-8", "replace"))
        if tree is None:
            continue
        begun = time.process_time()
        peer = extract_metadata(tree, url, date_config=dict(rules))
        theirs.append(time.process_time() - begun)
        titles[_compare(_squeezed(head.title), _squeezed(peer.title))] += 1
        dates[_compare(head.date, peer.date)] += 1
    result = {
        "pages": len(ours),
        "titles": dict(titles),
        "dates": dict(dates),
        "cpu_us": {"mean": _us(statistics.fmean(ours)), "p99": _us(sorted(ours)[len(ours) * 99 // 100])},
        "trafilatura_cpu_us": {"mean": _us(statistics.fmean(theirs))},
    }
    sys.stderr.write(f"{result}\n")
    return result


def _pages(folder: Path) -> Any:
    for row, body, content_type in crawl_pages(folder):
        if row["status"] == 200 and row["kind"] == "base":
            yield decode(body, content_type).text, row["url"]
    for path in sorted((folder / "labels").glob("extraction_dev_*.jsonl.zst")):
        for row in labelled(path):
            yield decode(row["html"].encode(row["html_codec"])).text, row["url"]


def _compare(ours: str | None, theirs: str | None) -> str:
    if ours == theirs:
        return "same" if ours else "neither"
    return "differ" if ours and theirs else "ours only" if ours else "theirs only"


def _squeezed(title: str | None) -> str:
    return "".join((title or "").split())


def _us(seconds: float) -> float:
    return round(seconds * 1e6, 1)
