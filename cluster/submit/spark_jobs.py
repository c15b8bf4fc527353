"""spark-submit of a job in client mode: the driver here, the zip of our code to the executors."""

from __future__ import annotations

import importlib.util
import os
import subprocess
from collections.abc import Sequence
from pathlib import Path

from cluster.submit.submission import check_no_secret, travelling_environment
from cluster.submit.target import Target
from jobs.runtime import environment
from jobs.runtime.java import find_java, java_home
from jobs.runtime.package import Package
from jobs.runtime.spark_session import spark_settings, write_conf_dir
from pipelines.errors import SetupError


def spark_submit_command(
    job: str, arguments: Sequence[str], *, code: Package, target: Target, run_dir: Path
) -> list[str]:
    """The whole command line; everything in it may be seen by all users of this machine."""
    if target.spark_master is None:
        raise SetupError(
            f"the cluster {target.name!r} has no Spark.",
            mend="`gristmill cluster up` starts one, or name it in gristmill.yaml.",
        )
    found = importlib.util.find_spec("pyspark")
    if found is None or found.origin is None:
        raise SetupError("pyspark is not installed.", mend="run `make setup`, or pip install 'gristmill[spark]'.")
    travelling = travelling_environment(os.environ)
    check_no_secret(arguments, travelling)
    settings = {**spark_settings(target.spark_master, run_dir), "spark.app.name": f"gristmill-{job}"}
    settings |= {f"spark.executorEnv.{name}": value for name, value in travelling.items()}
    command = [str(Path(found.origin).parent / "bin" / "spark-submit")]
    command += ["--master", target.spark_master, "--deploy-mode", "client", "--py-files", str(code.path)]
    for name, value in sorted(settings.items()):
        command += ["--conf", f"{name}={value}"]
    return [*command, str(main_file(job)), *arguments]


def main_file(job: str) -> Path:
    """The job's own file: it ends with the line that runs it."""
    return environment.code_root() / "jobs" / f"{job}.py"


def spark_submit(command: Sequence[str], *, target: Target, run_dir: Path) -> int:
    """Run it to its end; returns the job's exit code."""
    environment.raise_open_files()
    run_dir.mkdir(parents=True, exist_ok=True)
    prepared = environment.engine_environment(
        os.environ,
        scratch=run_dir,
        loopback=target.local,
        java_home=java_home(find_java(os.environ), run_dir),
    )
    prepared["SPARK_CONF_DIR"] = str(write_conf_dir(run_dir, os.environ.get("GRISTMILL_SPARK_LOG", "warn")))
    return subprocess.run(list(command), env=prepared, check=False).returncode
