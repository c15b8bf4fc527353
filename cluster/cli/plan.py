"""`gristmill plan JOB`: what a job will cost, from a sample of its input, before anything dear starts."""

from __future__ import annotations

import sys
import textwrap
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
from training.hardware import GPUS

_MEANING = {
    "input": "bytes to read",
    "units": "pieces of input, each restartable",
    "records": "records to look at",
    "cpu": "processor time, all processes together",
    "start": "of which workers need once: imports, models",
    "wall": "time on the cores asked for",
    "documents": "rows to write",
    "tokens": "BOS and EOS included",
    "operations": "floating point, 6N + 12LHQT a token",
    "checkpoint": "each: masters and moments",
    "read_dollars": "for these requests at S3's list price",
    "tokens_per_s": "the whole cluster, first layout below",
    "dollars": "for all GPUs asked for, idle ones too",
    "shuffle": "bytes from executor to executor",
    "output": "bytes to write",
    "read": "bytes that all steps read",
    "written": "bytes that all steps write",
    "sketch": "in memory, of each process that counts",
    "reads": "requests that read, on an object store",
    "writes": "requests that write, on an object store",
    "memory": "all worker processes together",
    "gpu_memory": "of the fullest GPU, first layout below",
}


@click.command(name="plan")
@click.argument("job")
@click.option("--crawl", metavar="PATTERN", help="Crawl files: path/*.warc.gz or s3://bucket/prefix/*.warc.gz.")
@click.option("--config", "files", multiple=True, type=click.Path(), help="YAML file of settings.")
@click.option("--set", "sets", multiple=True, metavar="KEY=VALUE", help="A setting of the job.")
@click.option("--cores", type=click.IntRange(1), help="Cores to run on; default: those of this machine.")
@click.option("--gpus", type=click.IntRange(1), help="pretrain: GPUs to lay the model out on.")
@click.option("--gpu", metavar="KIND", help=f"pretrain: {', '.join(GPUS)}.")
@click.option("--gpus-per-node", type=click.IntRange(1), default=8, show_default=True)
@click.option("--gpu-dollars", type=float, metavar="PRICE", help="pretrain: dollars a GPU-hour.")
@click.option("--fraction", default=0.01, show_default=True, help="Share of the input to sample.")
@with_root
@with_json
def command(
    job: str,
    crawl: str | None,
    files: tuple[str, ...],
    sets: tuple[str, ...],
    cores: int | None,
    gpus: int | None,
    gpu: str | None,
    gpus_per_node: int,
    gpu_dollars: float | None,
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
        request = Request(
            fraction=fraction,
            cores=cores or context.cores,
            gpus=gpus,
            gpu=gpu,
            gpus_per_node=gpus_per_node,
            gpu_dollars=gpu_dollars,
        )
        plan = plan_job(job, config, context, request)
    finally:
        context.close()
    if as_json:
        print_json(plan.body())
    else:
        show_plan(plan)


def show_plan(plan: Plan) -> None:
    """Figures, tables and notes on the screen."""
    sample = plan.sample
    if sample:
        share = f"{100 * sample['fraction']:.1f}% of the input"
        click.echo(f"{plan.job}: predicted from {sample['records']} records, {share}")
    rows = [[name, _told(figure), _error(figure), _MEANING.get(name, "")] for name, figure in plan.figures.items()]
    print_table(["what", "about", "within", ""], rows)
    for name, table in plan.tables.items():
        click.echo(f"\n{name}")
        print_table(list(table[0]), [[_cell(value) for value in row.values()] for row in table])
    for note in plan.notes:
        click.echo(textwrap.fill(note, 80, subsequent_indent="  ", break_on_hyphens=False))


def _cell(value: object) -> object:
    return {True: "yes", False: "no"}[value] if isinstance(value, bool) else value


def _told(figure: Figure) -> str:
    if figure.unit == "B":
        return size(figure.value)
    if figure.unit == "s":
        hours = figure.value / 3600
        days = f"{hours / 24:,.1f} days" if hours > 72 else f"{hours:.2f} h"
        return f"{figure.value:.0f} s" if figure.value < 600 else days
    if figure.unit == "flop":
        return f"{figure.value:.3g}"
    return f"{figure.value:,.0f}"


def _error(figure: Figure) -> str:
    return "" if not figure.error else f"{100 * figure.error:.0f}%"
