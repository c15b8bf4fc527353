"""`gristmill submit JOB`: Spark jobs by spark-submit, Ray jobs by Ray's Jobs API."""

from __future__ import annotations

import os
import shlex
import shutil
import sys
import tempfile
from pathlib import Path

import click

from cluster.cli.options import find_root, print_json, with_json, with_root
from cluster.submit import submission as submissions
from cluster.submit.submission import RAY_JOBS, SPARK_JOBS
from cluster.submit.target import Target, find_target
from jobs.runtime.package import build_package
from pipelines.datasets.store import open_store
from pipelines.errors import ConfigError


@click.command(name="submit")
@click.argument("job", type=click.Choice([*SPARK_JOBS, *RAY_JOBS]))
@with_root
@click.option("--cluster", "cluster_name", default="local", show_default=True, help="A name, see `cluster up`.")
@click.option("--run", help="Run that keeps the submission: for pretrain its run, else the job's name.")
@click.option("--config", "files", multiple=True, type=click.Path(path_type=Path), help="YAML of settings.")
@click.option("--set", "sets", multiple=True, metavar="KEY=VALUE", help="For example lsh.num_bands=20.")
@click.option("--single-writer", is_flag=True, help="The store cannot create-only; nobody else writes.")
@click.option("--wait", is_flag=True, help="Show a Ray job's log and leave with its outcome.")
@click.option("--dry-run", is_flag=True, help="Print what would be submitted; do nothing.")
@with_json
def command(
    job: str,
    root: str | None,
    cluster_name: str,
    run: str | None,
    files: tuple[Path, ...],
    sets: tuple[str, ...],
    single_writer: bool,
    wait: bool,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Send JOB to a cluster."""
    target = Target(name=cluster_name, local=True) if dry_run else find_target(cluster_name)
    place = _absolute(find_root(root), target)
    if job == "pretrain":  # the submission is kept under the run that the job itself writes to
        run = run or submissions.run_of(sets) or "tiny"
        sets = (*sets, f"run={run}")
    arguments = submissions.job_arguments(place, sets=sets, config_files=files, single_writer=single_writer)
    scratch = Path(tempfile.mkdtemp(prefix="gm-"))
    try:
        code = build_package(scratch)
        if dry_run:
            environment = submissions.travelling_environment(os.environ)
            submissions.check_no_secret(arguments, environment)
            shown = {
                "job": job,
                "arguments": list(arguments),
                "environment": environment,
                "code": code.sha256,
            }
            print_json(shown) if as_json else click.echo(
                f"python -m jobs.{job} {shlex.join(arguments)}\ncode: sha256 {code.sha256}"
            )
        elif job in SPARK_JOBS:
            from cluster.submit.spark_jobs import spark_submit, spark_submit_command

            line = spark_submit_command(job, arguments, code=code, target=target, run_dir=scratch)
            sys.exit(spark_submit(line, target=target, run_dir=scratch))
        else:
            _submit_to_ray(job, run or job, place, arguments, target, scratch, wait=wait, as_json=as_json)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _submit_to_ray(
    job: str,
    run: str,
    root: str,
    arguments: tuple[str, ...],
    target: Target,
    scratch: Path,
    *,
    wait: bool,
    as_json: bool,
) -> None:
    from cluster.submit import ray_jobs

    store = open_store(root)
    ray_jobs.connect(target)  # before anything is kept
    submission = submissions.record(
        store,
        run=run,
        job=job,
        arguments=arguments,
        environment=submissions.travelling_environment(os.environ),
        code=build_package(scratch),
        cluster=target.name,
    )
    code = build_package(scratch)
    ray_jobs.post(submission, code, store=store, target=target)
    if as_json:
        print_json({"submission_id": submission.submission_id, **ray_jobs.metadata(submission, store)})
    else:
        click.echo(f"submitted {submission.submission_id} to {target.ray_dashboard}; root {root}", err=True)
        click.echo(f"to go on after a stop: {submissions.resume_command(submission, root)}", err=True)
    if wait:
        ray_jobs.follow(target, submission.submission_id, write=lambda text: click.echo(text, nl=False, err=True))


def _absolute(root: str, target: Target) -> str:
    """A folder as the workers will name it; a folder is no place for workers on other machines."""
    if "://" in root:
        return root
    if not target.local:
        raise ConfigError(
            f"the root {root} is a folder of this machine, and the cluster {target.name} is elsewhere.",
            mend="use --root s3://bucket/prefix.",
        )
    return str(Path(root).resolve())
