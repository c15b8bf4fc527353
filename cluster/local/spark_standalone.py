"""A Spark standalone Master and its Workers, from the pip package, which has no start scripts for them."""

from __future__ import annotations

import importlib.util
import json
import os
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path

from cluster.local.ports import free_ports
from cluster.local.processes import Daemon, is_running, start_daemon, stop_daemon
from jobs.runtime import environment
from jobs.runtime.java import find_java, java_home
from jobs.runtime.spark_session import write_conf_dir
from pipelines.errors import SetupError


@dataclass(frozen=True, slots=True, kw_only=True)
class SparkStandalone:
    """A Master with its Workers: `master` is what sessions are given, `ui` answers people and `/json/`."""

    master: str
    ui: str
    daemons: tuple[Daemon, ...]


def start_spark(
    folder: Path, *, workers: int = 2, cores: int = 1, memory_gib: int = 1, attempts: int = 3
) -> SparkStandalone:
    """A Master and `workers` Workers on loopback, with logs and work below `folder`."""
    spark_home = _spark_home()
    (folder / "logs").mkdir(parents=True, exist_ok=True)
    prepared = daemon_environment(folder)
    for attempt in range(attempts):
        port, ui_port = free_ports(2)
        log = folder / "logs" / "spark-master.log"
        command = [str(spark_home / "bin" / "spark-class"), "org.apache.spark.deploy.master.Master"]
        command += ["--host", "127.0.0.1", "--port", str(port), "--webui-port", str(ui_port)]
        daemons = [start_daemon("spark-master", command, environment=prepared, log=log)]
        master, ui = f"spark://127.0.0.1:{port}", f"http://127.0.0.1:{ui_port}"
        try:
            _wait_for(ui, daemons, workers=0, log=log)
            for number in range(workers):
                daemons.append(
                    _start_worker(
                        number, folder, spark_home, prepared, master, cores=cores, memory_gib=memory_gib
                    )
                )
            _wait_for(ui, daemons, workers=workers, log=log)
        except SetupError:
            for daemon in daemons:
                stop_daemon(daemon, timeout_s=5)
            if attempt + 1 == attempts:
                raise
        else:
            return SparkStandalone(master=master, ui=ui, daemons=tuple(daemons))
    raise SetupError("no attempt was made to start Spark.", mend="attempts must be at least 1.")


def daemon_environment(folder: Path) -> dict[str, str]:
    """The environment of Master, Workers and their executors: this machine's, without anybody's settings."""
    java = find_java(os.environ)
    prepared = environment.engine_environment(
        os.environ, scratch=folder, java_home=java_home(java, folder)
    ) | {
        "SPARK_CONF_DIR": str(write_conf_dir(folder, "info")),
        "SPARK_DAEMON_MEMORY": "256m",
        "SPARK_MASTER_OPTS": "-Dspark.master.rest.enabled=false",  # a second way in, on a fixed port
        "SPARK_WORKER_OPTS": "-Dspark.worker.cleanup.enabled=true",  # else work/ grows for ever
        "SPARK_NO_DAEMONIZE": "1",
    }
    del prepared["PYTHONPATH"]  # code comes with each submission
    return prepared


def alive_workers(ui: str) -> int:
    """How many Workers the Master counts as alive; -1 where it does not answer."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(f"{ui}/json/", timeout=5) as answer:
            return int(json.load(answer)["aliveworkers"])
    except (OSError, ValueError, KeyError, urllib.error.URLError):
        return -1


def _start_worker(
    number: int,
    folder: Path,
    spark_home: Path,
    prepared: dict[str, str],
    master: str,
    *,
    cores: int,
    memory_gib: int,
) -> Daemon:
    work = folder / "spark-work" / str(number)
    work.mkdir(parents=True, exist_ok=True)
    command = [str(spark_home / "bin" / "spark-class"), "org.apache.spark.deploy.worker.Worker"]
    command += [
        "--host",
        "127.0.0.1",
        "--cores",
        str(cores),
        "--memory",
        f"{memory_gib}g",
        "--work-dir",
        str(work),
    ]
    command += ["--webui-port", "0", master]
    log = folder / "logs" / f"spark-worker-{number}.log"
    return start_daemon(f"spark-worker-{number}", command, environment=prepared, log=log)


def _wait_for(ui: str, daemons: list[Daemon], *, workers: int, log: Path, timeout_s: float = 120) -> None:
    until = time.monotonic() + timeout_s
    while time.monotonic() < until:
        if alive_workers(ui) >= workers:
            return
        if dead := [daemon.role for daemon in daemons if not is_running(daemon)]:
            raise SetupError(
                f"{dead[0]} ended at start: {_end_of(log)}", mend=f"the logs lie in {log.parent}."
            )
        time.sleep(0.2)
    raise SetupError(
        f"Spark's Master at {ui} did not count {workers} Workers within {timeout_s:.0f} s: {_end_of(log)}",
        mend=f"the logs lie in {log.parent}.",
    )


def _end_of(log: Path) -> str:
    return log.read_text(encoding="utf-8", errors="replace")[-400:].strip() if log.exists() else "no log"


def _spark_home() -> Path:
    found = importlib.util.find_spec("pyspark")
    if found is None or found.origin is None:
        raise SetupError(
            "pyspark is not installed.", mend="run `make setup`, or pip install 'gristmill[spark]'."
        )
    return Path(found.origin).parent
