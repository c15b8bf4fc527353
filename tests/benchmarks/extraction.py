"""Main-text extraction against labelled pages, ours and the peers in the same run: token F1, segments, CPU a page.

`python -m tests.benchmarks.extraction [--gold FOLDER] [--folds FOLDER]` prints a table on stderr and one JSON line on
stdout. Pages go in as served bytes; all engines run with one setting. With `--folds` each page is extracted by a
model that was fitted without its fold (same registered domain, or shared text), which needs LightGBM: the figure to
believe on the pages that the shipped model was fitted on. CPU is measured on every `--every`-th page by hash, five
rounds in turn after a warm-up.
"""

from __future__ import annotations

import argparse
import functools
import json
import logging
import platform
import random
import statistics
import sys
import time
import zlib
from collections import defaultdict
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np

from pipelines.crawl.extract import extract_html
from pipelines.crawl.html import fit, model
from pipelines.crawl.html.labels import (
    page_bytes,
    page_groups,
    read_pages,
    segment_hits,
    token_scores,
    without_headline,
)
from pipelines.crawl.html.scan import scan
from tests.pack import FOLDER

ROUNDS = 5
Engine = Callable[[bytes, dict[str, Any]], str]


def engines(wanted: set[str] | None) -> dict[str, Engine]:
    """Ours, and the peers that are installed."""
    found: dict[str, Engine] = {"gristmill": lambda html, _row: extract_html(html).text}
    import trafilatura

    logging.disable(logging.CRITICAL)
    found["trafilatura"] = lambda html, _row: trafilatura.extract(html) or ""
    found["trafilatura_precision"] = lambda html, _row: trafilatura.extract(html, favor_precision=True) or ""
    found["trafilatura_recall"] = lambda html, _row: trafilatura.extract(html, favor_recall=True) or ""
    try:
        from lxml import html as lxml_html
        from readability import Document

        def by_readability(html: bytes, row: dict[str, Any]) -> str:
            tree = lxml_html.fromstring(Document(html.decode(row["encoding"], "replace")).summary(html_partial=True))
            for element in tree.iter("p", "div", "br", "li", "h1", "h2", "h3", "h4", "td", "tr", "pre", "blockquote"):
                element.tail = "\n" + (element.tail or "")
            return tree.text_content()

        found["readability"] = by_readability
    except ImportError:
        sys.stderr.write("readability-lxml is not installed\n")
    try:
        from resiliparse.extract.html2text import extract_plain_text
        from resiliparse.parse.html import HTMLTree

        found["resiliparse"] = lambda html, row: extract_plain_text(
            HTMLTree.parse(html.decode(row["encoding"], "replace")), main_content=True
        )
    except ImportError:
        sys.stderr.write("resiliparse is not installed\n")
    return {name: engine for name, engine in found.items() if wanted is None or name in wanted}


def guarded(engine: Engine) -> Engine:
    """A peer that raises has extracted nothing."""

    def run(html: bytes, row: dict[str, Any]) -> str:
        try:
            return engine(html, row)
        except Exception:  # noqa: BLE001 - what a peer raises is part of what is measured
            return ""

    return run


def fold_models(rows: list[dict[str, Any]], folder: Path) -> dict[str, model.Model]:
    """By page id, a model that has not seen the page's fold; fitted first where the folder has none."""
    if not (folder / "fold0.npz").exists():
        fit.main(["--labels", str(FOLDER / "labels"), "--folds", str(folder), "--out", str(folder / "whole.npz")])
    fitted = [model.read_model(folder / f"fold{number}.npz") for number in range(fit.FOLDS)]
    return {row["id"]: fitted[fit.fold_of(group)] for row, group in zip(rows, page_groups(rows), strict=True)}


def page_title(html: bytes, encoding: str) -> str:
    """The title, for telling headline lines, which count on neither side."""
    page = scan(html.decode(encoding, "replace").encode("utf-8", "replace"))
    return page.text[page.title[0] : page.title[1]].tobytes().decode("utf-8", "replace")


def score(rows: list[dict[str, Any]], texts: dict[str, str], titles: dict[str, str]) -> dict[str, Any]:
    """Mean token F1 a set with 95 % bootstrap intervals, macro over sets, Chinese pages, segments."""
    by_set: dict[str, list[float]] = defaultdict(list)
    chinese: list[float] = []
    hits = [0, 0, 0, 0]
    for row in rows:
        text, title = texts[row["id"]], titles[row["id"]]
        if row["gold"]:
            f1 = token_scores(without_headline(text, title), without_headline(row["gold"], title))[2]
            by_set[row["set"]].append(f1)
            if row["lang"] == "zh":
                chinese.append(f1)
        else:
            hits = [a + b for a, b in zip(hits, segment_hits(text, row["must"], row["must_not"]), strict=True)]
    drawn = random.Random(7)
    boots = [
        {name: statistics.fmean(drawn.choices(values, k=len(values))) for name, values in by_set.items()}
        for _ in range(1000)
    ]
    macros = sorted(statistics.fmean(boot.values()) for boot in boots)
    must, must_not = hits[0] / max(hits[1], 1), 1 - hits[2] / max(hits[3], 1)
    return {
        "macro": statistics.fmean(statistics.fmean(v) for v in by_set.values()),
        "macro_95": [macros[24], macros[974]],
        "zh": statistics.fmean(chinese) if chinese else None,
        "sets": {name: statistics.fmean(v) for name, v in sorted(by_set.items())},
        "sets_95": {name: [sorted(b[name] for b in boots)[k] for k in (24, 974)] for name in sorted(by_set)},
        "must": must,
        "must_not": must_not,
        "segments": (must + must_not) / 2,
    }


def cpu(rows: list[dict[str, Any]], bodies: list[bytes], chosen: dict[str, Engine]) -> dict[str, dict[str, float]]:
    """Per engine mean, median, p99 and spread of CPU ms a page: medians over rounds of each page."""
    times: dict[str, list[list[float]]] = {name: [] for name in chosen}
    for round_number in range(ROUNDS + 1):
        for name, engine in chosen.items():
            spent = []
            for row, body in zip(rows, bodies, strict=True):
                started = time.process_time()
                engine(body, row)
                spent.append(1000 * (time.process_time() - started))
            if round_number:
                times[name].append(spent)
    result = {}
    for name, rounds in times.items():
        means = [statistics.fmean(one) for one in rounds]
        pages = np.median(np.array(rounds), axis=0)
        result[name] = {
            "mean_ms": statistics.median(means),
            "median_ms": float(np.median(pages)),
            "p99_ms": float(np.percentile(pages, 99)),
            "max_ms": float(pages.max()),
            "spread": (max(means) - min(means)) / statistics.median(means),
        }
    return result


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _rounded(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _rounded(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_rounded(item) for item in value]
    return round(value, 4) if isinstance(value, float) else value


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--gold", type=Path, default=FOLDER / "labels")
    parser.add_argument(
        "--folds", type=Path, help="extract each page by a model that has not seen its fold; kept there"
    )
    parser.add_argument(
        "--every", type=int, default=4, help="CPU is measured on every n-th page by hash; 0: not at all"
    )
    parser.add_argument("--engines", nargs="*", help="only these")
    arguments = parser.parse_args()
    rows = list(read_pages(arguments.gold))
    bodies = [page_bytes(row) for row in rows]
    titles = {row["id"]: page_title(body, row["encoding"]) for row, body in zip(rows, bodies, strict=True)}
    chosen = {
        name: guarded(engine) for name, engine in engines(set(arguments.engines) if arguments.engines else None).items()
    }
    unseen = fold_models(rows, arguments.folds) if arguments.folds else {}
    shipped = model.model
    scores = {}
    for name, engine in chosen.items():
        texts = {}
        for row, body in zip(rows, bodies, strict=True):
            if unseen and name == "gristmill":
                model.model = functools.cache(lambda fitted=unseen[row["id"]]: fitted)  # type: ignore[assignment]
            texts[row["id"]] = engine(body, row)
        model.model = shipped
        scores[name] = score(rows, texts, titles)
    ours = scores["gristmill"]
    peers = [found for name, found in scores.items() if name != "gristmill"]
    best = {name: max((peer["sets"][name] for peer in peers), default=0.0) for name in ours["sets"]}
    result: dict[str, Any] = {
        "benchmark": "extraction",
        "pages": len(rows),
        "model": "folds" if unseen else "shipped",
        **ours,
        "best_peer": best,
        "below_best_peer": sum(ours["sets"][name] < value - 0.01 for name, value in best.items()),
        "peers": scores,
    }
    if arguments.every:
        timed = [n for n, row in enumerate(rows) if zlib.crc32(row["id"].encode()) % arguments.every == 0]
        spent = cpu([rows[n] for n in timed], [bodies[n] for n in timed], chosen)
        base = spent.get("trafilatura")
        result |= {"cpu": spent, "cpu_pages": len(timed)}
        if base:
            result["cpu_vs_trafilatura"] = spent["gristmill"]["mean_ms"] / base["mean_ms"]
            result["p99_vs_trafilatura"] = spent["gristmill"]["p99_ms"] / base["p99_ms"]
    result["versions"] = {
        "python": platform.python_version(),
        **{name: _version(name) for name in ("trafilatura", "readability-lxml", "resiliparse", "numba", "lxml")},
    }
    names = sorted(ours["sets"])
    header = " ".join(f"{n[:11]:>11}" for n in names)
    sys.stderr.write(f"{'engine':22} macro     zh  {header}  must/not  CPU ms mean / p99\n")
    for name, found in scores.items():
        timing = result.get("cpu", {}).get(name)
        by_set = " ".join(f"{found['sets'][n]:11.3f}" for n in names)
        sys.stderr.write(
            f"{name:22} {found['macro']:.3f}  {found['zh'] or 0:.3f}  {by_set}"
            f"  {found['must']:.2f}/{found['must_not']:.2f}"
            + (f"  {timing['mean_ms']:.2f} / {timing['p99_ms']:.1f}" if timing else "")
            + "\n"
        )
    print(json.dumps(_rounded(result)))


if __name__ == "__main__":
    main()
