"""`gristmill config show JOB`: the whole config with defaults, origins and descriptions."""

from __future__ import annotations

from pathlib import Path

import click

from cluster.cli.options import print_json, visible, with_json
from jobs.runtime.catalog import load_job
from jobs.runtime.config import config_rows, parse_config, parse_set, read_config_file


@click.group(name="config")
def command() -> None:
    """Settings of a job."""


@command.command()
@click.argument("job")
@click.option("--config", "files", multiple=True, type=click.Path(), help="YAML file of settings.")
@click.option("--set", "sets", multiple=True, metavar="KEY=VALUE", help="One setting.")
@with_json
def show(job: str, files: tuple[str, ...], sets: tuple[str, ...], as_json: bool) -> None:
    """Print every setting of JOB: value, where it comes from, what it means."""
    module = load_job(job)
    config, origins = parse_config(module.Config, [*(read_config_file(Path(f)) for f in files), *map(parse_set, sets)])
    rows = config_rows(config, origins)
    if as_json:
        print_json({"job": job, "settings": rows})
        return
    click.echo(f"{job}: {(module.__doc__ or '').strip().splitlines()[0]}\n")
    for row in rows:
        click.echo(
            f"{row['key']}: {visible(row['value'])}" + (f"   [{row['origin']}]" if row["origin"] != "default" else "")
        )
        if row["doc"]:
            click.echo(f"    {row['doc']}")
