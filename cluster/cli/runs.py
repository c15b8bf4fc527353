"""`gristmill runs`: training runs; their state is the fold over their chain, no server is asked."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import click

from cluster.cli import runs_change, runs_export
from cluster.cli.options import find_root, open_root, print_json, print_table, visible, with_json, with_root
from pipelines.datasets.store import Store
from pipelines.errors import InputError


@click.group(name="runs")
def command() -> None:
    """Training runs of a root."""


def run_names(store: Store) -> list[str]:
    """Runs that have a chain or a submission."""
    return sorted({o.key.split("/")[1] for o in store.list("runs/") if o.key.count("/") >= 2})


def run_summary(store: Store, name: str) -> dict[str, Any]:
    """State, attempt, newest checkpoint: from the chain alone."""
    from training.run_log import RunLog

    state = RunLog(store, name).state
    if state.finished is not None:
        word = "finished"
    elif state.stop_requested:
        word = "stopping or stopped"
    elif state.attempt:
        word = "begun"
    else:
        word = "submitted"
    return {
        "run": name,
        "state": word,
        "attempt": state.attempt,
        "by": state.attempt_by,
        "checkpoint": state.checkpoint,
        "finished": state.finished,
        "plan_revision": state.revision,
    }


@command.command()
@with_root
@with_json
def ls(root: str | None, as_json: bool) -> None:
    """List runs."""
    store = open_root(root)
    found = [run_summary(store, name) for name in run_names(store)]
    if as_json:
        print_json({"root": store.location, "runs": found})
        return
    click.echo(f"root: {store.location}")
    if not found:
        click.echo("no run here yet: `gristmill run pretrain` or `gristmill submit pretrain` makes one")
        return
    rows = [[r["run"], r["state"], r["attempt"], (r["checkpoint"] or {}).get("step")] for r in found]
    print_table(["run", "state", "attempt", "newest checkpoint at step"], rows)


@command.command()
@click.argument("name")
@with_root
@with_json
def show(name: str, root: str | None, as_json: bool) -> None:
    """Show a run: every entry of its chain, and its submissions."""
    from pipelines.datasets.chain import Chain

    store = open_root(root)
    if name not in run_names(store):
        raise InputError(f"no run {name!r} in {store.location}", mend="`gristmill runs ls` shows what is there")
    entries = list(Chain(store, f"runs/{name}/log").entries())
    if as_json:
        print_json({**run_summary(store, name), "entries": [{"number": n, **e} for n, e in entries]})
        return
    summary = run_summary(store, name)
    click.echo(f"{name}: {summary['state']}, attempt {summary['attempt']}   root: {store.location}")
    for incident in store.list(f"runs/{name}/incidents/"):
        told = json.loads(store.get(incident.key))
        click.echo(f"  incident {visible(incident.key.rpartition('/')[2])}: {visible(told['message'])}")
        for line in told.get("seen", ()):
            click.echo(f"    {visible(line)}")
    for number, entry in entries:
        click.echo(f"  {number:>4}  {entry.get('at', '')}  {entry['kind']}  {visible(_tell(entry))}")


def _tell(entry: dict[str, Any]) -> str:
    kind = entry["kind"]
    if kind == "attempt":
        return f"{entry['attempt']}: " + ", ".join(f"{k} {v}" for k, v in entry["by"].items())
    if kind == "plan":
        change = f", {entry['note']}" if entry.get("note") else ""
        since = f" from position {entry['from_position']}" if "from_position" in entry else ""
        return f"revision {entry['revision']}{since}, sha256 {entry['sha256'][:12]}{change}"
    if kind == "control":
        return str(entry.get("action"))
    if kind == "retired":
        return "steps " + ", ".join(map(str, entry["steps"]))
    shown = {k: v for k, v in entry.items() if isinstance(v, int | float | str) and k in ("step", "position", "loss")}
    told = ", ".join(f"{k} {v:.4f}" if isinstance(v, float) else f"{k} {v}" for k, v in shown.items())
    return f"{told}, milestone" if entry.get("milestone") else told


@command.command()
@click.argument("name")
@with_root
def stop(name: str, root: str | None) -> None:
    """Ask a run to save a checkpoint and stop at its next step."""
    from training.run_log import request_stop

    store = open_root(root)
    if not request_stop(store, name):
        raise InputError(f"run {name!r} is finished or was never started in {store.location}")
    click.echo(f"{name} will save and stop at its next step; `gristmill runs resume {name}` goes on")


@command.command()
@click.argument("name")
@click.option("--cluster", "cluster_name", default="local", show_default=True, help="A name, see `cluster up`.")
@click.option("--wait", is_flag=True, help="Show the job's log and leave with its outcome.")
@with_root
@with_json
def resume(name: str, cluster_name: str, wait: bool, root: str | None, as_json: bool) -> None:
    """Post a run's stored submission again; it goes on from its newest checkpoint, also on a fresh cluster."""
    from cluster.submit import ray_jobs
    from cluster.submit.target import find_target

    store = open_root(root)
    target = find_target(cluster_name)
    with tempfile.TemporaryDirectory(prefix="gm-") as folder:
        again = ray_jobs.resume(store, name, target=target, folder=Path(folder))
    if as_json:
        print_json({"submission_id": again.submission_id, **ray_jobs.metadata(again, store)})
    else:
        click.echo(f"submitted {again.submission_id} to {target.ray_dashboard}; root {find_root(root)}", err=True)
    if wait:
        ray_jobs.follow(target, again.submission_id, write=lambda text: click.echo(text, nl=False, err=True))


for _changing in (runs_change.amend, runs_change.branch, runs_change.compare, runs_export.export):
    command.add_command(_changing)
