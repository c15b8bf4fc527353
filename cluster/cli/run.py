"""`gristmill run RECIPE|JOB`: the same command begins, goes on, and finds everything finished."""

from __future__ import annotations

import json
import sys
import textwrap
import time
from pathlib import Path
from typing import Any

import click

from cluster.cli.options import find_root, print_json, with_json, with_root
from jobs.runtime.catalog import JOBS
from jobs.runtime.config import parse_set, read_config_file
from jobs.runtime.context import Context
from jobs.runtime.progress import progress_for
from jobs.runtime.recipe import Outcome, Step, config_of, read_recipe, run_steps, select_steps
from pipelines.datasets.store import open_store
from pipelines.errors import ConfigError


@click.command(name="run")
@click.argument("what")
@with_root
@click.option("--crawl", metavar="PATTERN", help="Crawl files: path/*.warc.gz or s3://bucket/prefix/*.warc.gz.")
@click.option("--from", "first", metavar="JOB", help="Begin with this job of the recipe.")
@click.option("--to", "last", metavar="JOB", help="End after this job.")
@click.option("--only", metavar="JOB", help="Only this job.")
@click.option("--config", "files", multiple=True, type=click.Path(), help="YAML: settings, by job for a recipe.")
@click.option("--set", "sets", multiple=True, metavar="KEY=VALUE", help="lsh.num_bands=20; in a recipe JOB.KEY=VALUE.")
@click.option("--engine", type=click.Choice(["process", "spark", "ray"]), help="Instead of the job's own engine.")
@click.option("--spark-master", metavar="URL", help="Instead of local[*].")
@click.option("--ray-address", metavar="HOST:PORT", help="Instead of a Ray of our own.")
@click.option(
    "--single-writer",
    is_flag=True,
    help="For a store without create-only puts: you promise to run one job at a time.",
)
@click.option("--log-json", is_flag=True, help="Log to stderr as JSON lines.")
@click.option("--dry-run", is_flag=True, help="Print jobs, settings, plan of training; do nothing.")
@with_json
def command(
    what: str,
    root: str | None,
    crawl: str | None,
    first: str | None,
    last: str | None,
    only: str | None,
    files: tuple[str, ...],
    sets: tuple[str, ...],
    engine: str | None,
    spark_master: str | None,
    ray_address: str | None,
    single_writer: bool,
    log_json: bool,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Run a recipe (`local`) or one job. Repeating the command goes on where it stopped."""
    sources = [read_config_file(Path(f)) for f in files] + [parse_set(s) for s in sets]
    if what in JOBS:
        steps, overrides = [Step(job=what)], {what: _merge(sources)}
    else:
        steps = select_steps(read_recipe(what), first=first, last=last, only=only)
        overrides = _by_job(sources, [s.job for s in steps])
    if crawl is not None:
        if any(s.job == "extract_crawl" for s in steps):
            overrides.setdefault("extract_crawl", {})["crawl"] = crawl
        elif what in JOBS:
            raise ConfigError(f"{what} reads no crawl", mend="leave --crawl out")
    location = find_root(root)
    progress = progress_for(sys.stderr, as_json=log_json)
    if dry_run:
        _dry_run(steps, overrides, Context(store=open_store(location), progress=progress), as_json=as_json)
        return
    context = Context(
        store=open_store(location),
        progress=progress,
        spark_master=spark_master,
        ray_address=ray_address,
        single_writer=single_writer,
    )
    begun = time.monotonic()
    progress.say(f"root: {context.root}")
    try:
        outcomes = run_steps(
            context, steps, overrides, engine=engine, report=lambda step: progress.say(f"\n{step.job}")
        )
    finally:
        context.close()
    seconds = time.monotonic() - begun
    if as_json:
        print_json({"root": context.root, "seconds": round(seconds, 1), "jobs": [_outcome(o) for o in outcomes]})
    elif what not in JOBS:
        from cluster.cli.summary import show_summary

        show_summary(context.store, outcomes, seconds)
        _remember_root(location)


def _dry_run(steps: list[Step], overrides: dict[str, Any], context: Context, *, as_json: bool) -> None:
    """The jobs and their settings; of a training, what its plan would take."""
    import yaml

    from cluster.cli.plan import show_plan
    from jobs.runtime.cost import Request, plan_job

    told = []
    try:
        for step in steps:
            config = config_of(step, overrides.get(step.job, {}))
            settings = {**step.settings, **overrides.get(step.job, {})}
            told.append({"job": step.job, "settings": settings})
            if not as_json:
                click.echo(f"{step.job}:")
                if settings:
                    text = yaml.safe_dump(settings, allow_unicode=True, sort_keys=False)
                    click.echo(textwrap.indent(text, "  "), nl=False)
            if step.job == "pretrain":
                gpus = config.num_workers if config.use_gpu else None
                plan = plan_job(step.job, config, context, Request(gpus=gpus))
                told[-1]["plan"] = plan.body()
                if not as_json:
                    show_plan(plan)
                    click.echo()
    finally:
        context.close()
    if as_json:
        print_json({"jobs": told})


def _remember_root(location: str) -> None:
    """Note the root in ./gristmill.yaml, where no root is noted: later commands find it."""
    path = Path("gristmill.yaml")
    try:
        if not path.exists():
            path.write_text(
                f"# where `gristmill` looks for datasets when no --root is given\nroot: {json.dumps(location)}\n"
            )
    except OSError:
        return  # a read-only folder: the next command says --root


def _merge(sources: list[tuple[str, Any]]) -> dict[str, Any]:
    merged: dict[str, Any] = {}
    for _, values in sources:
        _deep(merged, values)
    return merged


def _deep(into: dict[str, Any], values: Any) -> None:
    for key, value in values.items():
        if isinstance(value, dict) and isinstance(into.get(key), dict):
            _deep(into[key], value)
        else:
            into[key] = dict(value) if isinstance(value, dict) else value


def _by_job(sources: list[tuple[str, Any]], jobs: list[str]) -> dict[str, dict[str, Any]]:
    merged = _merge(sources)
    for key, value in merged.items():
        if key not in JOBS:
            raise ConfigError(
                f"{key!r} is no job of this recipe",
                mend=f"--set JOB.KEY=VALUE, with JOB one of {', '.join(jobs)}",
            )
        if not isinstance(value, dict):
            raise ConfigError(f"{key}={value!r}: give a setting of the job", mend=f"--set {key}.KEY=VALUE")
    return merged


def _outcome(o: Outcome) -> dict[str, Any]:
    return {
        "job": o.job,
        "seconds": round(o.seconds, 2),
        "outputs": [
            {"name": m.name, "version": m.version, "rows": m.part_list["rows"], "content_sum": m.content_sum}
            for m in o.manifests
        ],
    }
