"""What `gristmill explain RUN@STEP[:ROW]` shows, and in which steps of the runs a document was read."""

from __future__ import annotations

import re
from dataclasses import asdict
from typing import Any

import click

from cluster.cli.options import clip, print_json, print_table, visible
from pipelines.datasets.parts import read_parquet
from pipelines.datasets.store import Store
from pipelines.errors import InputError, SetupError

STEP = re.compile(r"(?P<run>[A-Za-z0-9._-]+)@(?P<step>[0-9]+)(?::(?P<row>[0-9]+))?")


def show_step(store: Store, run: str, step: int, row: int | None, as_json: bool) -> None:
    """The rows of a step, or the documents of one row of it with their addresses."""
    found = _provenance(store, run)
    positions = found.positions(step).tolist()
    if row is not None and row >= len(positions):
        raise InputError(f"step {step} has rows 0 to {len(positions) - 1}, not {row}")
    chosen = positions if row is None else [positions[row]]
    rows = [
        {"row": positions.index(p), "position": p, "documents": [asdict(d) for d in found.documents(p)]} for p in chosen
    ]
    if row is not None:
        for document in rows[0]["documents"]:
            document |= _place(store, document["part"], document["row"])
    if as_json:
        print_json({"run": run, "step": step, "rows": rows})
        return
    click.echo(f"run {run}, step {step}: positions {positions[0]} to {positions[-1]}")
    if row is None:
        table = [[r["row"], r["position"], r["documents"][0]["cell"], len(r["documents"])] for r in rows]
        print_table(["row", "position", "cell", "documents"], table)
        click.echo(f"`gristmill explain {run}@{step}:ROW` names the documents of a row")
        return
    for document in rows[0]["documents"]:
        whole = f"{document['document_first']}..{document['document_first'] + document['tokens'] - 1}"
        click.echo(
            f"\ntokens {document['first']}..{document['first'] + document['tokens'] - 1}: document {document['id']}"
        )
        click.echo(f"  its tokens {whole} of {document['document_tokens']}, cell {visible(document['cell'])}")
        for key in ("url", "file"):
            if document.get(key):
                click.echo(clip(f"  {key}: {visible(document[key])}", 160))


def show_runs(store: Store, document: str) -> list[dict[str, Any]]:
    """For each run whose plan reads the document: its steps, and how many of them are done."""
    shown = []
    for run in sorted({o.key.split("/")[1] for o in store.list("runs/") if "/log/" in o.key}):
        found = _provenance(store, run)
        planned = sorted({place["step"] for place in found.steps_of(document)} - {None})
        if planned:
            shown.append({"run": run, "steps": planned, "seen": [s for s in planned if s <= found.done]})
    return shown


def _provenance(store: Store, run: str) -> Any:
    try:
        from training.data.provenance import Provenance
        from training.run_log import RunLog
    except ImportError as error:
        raise SetupError(f"the order of a run needs {error.name}", mend="pip install 'gristmill[text]'") from None
    state = RunLog(store, run).state
    if state.plan is None:
        raise InputError(f"no run {run!r} in {store.location}", mend="`gristmill runs ls` shows what is there")
    return Provenance(store, state.plan, done=(state.checkpoint or {}).get("step", 0))


def _place(store: Store, part: str, row: int) -> dict[str, Any]:
    """Address and place in the crawl of a row of a corpus part."""
    table = read_parquet(store.get(part), ["url", "file", "offset"]).slice(row, 1).to_pylist()
    return table[0] if table else {}
