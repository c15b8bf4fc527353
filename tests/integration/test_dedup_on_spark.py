"""Spark and one process give the same content; no text goes through the shuffle."""

import os
import random
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from jobs import dedup_wide
from jobs.dedup_documents import Config, Lsh, run
from jobs.runtime.context import Context
from pipelines.datasets import open_dataset
from pipelines.datasets.store import open_store
from tests.integration.test_engines import executors, standalone
from tests.made_documents import commit_documents, edited, join, prose

pytestmark = pytest.mark.spark


def crawl():
    rng = random.Random(1)
    rows = []
    for i in range(60):
        units = prose(rng, ("zh", "en")[i % 2])
        rows += [{"text": join(units)}, {"text": join(edited(rng, units, i % 12))}]
    rng.shuffle(rows)
    return {f"crawl-{file}": rows[file::6] for file in range(6)}


@pytest.fixture
def spark_context(tmp_path):
    ctx = Context(store=open_store(tmp_path / "spark"), engine="spark", spark_master="local[2,4]")
    yield ctx
    ctx.close()


def test_spark_gives_the_content_of_one_process(tmp_path, spark_context, monkeypatch):
    alone = Context(store=open_store(tmp_path / "alone"), engine="process")
    config = Config(lsh=Lsh(num_bands=20), pairs_per_unit=10)
    for ctx in (alone, spark_context):
        commit_documents(ctx, crawl())
    expected = run(config, alone)
    # Survivors in one task, decisions by groups of clusters that star rounds find.
    monkeypatch.setattr(dedup_wide, "FINISH_SHARE", 0)
    pairs = expected[1].stats["pairs"]
    made = run(replace(config, links_per_task=pairs["verified"]), spark_context)
    assert [manifest.content_sum for manifest in made] == [manifest.content_sum for manifest in expected]
    assert pairs["exact"] > 0 and made[1].stats["pairs"]["cluster_sizes"] == pairs["cluster_sizes"]
    assert made[1].stats["pairs"]["star_rounds"] > 0 and made[1].stats["duplicates"] > 30


# What stands in the store when the executor is killed: it is at work on what comes next.
PHASES = {
    "signatures": "signatures/manifests/*.json",
    "first bands": "dedup/work/*/wide/*/steps/copies.json",
    "last bands": "dedup/work/*/wide/*/steps/bands_008.json",
    "edges": "dedup/work/*/wide/*/steps/bands_016.json",
    "comparison": "dedup/work/*/wide/*/steps/edges-1.json",
    "second round": "dedup/work/*/wide/*/marks/removed-1",
}


@pytest.mark.slow
def test_an_executor_killed_in_any_phase_changes_nothing(tmp_path):
    """The shuffle files of the dead executor are gone with it: Spark makes them again, and the sums agree."""
    alone = Context(store=open_store(tmp_path / "alone"), engine="process")
    commit_documents(alone, crawl())
    expected = [manifest.content_sum for manifest in run(config(), alone)]
    cluster = tmp_path / "c"
    with standalone(cluster) as url:
        for phase, pattern in PHASES.items():
            root = tmp_path / phase.replace(" ", "-")
            killed = run_and_kill(root, url, cluster, pattern)
            assert killed, phase
            store = open_store(root)
            found = [open_dataset(store, name).manifest.content_sum for name in ("signatures", "dedup")]
            assert found == expected, phase


def run_and_kill(root, url, cluster, pattern):
    """Whether an executor was killed once the pattern was there; the driver must end well."""
    code = f"from tests.integration.test_dedup_on_spark import on_cluster; on_cluster({str(root)!r}, {url!r})"
    driver = subprocess.Popen([sys.executable, "-c", code], cwd=Path(__file__).parents[2], stderr=subprocess.PIPE)
    killed = False
    deadline = time.monotonic() + 300
    while driver.poll() is None and time.monotonic() < deadline:
        if not killed and any((root / "datasets").glob(pattern)) and (pids := executors(cluster)):
            os.kill(pids[0], signal.SIGKILL)
            killed = True
        time.sleep(0.02)
    _, errors = driver.communicate(timeout=60)
    assert driver.returncode == 0, errors.decode()[-2000:]
    return killed


def config():
    """Three columns of bands after the exact digests, so that there is something left to kill."""
    return Config(lsh=Lsh(num_bands=20), pairs_per_unit=10)


def on_cluster(root, url):
    """The driver of the test above, in a process of its own; nothing is small enough to stay in it."""
    dedup_wide.SMALL_ROUND = -1
    ctx = Context(store=open_store(root), engine="spark", spark_master=url)
    try:
        commit_documents(ctx, crawl())
        run(config(), ctx)
    finally:
        ctx.close()
