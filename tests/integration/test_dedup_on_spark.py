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

from jobs import dedup_exchange, dedup_wide
from jobs.dedup_documents import Config, Lsh, run
from jobs.runtime.context import Context
from pipelines.datasets import open_dataset
from pipelines.datasets.store import open_store
from tests.integration.test_engines import executors, standalone
from tests.made_documents import commit_documents, edited, join, prose

pytestmark = pytest.mark.spark


def crawl(files=6):
    """{input: rows} of so many files; ten pages were captured twice. The rows are the same however they are cut."""
    rng = random.Random(1)
    rows = []
    for i in range(60):
        units = prose(rng, ("zh", "en")[i % 2])
        rows += [{"text": join(units)}, {"text": join(edited(rng, units, i % 12))}]
        if i % 6 == 5:  # alike in part only, which takes more than a round
            rows += [{"text": join(edited(rng, units, 7))} for _ in range(5)]
    rng.shuffle(rows)
    for i, row in enumerate(rows):
        made = {"id": f"{i:032x}", "file": "f", "offset": i, "date": f"2026-01-01T00:{i % 60:02d}:00Z"}
        row |= made | {"url": f"https://site.example/{i % 150}"}
    return {f"crawl-{file}": rows[file::files] for file in range(files)}


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


@pytest.mark.parametrize(("files", "target_bytes", "pairs_per_unit"), [(1, 64 << 20, 5000), (9, 2048, 3)])
def test_however_the_work_is_cut_spark_gives_the_same_content(
    tmp_path, spark_context, monkeypatch, files, target_bytes, pairs_per_unit
):
    """One part and as few targets as there may be; or nine parts, dozens of targets and a task for three pairs."""
    alone = Context(store=open_store(tmp_path / "alone"), engine="process")
    commit_documents(alone, crawl())
    expected = [manifest.content_sum for manifest in run(config(), alone)]
    commit_documents(spark_context, crawl(files))
    monkeypatch.setattr(dedup_wide, "SMALL_ROUND", -1)
    monkeypatch.setattr(dedup_exchange, "TARGET_BYTES", target_bytes)
    made = run(replace(config(), pairs_per_unit=pairs_per_unit), spark_context)
    assert [manifest.content_sum for manifest in made[:2]] == expected[:2]
    assert compared(spark_context.store) == compared(alone.store)  # which tell the parts, too


def compared(store):
    """What was compared with what, and what came of it, without the places of the documents."""
    columns = ["place", "tie", "other_place", "other_tie", "similarity", "round", "alike"]
    return sorted(map(str, open_dataset(store, "dedup_pairs").to_arrow(columns).to_pylist()))


# What stands in the store when the executor is killed: it is at work on what comes next.
WIDE = "dedup/work/*/wide/*"
PHASES = {
    "signatures": "documents/manifests/*.json",
    "captures": "signatures/manifests/*.json",
    "exact copies": f"{WIDE}/steps/captures.json",
    "first bands": f"{WIDE}/steps/copies.json",
    "last bands": f"{WIDE}/steps/bands_008.json",
    "edges": f"{WIDE}/steps/bands_016.json",
    "comparison": f"{WIDE}/steps/edges-1.json",
    "second round": f"{WIDE}/marks/removed-1",
    "star rounds": f"{WIDE}/marks/removed-3",
    "groups": f"{WIDE}/steps/decide-large-1.json",
    "decisions": f"{WIDE}/steps/decide-groups.json",
    "annotations": f"{WIDE}/report.json",
}


@pytest.mark.slow
@pytest.mark.parametrize("first", [0, 1])
def test_an_executor_killed_in_any_phase_changes_nothing(tmp_path, first):
    """One in every second phase of a run. The shuffle files of the dead are gone with them: Spark makes them again."""
    alone = Context(store=open_store(tmp_path / "alone"), engine="process")
    commit_documents(alone, crawl())
    made = run(config(), alone)
    assert made[1].stats["pairs"]["urls"] > 5 and made[1].stats["pairs"]["by_round"][1] > 0
    phases = dict(list(PHASES.items())[first::2])
    root = tmp_path / "root"
    with standalone(tmp_path / "c") as url:
        assert run_and_kill(root, url, tmp_path / "c", phases) == list(phases)
    store = open_store(root)
    found = {manifest.name: open_dataset(store, manifest.name).manifest for manifest in made}
    assert {name: m.content_sum for name, m in found.items()} == {m.name: m.content_sum for m in made}
    assert gone(store) == gone(alone.store) and found["dedup"].stats["pairs"]["star_rounds"] > 0


def gone(store):
    """Ids of the documents that are marked to leave."""
    return {row["id"] for row in open_dataset(store, "dedup").to_arrow().to_pylist() if not row["dedup.keep"]}


def run_and_kill(root, url, cluster, phases):
    """The phases in which an executor was killed, each once what marks it was there; the driver must end well."""
    code = f"from tests.integration.test_dedup_on_spark import on_cluster; on_cluster({str(root)!r}, {url!r})"
    driver = subprocess.Popen([sys.executable, "-c", code], cwd=Path(__file__).parents[2], stderr=subprocess.PIPE)
    killed = []
    deadline = time.monotonic() + 400
    while driver.poll() is None and time.monotonic() < deadline:
        waiting = [phase for phase in phases if phase not in killed]
        if waiting and any((root / "datasets").glob(phases[waiting[0]])) and (pids := executors(cluster)):
            os.kill(pids[0], signal.SIGKILL)
            killed.append(waiting[0])
        time.sleep(0.02)
    _, errors = driver.communicate(timeout=60)
    assert driver.returncode == 0, errors.decode()[-2000:]
    return killed


def config():
    """Captures, and three columns of bands after the exact digests, so that there is something left to kill."""
    return Config(lsh=Lsh(num_bands=20, rows_per_band=4), urls="latest", pairs_per_unit=10)


def on_cluster(root, url):
    """The driver of the test above: nothing stays in its process, and clusters are found by star rounds."""
    dedup_wide.SMALL_ROUND = -1
    dedup_wide.FINISH_SHARE = 0
    ctx = Context(store=open_store(root), engine="spark", spark_master=url)
    try:
        commit_documents(ctx, crawl())
        run(replace(config(), links_per_task=70), ctx)  # more than are verified, fewer than with copies
    finally:
        ctx.close()
