"""The one screen at the end of a recipe: what went in, what stayed, what was learned, what to type next."""

from __future__ import annotations

from collections.abc import Sequence

import click

from cluster.cli.options import clip, size, visible
from jobs.runtime.recipe import Outcome
from pipelines.datasets import Dataset
from pipelines.datasets.manifest import Manifest, latest_manifest
from pipelines.datasets.reasons import REASONS
from pipelines.datasets.store import Store

COLUMNS = 78


def show_summary(store: Store, outcomes: Sequence[Outcome], seconds: float) -> None:
    """Print it; what a recipe did not reach is left out."""
    made = {m.name: m for o in outcomes for m in o.manifests}
    click.echo("")
    _funnel(store, made)
    _stages(outcomes, seconds)
    if tokens := made.get("tokens"):
        _tokens(tokens)
    if evaluation := made.get("artifacts/evaluation"):
        _training(evaluation)
    _dropped_page(store, made)
    _next(store, made)


def _line(left: str, right: str = "") -> None:
    click.echo(clip(f"{left:<26} {right}".rstrip(), COLUMNS))


def _flat(account: int | dict[str, int]) -> dict[str, int]:
    return account if isinstance(account, dict) else {"": account}


def _funnel(store: Store, made: dict[str, Manifest]) -> None:
    """read -> kept -> corpus and heldout; rejected by reason; failed."""
    for name, title in (("documents", "the crawl"), ("corpus", "the filters")):
        manifest = made.get(name)
        if manifest is None:
            continue
        book = manifest.books["documents"]
        rejected, failed = _flat(book["rejected"]), _flat(book["failed"])
        click.echo(
            f"{title}: read {book['read']} = kept {book['kept']} + rejected {sum(rejected.values())}"
            f" + failed {sum(failed.values())}"
        )
        for account, reasons in (("rejected", rejected), ("failed", failed)):
            told = [f"{k} {n}" for k, n in sorted(reasons.items(), key=lambda x: -x[1]) if k and n]
            _wrap(f"  {account}: ", told)
        languages = manifest.stats.get("by_language", {})
        _wrap("  languages: ", [f"{k} {n}" for k, n in sorted(languages.items(), key=lambda x: -x[1])][:12])
    if (corpus := made.get("corpus")) is not None:
        split = corpus.books["split"]
        click.echo(
            f"corpus {split['corpus']} documents, {corpus.stats.get('characters', 0):,} characters;"
            f" heldout {split['heldout']} documents"
        )


def _wrap(head: str, items: Sequence[str]) -> None:
    line = head
    for i, item in enumerate(items):
        piece = item + ("," if i + 1 < len(items) else "")
        if len(line) + len(piece) + 1 > COLUMNS:
            click.echo(line.rstrip())
            line = " " * len(head)
        line += piece + " "
    if items:
        click.echo(line.rstrip())


def _stages(outcomes: Sequence[Outcome], seconds: float) -> None:
    click.echo(f"\n{seconds:.0f} s in all, engines started within")
    for o in outcomes:
        _line(f"  {o.job}", f"{o.seconds:7.1f} s   {_speed(o)}")


def _speed(o: Outcome) -> str:
    m = o.manifests[0] if o.manifests else None
    if m is None:
        return ""  # a run is no dataset; its own lines stand below
    if o.finished:
        return f"finished before: {m.name} v{m.version}"
    if o.seconds < 0.05:
        return ""
    rows = m.part_list["rows"]
    if o.job == "extract_crawl":
        return f"{m.books['documents']['read'] / o.seconds:,.0f} records/s, {size(m.stats['bytes_in'] / o.seconds)}/s"
    if o.job == "tokenize_documents":
        tokens = sum(c["tokens"] for c in o.manifests[-1].stats.get("cells", {}).values())
        return f"{tokens / o.seconds:,.0f} tokens/s"
    if o.job in ("dedup_documents", "score_quality", "filter_documents"):
        return f"{rows / o.seconds:,.0f} documents/s"
    return ""


def _tokens(m: Manifest) -> None:
    cells = m.stats["cells"]
    total = sum(c["tokens"] for c in cells.values())
    click.echo(
        f"\n{total:,} tokens in {sum(c['shards'] for c in cells.values())} shards,"
        f" vocabulary {m.stats['tokenizer']['vocab_size']:,}"
    )
    _wrap(
        "  by cell: ",
        [f"{name} {c['tokens']:,}" for name, c in sorted(cells.items(), key=lambda x: -x[1]["tokens"])][:8],
    )


def _training(evaluation: Manifest) -> None:
    """Loss first -> last, loss by domain, a few tokens."""
    report = evaluation.stats
    run = report["run"]
    if "first_loss" in run:
        losses = f"loss {run['first_loss']:.3f} -> {run['last_loss']:.3f}"
        click.echo(f"\nrun {run['name']}: {losses} in {run['steps']} steps, {run['tokens']:,} tokens trained")
    for score in report["domains"]:
        figures = f"loss {score['loss']:.3f}   bits per byte {score['bits_per_byte']:.3f}"
        _line(f"  heldout {score['name']}", f"{figures}   {score['documents']} documents")
    if report["samples"]:
        click.echo("a few tokens of a tiny model, which has learned some form and no sense:")
        for sample in report["samples"][:2]:
            click.echo(clip(f"  {visible(sample['prompt'])} | {visible(sample['text'])}", COLUMNS))


def _dropped_page(store: Store, made: dict[str, Manifest]) -> None:
    """One rejected page, the kind that people ask about: a near-duplicate or a filter first, else any."""
    for name in ("corpus", "documents"):
        manifest = made.get(name) or latest_manifest(store, name)
        if manifest is None:
            continue
        for table in Dataset(store, manifest).ledger():
            ledger = [row for row in table.to_pylist() if row["verdict"] != "changed"]
            if ledger:
                page = ledger[len(ledger) // 2]
                click.echo("\na page that was dropped, and why:")
                click.echo(clip(f"  {visible(page['url'] or page['file'])}", COLUMNS))
                value = "" if page["value"] is None else f" (value {page['value']:g}"
                value += (
                    "" if not value else (f", bound {page['threshold']:g})" if page["threshold"] is not None else ")")
                )
                click.echo(
                    clip(f"  {page['stage']}: {page['reason']}{value}: {REASONS.get(page['reason'], '')}", COLUMNS)
                )
                return


def _next(store: Store, made: dict[str, Manifest]) -> None:
    click.echo(f"\neverything lies in {store.location}")
    click.echo("next:  gristmill datasets ls")
    click.echo("       gristmill datasets sample corpus -n 3")
    click.echo("       gristmill explain URL           what happened to a page")
    if "artifacts/evaluation" in made:
        click.echo(
            f"       gristmill runs show {made['artifacts/evaluation'].stats['run']['name']:<12}"
            "its plan, attempts and checkpoints"
        )
    click.echo("       make run CRAWL='path/*.warc.gz' OUT=folder    your own crawl")
