"""The unit map on real engines: the same content as in-process, also when a worker is killed with -9 half-way."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from jobs.runtime.context import Context
from jobs.runtime.run import run_stage
from pipelines.datasets.store import open_store
from tests.unit.runtime.synthetic import stage, units
from tests.unit.runtime.test_run import contents, unbroken

UNITS = 12


def run_on(engine: str, root: Path, **settings):
    worker = {k: settings.pop(k) for k in ("seconds", "die_at", "die_marker") if k in settings}
    context = Context(store=open_store(root), engine=engine, flush_seconds=0.2, **settings)
    try:
        run_stage(context, stage(**worker), units(UNITS))
    finally:
        context.close()
    return contents(open_store(root))


@pytest.mark.ray
def test_a_killed_ray_actor_is_replaced_and_its_unit_redone(tmp_path):
    marker = tmp_path / "died"
    found = run_on("ray", tmp_path / "root", parallelism=2, die_at="crawl-00005.warc.gz", die_marker=str(marker))
    assert marker.exists()
    assert found == unbroken(UNITS)


@pytest.mark.spark
def test_a_killed_python_worker_of_a_local_spark_costs_one_task_attempt(tmp_path):
    marker = tmp_path / "died"
    found = run_on("spark", tmp_path / "root", die_at="crawl-00005.warc.gz", die_marker=str(marker))
    assert marker.exists()
    assert found == unbroken(UNITS)


@contextmanager
def standalone(folder: Path) -> Iterator[str]:
    """A Master and two Workers of one core each, on loopback; yields the master's URL."""
    import pyspark

    from jobs.runtime import environment
    from jobs.runtime.java import find_java, java_home
    from tests.integration.ports import free_ports

    folder.mkdir()
    port, web = free_ports(2)
    env = environment.engine_environment(os.environ, scratch=folder, java_home=java_home(find_java(os.environ), folder))
    env["SPARK_DAEMON_MEMORY"] = "256m"
    spark_class = str(Path(pyspark.__file__).parent / "bin/spark-class")

    def start(*arguments: str) -> subprocess.Popen[bytes]:
        log = (folder / f"{arguments[0].rpartition('.')[2]}-{time.monotonic_ns()}.log").open("wb")
        return subprocess.Popen([spark_class, *arguments], env=env, stdout=log, stderr=log, start_new_session=True)

    master = "org.apache.spark.deploy.master.Master"
    worker = "org.apache.spark.deploy.worker.Worker"
    url = f"spark://127.0.0.1:{port}"
    processes = [start(master, "--host", "127.0.0.1", "--port", str(port), "--webui-port", str(web))]
    try:
        for i in range(2):
            work = str(folder / f"w{i}")
            limits = ("--cores", "1", "--memory", "1g", "--webui-port", "0")
            processes.append(start(worker, "--host", "127.0.0.1", *limits, "--work-dir", work, url))
        _wait_for_workers(f"http://127.0.0.1:{web}/json/", 2)
        yield url
    finally:
        for p in processes:
            os.killpg(p.pid, signal.SIGTERM)
        for p in processes:
            p.wait(30)


def _wait_for_workers(url: str, wanted: int) -> None:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    for _ in range(240):
        try:
            if json.load(opener.open(url, timeout=5))["aliveworkers"] == wanted:
                return
        except OSError:
            pass
        time.sleep(0.5)
    raise TimeoutError(f"{wanted} workers at {url}")


def executors(folder: Path) -> list[int]:
    """Pids of executor JVMs whose work folder lies here."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = path.read_bytes()
        except OSError:
            continue
        if b"CoarseGrainedExecutorBackend" in line and str(folder) in str((path.parent / "cwd").readlink()):
            found.append(int(path.parent.name))
    return found


@pytest.mark.spark
def test_an_executor_of_a_standalone_cluster_killed_half_way_changes_nothing(tmp_path):
    cluster, root = tmp_path / "c", tmp_path / "root"
    with standalone(cluster) as url:
        script = f"""
import sys
from pathlib import Path
from tests.integration.test_engines import run_on
run_on("spark", Path({str(root)!r}), spark_master={url!r}, seconds=1.0)
"""
        run = subprocess.Popen([sys.executable, "-c", script], cwd=Path(__file__).parents[2], stderr=subprocess.PIPE)
        killed = None
        deadline = time.monotonic() + 240
        while run.poll() is None and time.monotonic() < deadline:
            done = list((root / "datasets/documents/work").glob("*/done/*")) if root.exists() else []
            if done and killed is None and (pids := executors(cluster)):
                killed = pids[0]
                os.kill(killed, signal.SIGKILL)
            time.sleep(0.1)
        _, errors = run.communicate(timeout=60)
        assert run.returncode == 0, errors.decode()[-2000:]
    assert killed is not None
    assert contents(open_store(root)) == unbroken(UNITS)
