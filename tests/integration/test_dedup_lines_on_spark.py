"""Spark and one process mark the same lines and substrings, whoever is killed meanwhile."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from jobs import dedup_lines, dedup_substrings
from jobs.runtime.context import Context
from pipelines.datasets import open_dataset
from pipelines.datasets.store import open_store
from tests.faults.kill_driver import CHECKOUT, kill_when
from tests.integration.test_engines import executors, standalone
from tests.made_documents import commit_documents, join, prose

NOTICE = "Notice: all of this is reprinted by the kind permission of its owner."


def crawl():
    rng = random.Random(1)
    shared = [join(prose(rng, "en", 60)) for _ in range(4)]
    rows = []
    for i in range(60):
        own = join(prose(rng, ("zh", "en")[i % 2]))
        rows.append({"text": f"{own}\n{shared[i % 4] if i % 3 else ''}\n{NOTICE if i % 2 else own[:70]}"})
    return {f"crawl-{file}": rows[file::6] for file in range(6)}


LINES = {"dedup": "", "min_count": 20}
SUBSTRINGS = {"dedup": ""}
FINELY = {"bytes_per_step": 1}
FINELY_TOO = {"bytes_per_step": 1, "windows_per_partition": 50}
# What stands in the store when somebody is killed: the work is on what comes next.
PHASES = {
    "line_digests": ["line_digests/work/*/done/*"],
    "lines": [
        f"lines/work/*/wide/*/{made}" for made in ("sketches-*/*", "candidates-*.json", "counts-*/*", "frequent/*")
    ],
    "substrings": [
        f"substrings/work/*/wide/*/{made}" for made in ("sketches-*/*", "candidates-*.json", "windows-*/*", "repeats/*")
    ],
}


def expected(folder):
    """The content of an unbroken run by one process, by dataset; each step is one task there."""
    alone = Context(store=open_store(folder), engine="process")
    commit_documents(alone, crawl())
    dedup_lines.run(dedup_lines.Config(**LINES), alone)
    (substrings,) = dedup_substrings.run(dedup_substrings.Config(**SUBSTRINGS), alone)
    assert substrings.stats["windows"]["partitions"] == 1
    return sums(folder)


def both(ctx):
    lines = dedup_lines.run(dedup_lines.Config(**LINES, **FINELY), ctx)
    substrings = dedup_substrings.run(dedup_substrings.Config(**SUBSTRINGS, **FINELY_TOO), ctx)
    assert lines[1].stats["changed"] == 29 and substrings[0].stats["changed"] > 30
    assert substrings[0].stats["windows"]["partitions"] > 1


def sums(folder):
    store = open_store(folder)
    return {name: open_dataset(store, name).manifest.content_sum for name in PHASES}


@pytest.fixture
def spark_context(tmp_path):
    ctx = Context(store=open_store(tmp_path / "spark"), engine="spark", spark_master="local[2,4]")
    yield ctx
    ctx.close()


@pytest.mark.spark
def test_spark_gives_the_content_of_one_process(tmp_path, spark_context):
    commit_documents(spark_context, crawl())
    both(spark_context)
    assert sums(tmp_path / "spark") == expected(tmp_path / "alone")


@pytest.mark.spark
@pytest.mark.slow
def test_an_executor_killed_in_every_phase_changes_nothing(tmp_path):
    """One run of both jobs, in which nine executors die one after the other."""
    cluster, root = tmp_path / "c", tmp_path / "root"
    left = [(name, f"datasets/{pattern}") for name, patterns in PHASES.items() for pattern in patterns]
    with standalone(cluster) as url:
        code = f"from tests.integration.test_dedup_lines_on_spark import on_cluster; on_cluster({str(root)!r}, {url!r})"
        driver = subprocess.Popen([sys.executable, "-c", code], cwd=CHECKOUT, stderr=subprocess.PIPE)
        deadline = time.monotonic() + 300
        while driver.poll() is None and time.monotonic() < deadline:
            if left and any(root.glob(left[0][1])) and (pids := executors(cluster)):
                name, pattern = left.pop(0)
                os.kill(pids[0], signal.SIGKILL)
                assert not any(root.glob(f"datasets/{name}/manifests/*.json")), f"{pattern}: came too late"
            time.sleep(0.01)
        _, errors = driver.communicate(timeout=60)
        assert driver.returncode == 0, errors.decode()[-2000:]
    assert not left
    assert sums(root) == expected(tmp_path / "alone")


def on_cluster(root, url):
    """The driver of the test above, in a process of its own."""
    ctx = Context(store=open_store(Path(root)), engine="spark", spark_master=url)
    try:
        commit_documents(ctx, crawl())
        both(ctx)
    finally:
        ctx.close()


def test_a_driver_killed_in_every_phase_of_substrings_changes_nothing(tmp_path):
    root = tmp_path / "root"
    wanted = expected(tmp_path / "alone")
    commit_documents(Context(store=open_store(root), engine="process"), crawl())
    settings = [f"--set={name}={value}" for name, value in (SUBSTRINGS | FINELY_TOO).items()]
    line = [sys.executable, "-m", "jobs.dedup_substrings", "--root", str(root), "--engine", "process", *settings]
    for pattern in PHASES["substrings"]:
        assert kill_when(root, line, f"datasets/{pattern}"), pattern
    done = subprocess.run(line, cwd=CHECKOUT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    made = open_dataset(open_store(root), "substrings").manifest
    assert made.content_sum == wanted["substrings"] and made.version == 1
    assert not list(root.glob("datasets/substrings/work/**/*.parquet"))
