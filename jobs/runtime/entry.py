"""One job from the command line, the same for `gristmill run JOB`, spark-submit and `python -m jobs.JOB`.

Each job file ends with a line that calls `job_main`. Here, and only here, arguments and environment are read.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from jobs.runtime.catalog import load_job
from jobs.runtime.config import parse_config, parse_set, read_config_file
from jobs.runtime.context import Context
from jobs.runtime.progress import progress_for
from pipelines.datasets.store import open_store
from pipelines.errors import ConfigError, GristmillError


def default_root() -> str | None:
    """GRISTMILL_ROOT, or `root:` in ./gristmill.yaml."""
    if root := os.environ.get("GRISTMILL_ROOT"):
        return root
    path = Path("gristmill.yaml")
    if path.is_file():
        return read_config_file(path)[1].get("root")
    return None


def job_main(name: str, arguments: Sequence[str] | None = None) -> None:
    """Run one job and leave with its exit code."""
    parser = argparse.ArgumentParser(prog=name, description=load_job(name).__doc__)
    parser.add_argument("--root", default=None, help="folder or s3://bucket/prefix")
    parser.add_argument("--config", action="append", default=[], help="YAML file of settings")
    parser.add_argument("--set", action="append", default=[], dest="sets", metavar="KEY=VALUE")
    parser.add_argument("--engine", choices=("process", "spark", "ray"), default=None)
    parser.add_argument("--single-writer", action="store_true", help="the store cannot create-only; nobody else writes")
    parser.add_argument("--log-json", action="store_true", help="log to stderr as JSON lines")
    options = parser.parse_args(arguments)
    try:
        root = options.root or default_root()
        if root is None:
            raise ConfigError("no root is given", mend="--root FOLDER|s3://bucket/prefix, or GRISTMILL_ROOT")
        module = load_job(name)
        sources = [read_config_file(Path(p)) for p in options.config] + [parse_set(s) for s in options.sets]
        config, _ = parse_config(module.Config, sources)
        context = Context(
            store=open_store(root),
            engine=options.engine or module.ENGINE,
            progress=progress_for(sys.stderr, as_json=options.log_json),
            spark_master=os.environ.get("GRISTMILL_SPARK_MASTER"),
            ray_address=os.environ.get("GRISTMILL_RAY_ADDRESS"),
            single_writer=options.single_writer,
        )
        try:
            context.prepare()
            module.run(config, context)
        finally:
            context.close()
    except GristmillError as e:
        sys.stderr.write(f"{name}: {e}\n")
        sys.exit(e.exit_code)
    except KeyboardInterrupt:
        sys.stderr.write(f"{name}: interrupted; the same command goes on where it stopped\n")
        sys.exit(130)
