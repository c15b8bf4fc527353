"""`gristmill explain`: what happened to a page, in every dataset, and why; whose a token is; what a step has read."""

from __future__ import annotations

import re
from typing import Any

import click

from cluster.cli.explain_run import STEP, show_runs, show_step
from cluster.cli.options import clip, open_root, print_json, visible, with_json, with_root
from pipelines.datasets import open_dataset
from pipelines.datasets.gc import names_of
from pipelines.datasets.reasons import REASONS
from pipelines.datasets.store import Store
from pipelines.dedup.report import state_words
from pipelines.errors import SetupError
from pipelines.takedown.listing import part_keys, read_listed
from pipelines.tokens.locate import PAGE_COLUMNS, locate_token, parse_place

_ID = re.compile("[0-9a-f]{32}")
_ORDER = ("documents", "filters", "signatures", "dedup", "quality", "corpus", "heldout")
_SHOWN = ("documents", "filters", "dedup", "quality", "corpus", "heldout")


@click.command(name="explain")
@click.argument("what")
@with_root
@with_json
def command(what: str, root: str | None, as_json: bool) -> None:
    """Tell what happened to a page: WHAT is its URL or its document id (32 hex).

    A page is looked for by a scan of the latest versions: meant for small datasets.
    SHARD:TOKEN tells whose a token is, RUN@STEP shows the rows of a training step,
    RUN@STEP:ROW the documents of one of them.
    """
    store = open_root(root)
    if step := STEP.fullmatch(what):
        show_step(store, step["run"], int(step["step"]), int(step["row"]) if step["row"] else None, as_json)
        return
    if (place := parse_place(what)) is not None:
        _tell_token(locate_token(store, *place), as_json)
        return
    ids, rows = _find(store, what)
    try:
        seen = [{"document": i, **run} for i in sorted(ids) if _ID.fullmatch(i) for run in show_runs(store, i)]
    except SetupError as error:
        seen = []
        click.echo(f"training runs are not looked at: {error.message} ({error.mend})", err=True)
    if as_json:
        print_json({"root": store.location, "what": what, "found": rows, "runs": seen})
        return
    click.echo(f"root: {store.location}")
    listed = read_listed(store, part_keys(store)).kind_of(what)
    if listed is not None:
        click.echo(f"{visible(what)}: asked to be taken down (its {listed} is on the list; docs/takedown.md)")
    if not rows and listed is None:
        click.echo(
            f"{visible(what)}: no dataset and no ledger knows it. URLs are compared as crawled, letter by letter."
        )
        return
    for row in sorted(rows, key=lambda r: r["role"] != "ledger"):  # the verdict first, then what it rests on
        _show(row)
    for run in seen:
        steps = ", ".join(map(str, run["steps"][:20]))
        click.echo(
            f"\nrun {run['run']}: planned in steps {steps}; {len(run['seen'])} of {len(run['steps'])} are trained"
        )


def _find(store: Store, what: str) -> tuple[set[str], list[dict[str, Any]]]:
    """(the ids that are meant, what each dataset and ledger says of them)."""
    there = [n for n in names_of(store) if not n.startswith("artifacts/")]
    names = [n for n in _ORDER if n in there and n in _SHOWN] + [n for n in there if n not in _ORDER]
    ids = {what}
    rows: list[dict[str, Any]] = []
    for name in names:
        dataset = open_dataset(store, name)
        for wanted in sorted(ids):
            for row in dataset.explain(wanted):
                if row not in rows:
                    rows.append(row)
        ids |= {r["id"] for r in rows if r.get("id") and r["dataset"] == "documents"}
    return ids, rows


def _tell_token(row: dict[str, Any], as_json: bool) -> None:
    if as_json:
        print_json(row)
        return
    click.echo(f"token {row['token']} of {row['shard']} ({row['dataset']} v{row['version']}, cell {row['cell']})")
    if row["id"] is None:
        click.echo(f"padding: {row['tokens']} places from token {row['first_token']} on hold no document")
        return
    click.echo(
        f"is number {row['offset_in_document']} of {row['tokens']} of document {row['id']}, "
        f"row {row['row']} of {row['part']}"
    )
    for key in PAGE_COLUMNS:
        if row.get(key) is not None:
            click.echo(clip(f"  {key}: {visible(row[key])}", 160))


def _show(row: dict[str, Any]) -> None:
    dataset, role = row["dataset"], row["role"]
    if role == "ledger":
        click.echo(f"\n{row['verdict']} by {row['stage']}: {row['reason']}")
        if meaning := REASONS.get(row["reason"] or ""):
            click.echo(f"  {meaning}")
        if row["value"] is not None:
            click.echo(
                f"  value {row['value']:g}, threshold {row['threshold'] if row['threshold'] is not None else '-'}"
            )
        for key in ("match", "detail", "excerpt", "url", "id"):
            if row[key]:
                click.echo(clip(f"  {key}: {visible(row[key])}", 160))
        click.echo(clip(f"  in {visible(row['file'])} at byte {row['offset']}, {row['length']} bytes", 160))
        return
    click.echo(f"\n{dataset}")
    for key, value in row.items():
        if key in ("dataset", "role") or value is None:
            continue
        told = f" ({state_words(value)})" if key == "dedup.state" else ""
        click.echo(clip(f"  {key}: {visible(value)}{told}", 160))
