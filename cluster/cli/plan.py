"""`gristmill plan JOB`: what a job will cost, from a sample of its input, before anything dear starts."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from cluster.cli.options import find_root, print_json, print_table, size, with_json, with_root
from jobs.runtime.catalog import check_job, load_job
from jobs.runtime.config import parse_config, parse_set, read_config_file
from jobs.runtime.context import Context
from jobs.runtime.cost import Figure, Plan, Request, plan_job
from jobs.runtime.progress import progress_for
from pipelines.datasets.store import open_store
from pipelines.errors import ConfigError

_MEANING = {
    "input": "bytes to read",
    "units": "pieces of input, each restartable",
    "records": "records to look at",
    "cpu": "processor time, all processes together",
    "start": "of which workers need once: imports, models",
    "wall": "time on the cores asked for",
    "documents": "rows to write",
    "tokens": "BOS and EOS included",
    "shuffle": "bytes from executor to executor",
    "output": "bytes to write",
    "read": "bytes that all steps read",
    "written": "bytes that all steps write",
    "sketch": "in memory, of each process that counts",
    "reads": "requests that read, on an object store",
    "writes": "requests that write, on an object store",
    "memory": "all worker processes together",
}


@click.command(name="plan")
@click.argument("job")
@click.option("--crawl", metavar="PATTERN", help="Crawl files: path/*.warc.gz or s3://bucket/prefix/*.warc.gz.")
@click.option("--config", "files", multiple=True, type=click.Path(), help="YAML file of settings.")
@click.option("--set", "sets", multiple=True, metavar="KEY=VALUE", help="A setting of the job.")
@click.option("--cores", type=click.IntRange(1), help="Cores to run on; default: those of this machine.")
@click.option("--fraction", default=0.01, show_default=True, help="Share of the input to sample.")
@with_root
@with_json
def command(
    job: str,
    crawl: str | None,
    files: tuple[str, ...],
    sets: tuple[str, ...],
    cores: int | None,
    fraction: float,
    root: str | None,
    as_json: bool,
) -> None:
    """Tell what JOB will cost: time, memory, output, requests. Runs a sample, writes nothing."""
    module = load_job(check_job(job))
    sources = [read_config_file(Path(f)) for f in files] + [parse_set(s) for s in sets]
    if crawl is not None:
        if job != "extract_crawl":
            raise ConfigError(f"{job} reads no crawl", mend="leave --crawl out")
        sources.append(("--crawl", {"crawl": crawl}))
    config, _ = parse_config(module.Config, sources)
    context = Context(store=open_store(find_root(root)), progress=progress_for(sys.stderr))
    try:
        plan = plan_job(job, config, context, Request(fraction=fraction, cores=cores or context.cores))
    finally:
        context.close()
    if as_json:
        print_json(plan.body())
    else:
        _show(plan)


def _show(plan: Plan) -> None:
    sample = plan.sample
    click.echo(f"{plan.job}: predicted from {sample['records']} records, {100 * sample['fraction']:.1f}% of the input")
    rows = [[name, _told(figure), _error(figure), _MEANING.get(name, "")] for name, figure in plan.figures.items()]
    print_table(["what", "about", "within", ""], rows)
    for note in plan.notes:
        click.echo(note)


def _told(figure: Figure) -> str:
    if figure.unit == "B":
        return size(figure.value)
    if figure.unit == "s":
        return f"{figure.value:.0f} s" if figure.value < 600 else f"{figure.value / 3600:.2f} h"
    return f"{figure.value:,.0f}"


def _error(figure: Figure) -> str:
    return "" if not figure.error else f"{100 * figure.error:.0f}%"
