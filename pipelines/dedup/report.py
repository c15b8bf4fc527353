"""The report of a `dedup` version as a page: counts from its manifest, samples of texts read on demand.

The manifest names the samples by part and row and holds no text, and the page is stored nowhere: so there is nothing in
it that a takedown would have to find. A sample costs a few ranged reads, whatever the size of its part.
"""

from __future__ import annotations

import html
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from pipelines.datasets import Dataset, open_dataset
from pipelines.datasets.ranged import RangedParquet
from pipelines.datasets.store import Store
from pipelines.dedup.urls import CAPTURE
from pipelines.errors import InputError

CLUSTERS = 10
CHARACTERS = 200
_COLUMNS = ("id", "url", "domain", "text")
_COUNTS = (
    ("urls", "captures that left for another one of their URL"),
    ("exact", "exact copies"),
    ("candidates", "candidate pairs"),
    ("rejected", "rejected by sketches"),
    ("too_unlike", "too unlike by their texts"),
    ("verified", "verified pairs"),
    ("better_not_taken", "removed documents that only their generation kept from staying"),
    ("uncompared", "documents that a further round would have compared"),
)


def read_row(store: Store, key: str, row: int, columns: Sequence[str]) -> dict[str, Any]:
    """One row of a Parquet object: its footer, and these columns of the row's group, by ranged reads."""
    part = RangedParquet(store, key)
    for number, rows in enumerate(part.group_rows):
        if row < rows:
            return part.read(columns, [number]).slice(row, 1).to_pylist()[0]
        row -= rows
    raise InputError(f"{key} has no such row", mend="look at the report of the latest version")


def state_words(state: int) -> str:
    """`dedup.state` in words."""
    if state & CAPTURE:
        return "another capture of its URL stays"
    if state & 1:
        return "an exact copy"
    rounds = [number for number in (1, 2, 3) if state >> number & 1]
    return f"a near copy, found in round {rounds[0]}" if rounds else "nothing like it stays before it"


def dedup_page(dedup: Dataset, *, clusters: int = CLUSTERS) -> dict[str, Any]:
    """What the page shows: counts, clusters by size, the biggest with samples, domains that lost most.

    Texts are those of the latest documents, so a page that was taken down since shows none. InputError where the
    dataset is no output of dedup_documents.
    """
    stats = dedup.manifest.stats
    if "pairs" not in stats or "biggest_clusters" not in stats["pairs"]:
        raise InputError(f"{dedup.name} has no report of deduplication", mend="name an output of dedup_documents")
    pairs = stats["pairs"]
    documents = open_dataset(dedup.store, dedup.manifest.parents[0]["name"])
    parts = {(row["input"], row["unit"]): row for row in documents.parts().to_pylist()}
    biggest = []
    for cluster in pairs["biggest_clusters"][:clusters]:
        samples = [_sample(dedup.store, parts, *place) for place in cluster.get("samples", [])]
        biggest.append({"cluster": cluster["cluster"], "documents": cluster["documents"], "samples": samples})
    candidates = pairs.get("candidates", 0)
    return {
        "dataset": f"{dedup.name} version {dedup.manifest.version}",
        "kept": stats.get("kept", 0),
        "duplicates": stats.get("duplicates", 0),
        "accepted": pairs.get("verified", 0) / candidates if candidates else None,
        "counts": {name: pairs[name] for name, _ in _COUNTS if name in pairs},
        "by_round": pairs.get("by_round", []),
        "cluster_sizes": pairs["cluster_sizes"],
        "biggest_clusters": biggest,
        "capped_buckets": pairs.get("capped_buckets", []),
        "domains": stats.get("by_domain_top100", {}),
    }


def _sample(store: Store, parts: dict[tuple[str, str], dict[str, Any]], name: str, unit: str, row: int) -> dict:
    part = parts.get((name, unit))
    found = read_row(store, part["key"], row, _COLUMNS) if part else dict.fromkeys(_COLUMNS)
    return found | {"text": (found["text"] or "")[:CHARACTERS]}


def page_text(page: dict[str, Any], visible: Callable[[object], str]) -> Iterator[str]:
    """The page as lines; `visible` makes crawled text safe to show."""
    yield f"{page['dataset']}: {page['kept']:,} documents stay, {page['duplicates']:,} leave"
    for name, meaning in _COUNTS:
        if page["counts"].get(name):
            yield f"  {page['counts'][name]:,} {meaning}"
    if page["accepted"] is not None:
        yield f"  {page['accepted']:.1%} of the candidates were accepted; by round {page['by_round']}"
    yield "\nclusters by size"
    most = max(page["cluster_sizes"].values(), default=1)
    for size, count in page["cluster_sizes"].items():
        yield f"  {size:>12} {count:>10,} {'#' * max(1, round(40 * count / most))}"
    if page["domains"]:
        yield "\ndomains that lost most"
        for domain, count in list(page["domains"].items())[:10]:
            yield f"  {count:>10,} {visible(domain)}"
    for bucket in page["capped_buckets"]:
        yield f"  cut: a bucket of {bucket['documents']:,} documents, {bucket['digest']}"
    for cluster in page["biggest_clusters"]:
        yield f"\na cluster of {cluster['documents']:,}: the one that stays, and some that left"
        for sample in cluster["samples"]:
            yield f"  {sample['id']} {visible(sample['url'] or '')}"
            yield f"    {visible(sample['text']) or '(no text is left)'}"


def page_html(page: dict[str, Any]) -> str:
    """The page as HTML without anything from elsewhere; what was crawled is escaped, and no link can be followed."""

    def cell(value: object) -> str:
        return html.escape(f"{value:,}" if isinstance(value, int) else str(value or ""))

    def table(rows: Sequence[Sequence[object]]) -> str:
        body = "".join("<tr>" + "".join(f"<td>{cell(value)}</td>" for value in row) + "</tr>\n" for row in rows)
        return f"<table>\n{body}</table>\n"

    counts = [("documents that stay", page["kept"]), ("documents that leave", page["duplicates"])]
    counts += [(meaning, page["counts"][name]) for name, meaning in _COUNTS if name in page["counts"]]
    if page["accepted"] is not None:
        counts.append(("candidates that were accepted", f"{page['accepted']:.1%}"))
    most = max(page["cluster_sizes"].values(), default=1)
    bars = "".join(
        f"<tr><td>{cell(size)}</td><td>{cell(count)}</td>"
        f'<td><div class="bar" style="width:{max(1, round(300 * count / most))}px"></div></td></tr>\n'
        for size, count in page["cluster_sizes"].items()
    )
    clusters = "".join(
        f"<h3>{cell(cluster['documents'])} documents</h3>\n"
        + table([(s["id"], s["url"], s["text"] or "(no text is left)") for s in cluster["samples"]])
        for cluster in page["biggest_clusters"]
    )
    cut = [(bucket["digest"], bucket["documents"]) for bucket in page["capped_buckets"]]
    return (
        f"<!doctype html>\n<html><head><meta charset='utf-8'><title>{cell(page['dataset'])}</title>\n"
        "<style>body{font:14px sans-serif;max-width:60em;margin:2em auto}td{padding:2px 8px;vertical-align:top;"
        "overflow-wrap:anywhere}.bar{background:#58a;height:1em}</style></head><body>\n"
        f"<h1>{cell(page['dataset'])}</h1>\n{table(counts)}"
        f"<h2>Clusters by size</h2>\n<table>\n{bars}</table>\n"
        f"<h2>Domains that lost most</h2>\n{table(list(page['domains'].items())[:30])}"
        f"<h2>Buckets that were cut</h2>\n{table(cut)}"
        f"<h2>The biggest clusters: the one that stays, and some that left</h2>\n{clusters}</body></html>\n"
    )
