"""The trip on a cluster: Spark jobs by spark-submit, Ray jobs by the Jobs API, and a training run that outlives
its cluster: everything is stopped half-way, a fresh cluster is started, and the stored submission is posted
again.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from jobs.runtime.environment import code_root
from pipelines.datasets import open_dataset
from pipelines.datasets.chain import Chain
from pipelines.datasets.store import open_store

pytestmark = [pytest.mark.spark, pytest.mark.ray, pytest.mark.torch, pytest.mark.slow]

STEPS, CHECKPOINT_EVERY = 60, 10


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    made = {
        **os.environ,
        "XDG_STATE_HOME": str(tmp_path_factory.mktemp("state")),
        "PYTHONPATH": str(code_root()),
    }
    yield made
    gristmill(made, "cluster", "down")


def gristmill(environment: dict[str, str], *arguments: str, timeout_s: float = 600) -> str:
    answer = subprocess.run(
        [sys.executable, "-m", "cluster.cli", *arguments],
        env=environment, cwd=code_root(), capture_output=True, text=True, check=False, timeout=timeout_s,
    )  # fmt: skip
    assert answer.returncode == 0, " ".join(arguments) + "\n" + answer.stdout + answer.stderr
    return answer.stdout


def checkpoints(root: Path, run: str) -> list[dict[str, Any]]:
    entries = [entry for _, entry in Chain(open_store(str(root)), f"runs/{run}/log").entries()]
    return [entry for entry in entries if entry["kind"] == "checkpoint"]


def test_the_whole_trip_and_a_run_that_goes_on_on_a_fresh_cluster(environment: dict[str, str], tmp_path: Path) -> None:
    root = tmp_path / "root"
    place = ("--root", str(root))
    gristmill(environment, "cluster", "up")
    gristmill(environment, "submit", "extract_crawl", *place, "--set", f"crawl={code_root() / 'tests' / 'sample'}")
    gristmill(environment, "submit", "dedup_documents", *place)
    gristmill(environment, "run", "train_quality", *place)
    gristmill(environment, "submit", "score_quality", *place, "--wait")
    gristmill(environment, "run", "filter_documents", *place, "--engine", "process")
    gristmill(environment, "run", "train_tokenizer", *place)
    gristmill(environment, "submit", "tokenize_documents", *place, "--wait")
    golden = json.loads((code_root() / "tests" / "golden_sums.json").read_text())
    for name in ("documents", "filters", "signatures", "dedup"):
        assert open_dataset(str(root), name).manifest.content_sum == golden[name]["content_sum"], name

    sizes = ("--set", f"steps={STEPS}", "--set", f"checkpoint_every_steps={CHECKPOINT_EVERY}")
    shown = json.loads(gristmill(environment, "submit", "pretrain", *place, "--run", "trip", *sizes, "--json"))
    assert shown["submission_id"] == "trip-1"
    until = time.monotonic() + 400
    while not checkpoints(root, "trip"):
        assert time.monotonic() < until, "no checkpoint was committed"
        time.sleep(0.2)
    gristmill(environment, "cluster", "down")
    reached = checkpoints(root, "trip")[-1]["step"]
    assert 0 < reached < STEPS

    gristmill(environment, "cluster", "up", "--engine", "ray")
    again = json.loads(gristmill(environment, "runs", "resume", "trip", *place, "--wait", "--json"))
    assert again["submission_id"] == "trip-2"
    assert again["resumed_from"].startswith(f"step {reached}")
    summary = json.loads(gristmill(environment, "runs", "show", "trip", *place, "--json"))
    assert summary["finished"]["step"] == STEPS
    assert [entry["attempt"] for entry in summary["entries"] if entry["kind"] == "attempt"] == [1, 2]
