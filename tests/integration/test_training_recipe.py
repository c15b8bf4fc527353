"""The recipe of a published run, scaled down in width, depth and tokens, through all of its stages under real Ray."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("torch")
pytest.importorskip("deepspeed")

from pipelines.datasets.store import open_store
from tests.faults.kill_driver import beside
from tests.unit.training.token_shards import documents_of, write_tokens
from training.data.batches import BatchPlan
from training.data.order import Order
from training.data.shards import TokenShards
from training.metrics import read_metrics
from training.run_log import RunLog

pytestmark = [pytest.mark.ray, pytest.mark.torch]

NAMES = ("skywork-13b", "skywork-13b-session-2", "skywork-13b-stage-2")
SOURCES = ("en.web", "en.book", "en.paper", "en.encyclopedia", "en.misc", "en.stem", "zh.web", "zh.social")
SOURCES += ("zh.encyclopedia", "zh.misc", "zh.other", "en.code")
SMALL = {
    "scale_width": 1 / 18,
    "scale_depth": 1 / 26,
    "scale_tokens": 2e-8,
    "sequence_length": 64,
    "rows_per_batch": 8,
    "num_workers": 2,
    "use_gpu": "false",
    "precision": "fp32",
    "pipeline_stages": 1,
    "micro_batch_rows": 4,
    "checkpoint_every_steps": 40,
}


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> str:
    root = str(tmp_path_factory.mktemp("recipe"))
    cells = {f"{name}.q1": [documents_of(i, documents=200, vocab_size=61)] for i, name in enumerate(SOURCES)}
    write_tokens(open_store(root), cells, vocab_size=61)
    return root


def command(root: str, *more: str) -> subprocess.CompletedProcess[str]:
    settings = [f"--set=pretrain.{name}={value}" for name, value in SMALL.items()]
    words = [sys.executable, "-m", "cluster.cli", "run", "skywork-13b", "--root", root, *settings, *more]
    return subprocess.run(words, **beside(Path(root)), capture_output=True, text=True, timeout=600, check=False)


def test_the_recipe_of_a_published_run_goes_through_its_stages_scaled_down(root):
    dry = command(root, "--dry-run", "--json")
    assert dry.returncode == 0, dry.stderr
    asked = [job["plan"]["figures"]["steps"]["value"] for job in json.loads(dry.stdout)["jobs"]]
    assert not list(open_store(root).list("runs/")), "a dry run writes nothing"

    done = command(root)
    assert done.returncode == 0, done.stderr[-3000:]
    store = open_store(root)
    states = [RunLog(store, name).state for name in NAMES]
    assert [s.finished is not None for s in states] == [True] * 3
    ends = [s.finished["step"] for s in states]
    assert [ends[0], ends[1] - ends[0], ends[2] - ends[1]] == asked

    plan = states[2].plan  # holds every row of all stages
    assert [s.plan.segments[0] for s in states] == [plan.segments[0]] * 3
    metrics = [{m["step"]: m for m in read_metrics(store, name)} for name in NAMES]
    rates = [
        next(m[step]["learning_rate"] for m in metrics if step in m)
        for step in (1, ends[0] // 2, ends[0], ends[0] + 1, ends[2])
    ]
    assert rates[1] > rates[2] and rates[2] == pytest.approx(6e-5, rel=0.05) and rates[3] == rates[4] == 6e-5

    order = Order(plan, TokenShards.open(store, plan.segments[-1].datasets))
    batches = BatchPlan(plan)

    def stem(first: int, last: int) -> float:
        rows = [order.row(p) for step in range(first, last) for p in batches.batch(step).positions.tolist()]
        return sum(plan.segments[row.segment].cells[row.cell].name == "en.stem.q1" for row in rows) / len(rows)

    assert stem(0, ends[1]) == 0
    third = max(1, (ends[2] - ends[1]) // 3)
    begun, ended = stem(ends[1], ends[1] + third), stem(ends[2] - third, ends[2])
    assert 0 < begun < 0.3 < ended < 0.6
    assert metrics[2][ends[2]]["loss"] < metrics[0][1]["loss"] - 0.2, "it learns"

    again = command(root)
    assert again.returncode == 0 and again.stderr.count("is finished") == 3
