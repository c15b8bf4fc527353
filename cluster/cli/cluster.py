"""`gristmill cluster`: Spark standalone and Ray on this machine, loopback only."""

from __future__ import annotations

from dataclasses import asdict

import click

from cluster.cli.options import print_json, print_table, with_json
from cluster.local import state
from cluster.local.processes import is_running
from cluster.local.state import LocalCluster


@click.group(name="cluster")
def command() -> None:
    """Spark and Ray on this machine: up, down, status."""


@command.command()
@click.option("--name", default="local", show_default=True, help="Several may run side by side.")
@click.option("--engine", type=click.Choice(["spark", "ray", "both"]), default="both", show_default=True)
@click.option("--workers", default=2, show_default=True, help="Spark Workers.")
@click.option("--cores", default=1, show_default=True, help="Cores of each Spark Worker.")
@click.option(
    "--memory-gib",
    type=click.IntRange(min=1),
    default=1,
    show_default=True,
    help="Memory of each Spark Worker; an executor takes 1 unless told otherwise.",
)
@click.option("--num-cpus", type=int, help="Slots of Ray; all cores, at least 4.")
@with_json
def up(
    name: str, engine: str, workers: int, cores: int, memory_gib: int, num_cpus: int | None, as_json: bool
) -> None:
    """Start the cluster; what runs already is left as it is."""
    from cluster.local.lifecycle import up as start

    engines = ("spark", "ray") if engine == "both" else (engine,)
    cluster, started = start(
        name, engines=engines, workers=workers, cores=cores, memory_gib=memory_gib, num_cpus=num_cpus
    )
    _show(cluster, as_json, "started" if started else "runs already")


@command.command()
@click.option("--name", default="local", show_default=True)
@with_json
def down(name: str, as_json: bool) -> None:
    """Stop what `up` started, and nothing else."""
    from cluster.local.lifecycle import down as stop

    stopped = stop(name)
    if as_json:
        print_json({"name": name, "stopped": [daemon.role for daemon in stopped.daemons] if stopped else []})
    else:
        click.echo(f"cluster {name}: {'stopped' if stopped else 'none was running'}")


@command.command()
@click.option("--name", default="local", show_default=True)
@with_json
def status(name: str, as_json: bool) -> None:
    """Show addresses and which processes run."""
    found = state.read(name)
    if found is None:
        if as_json:
            print_json({"name": name, "up": False})
        else:
            click.echo(f"cluster {name}: none; `gristmill cluster up` starts it")
        return
    _show(found, as_json, "up" if found.is_up() else "half of it is gone: run `gristmill cluster up` again")


def _show(cluster: LocalCluster, as_json: bool, word: str) -> None:
    if as_json:
        print_json({**asdict(cluster), "up": cluster.is_up()})
        return
    click.echo(f"cluster {cluster.name}: {word}; files in {cluster.folder}")
    rows = [
        ("spark", cluster.spark_master, cluster.spark_ui),
        ("ray", cluster.ray_address, cluster.ray_dashboard),
    ]
    print_table(("engine", "address", "for people"), [row for row in rows if row[1]])
    gone = [daemon.role for daemon in cluster.daemons if not is_running(daemon)]
    if gone:
        click.echo(f"not running: {', '.join(gone)}")
    if cluster.ray_token_path:
        settings = " ".join(f"{key}={value}" for key, value in cluster.client_environment().items())
        click.echo(f"clients of Ray need: {settings}")
    option = "" if cluster.name == "local" else f" --cluster {cluster.name}"
    click.echo(f"next: gristmill submit extract_crawl --root ROOT{option}")
