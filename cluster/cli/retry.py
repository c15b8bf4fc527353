"""`gristmill retry DATASET --reason R`: try again the records that one reason cost, and nothing else."""

from __future__ import annotations

import sys
from typing import Any

import click

from cluster.cli.options import clip, find_root, print_json, print_table, with_json, with_root
from jobs.runtime.config import parse_set
from jobs.runtime.context import Context
from jobs.runtime.progress import progress_for
from pipelines.datasets.store import open_store


@click.command(name="retry")
@click.argument("dataset")
@click.option("--reason", required=True, help="Reason in the ledger, for example page_time.")
@click.option("--crawl", metavar="PATTERN", help="Where the crawl lies now, if it moved.")
@click.option("--set", "sets", multiple=True, metavar="KEY=VALUE", help="A setting, for example page_seconds=60.")
@click.option(
    "--engine", type=click.Choice(["process", "spark", "ray"]), default="process", show_default=True, help="Engine."
)
@click.option("--spark-master", metavar="URL", help="Instead of local[*].")
@click.option("--single-writer", is_flag=True, help="For a store without create-only puts.")
@click.option("--dry-run", is_flag=True, help="Tell what would be tried again; write nothing.")
@with_root
@with_json
def command(
    dataset: str,
    reason: str,
    crawl: str | None,
    sets: tuple[str, ...],
    engine: str,
    spark_master: str | None,
    single_writer: bool,
    dry_run: bool,
    root: str | None,
    as_json: bool,
) -> None:
    """Try again the records of DATASET that were lost to a reason, as a new version.

    Records are read again where the ledger says they lie. What comes out well is added, what does not keeps its row,
    and everything else stays as it is. Settings that would change other records are refused.
    """
    from jobs.runtime.retry import retry

    overrides: dict[str, Any] = {}
    for text in sets:
        overrides.update(parse_set(text)[1])
    if crawl is not None:
        overrides["crawl"] = crawl
    context = Context(
        store=open_store(find_root(root)),
        engine=engine,
        spark_master=spark_master,
        single_writer=single_writer,
        progress=progress_for(sys.stderr),
    )
    try:
        if not dry_run:
            context.prepare()
        found = retry(context, dataset, reason, overrides, dry_run=dry_run)
    finally:
        context.close()
    if as_json:
        print_json(
            {
                "root": context.root,
                "dataset": found.dataset,
                "version": found.version,
                "reason": found.reason,
                "records": found.records,
                "settled": found.settled,
                "dry_run": dry_run,
                "units": [{"input": name, "records": n} for name, n in found.units],
            }
        )
        return
    click.echo(f"root: {context.root}")
    if not found.records:
        click.echo(f"{dataset} v{found.version} lost no record to {reason}: nothing to do")
        return
    click.echo(f"{found.records} records of {dataset} were lost to {reason}")
    if dry_run:
        print_table(["records", "in"], [[n, name] for name, n in found.units[:20]])
        if len(found.units) > 20:
            click.echo(f"... and in {len(found.units) - 20} more pieces of input (--json lists all)")
        click.echo("nothing was written; leave --dry-run out to try them again")
        return
    if not found.settled:
        click.echo(f"each ended as before: {dataset} v{found.version} stays")
        return
    click.echo(clip(f"{found.settled} of them ended otherwise: {dataset} is v{found.version} now", 80))
    for manifest in found.manifests:
        click.echo(f"  {manifest.name} v{manifest.version}: {manifest.part_list['rows']} rows")
