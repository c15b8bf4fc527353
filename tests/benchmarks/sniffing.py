"""The look before extraction: pages and CPU saved, wanted pages lost, against full extraction of the same pages.

A page is wanted where the language of its extracted text is; so what is lost counts against the engine that runs, and
pages without text count as unwanted. Losses are given for two folds by registered domain, so that a margin that fits
one half by chance shows.
"""

from __future__ import annotations

import hashlib
import itertools
import sys
import time
from pathlib import Path
from typing import Any

from pipelines.crawl.domain import host_of, registered_domain
from pipelines.crawl.extract import ENGINES, extract_html
from pipelines.crawl.sniff import SniffRules, sniff
from pipelines.language.identify import identify, open_identifier
from tests.benchmarks.decoding_pages import crawl_pages, labelled

WANTED = (frozenset({"zh"}), frozenset({"zh", "en"}), frozenset({"ja"}))
MODES = {"counting": False, "counting and the model": True}


def measure_sniff(folder: Path, every: int) -> dict[str, Any]:
    """Figures for each set of wanted languages, on every n-th page; what it saves by either engine."""
    open_identifier().identify("warm-up")
    list(map(_known_by_both, itertools.islice(_pages(folder), 3)))
    pages, known, labelled_texts = [], [], _texts(folder)
    for page in itertools.islice(_pages(folder), 0, None, every):
        text, *facts = _known_by_both(page)
        known.append(facts)
        pages.append(page[:3])
        if text and page[3]:
            labelled_texts.setdefault("crawl", []).append((text, page[3]))
    result: dict[str, Any] = {"pages": len(pages)}
    for at, engine in enumerate(ENGINES):
        result[f"{engine}_ms"] = _ms(sum(costs[at] for _, costs, _ in known), pages)
    sys.stderr.write(f"a page, ms of CPU with its language: {result}\n")
    result["languages"] = {name: _accuracy(rows) for name, rows in labelled_texts.items()}
    sys.stderr.write(f"language id, ours and the bare model: {result['languages']}\n")
    for languages, (mode, asks) in itertools.product(WANTED, MODES.items()):
        row = _measure(pages, known, SniffRules(languages=languages, ask_model=asks))
        result[f"{','.join(sorted(languages))} by {mode}"] = row
        sys.stderr.write(f"{sorted(languages)} by {mode} {row}\n")
    return result


def _known_by_both(page: tuple) -> tuple[str, str | None, list[float], int]:
    """The text of our engine, its language, CPU of extraction and language by either engine, fold by domain."""
    body, url, content_type, _ = page
    costs, text, language = [], "", None
    for engine in reversed(ENGINES):  # ours last: its text counts
        begun = time.process_time()
        text = extract_html(body, url=url, content_type=content_type, engine=engine).text
        language = identify(text)[0] if text else None
        costs.append(time.process_time() - begun)
    return text, language, costs[::-1], _fold(url)


def _measure(pages: list, known: list, rules: SniffRules) -> dict[str, Any]:
    wanted, lost = [0, 0], [0, 0]
    dropped = unwanted = 0
    saved = [0.0, 0.0]
    begun = time.process_time()
    refused = [sniff(body, url=url, content_type=kind, rules=rules) for body, url, kind in pages]
    spent = time.process_time() - begun
    for refusal, (language, costs, fold) in zip(refused, known, strict=True):
        is_wanted = language in (rules.languages or ())
        wanted[fold] += is_wanted
        unwanted += not is_wanted
        if refusal is not None:
            dropped += 1
            saved = [have + cost for have, cost in zip(saved, costs, strict=True)]
            lost[fold] += is_wanted
    whole = [sum(costs[at] for _, costs, _ in known) for at in range(len(ENGINES))]
    return {
        "wanted": sum(wanted),
        "wanted_lost": sum(lost),
        "wanted_lost_share": round(sum(lost) / max(sum(wanted), 1), 5),
        "lost_by_fold": [round(a / max(b, 1), 5) for a, b in zip(lost, wanted, strict=True)],
        "unwanted": unwanted,
        "unwanted_dropped": dropped - sum(lost),
        "pages_saved": round(dropped / len(pages), 4),
        "cpu_saved": {
            engine: round((had - spent) / all_, 4) for engine, had, all_ in zip(ENGINES, saved, whole, strict=True)
        },
        "sniff_ms": _ms(spent, pages),
    }


def _accuracy(rows: list[tuple[str, str]]) -> dict[str, Any]:
    """Right labels of each; `wuu` of the bare model counts as zh."""
    model = open_identifier()
    bare = [model.bare(text)[0].replace("wuu", "zh") for text, _ in rows]
    return {
        "texts": len(rows),
        "ours": round(sum(identify(text)[0] == language for text, language in rows) / len(rows), 4),
        "bare": round(sum(found == language for found, (_, language) in zip(bare, rows, strict=True)) / len(rows), 4),
    }


def _texts(folder: Path) -> dict[str, list[tuple[str, str]]]:
    """Texts of one known language, by file."""
    found = {}
    for path in sorted((folder / "text").glob("[ez][nh]_*.jsonl.zst")):
        language = path.name[:2]
        found[path.name.split(".")[0]] = [(row["text"], language) for row in itertools.islice(labelled(path), 400)]
    return found


def _pages(folder: Path) -> Any:
    """(bytes, URL, Content-Type, language as labelled) of the crawl's pages and the labelled ones."""
    for row, body, content_type in crawl_pages(folder):
        if row["status"] == 200:
            language = (row["lang"] or "").split("-")[0] if row["kind"] == "base" else None
            yield body, row["url"], content_type, language
    for path in sorted((folder / "labels").glob("extraction_dev_*.jsonl.zst")):
        for row in labelled(path):
            yield row["html"].encode(row["html_codec"]), row["url"], None, None


def _fold(url: str) -> int:
    domain = registered_domain(host_of(url) or "") or url
    return hashlib.sha256(domain.encode()).digest()[0] % 2


def _ms(seconds: float, pages: list) -> float:
    return round(seconds / max(len(pages), 1) * 1e3, 3)
