"""pretrain and evaluate_model under real Ray: a killed worker, a repeated run, a changed one, the evaluation."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest

pytest.importorskip("torch")
pytest.importorskip("deepspeed")


from jobs import pretrain
from jobs.pretrain_begin import choose_run, plan_of
from jobs.runtime.context import Context
from jobs.runtime.progress import Progress
from pipelines.datasets.store import open_store
from pipelines.errors import ConfigError
from tests.unit.training.ranks import run_ranks
from tests.unit.training.token_shards import documents_of, write_tokens
from tests.unit.training.training_tasks import train_runs
from training.loop import LoopSettings
from training.metrics import read_metrics
from training.run_log import RunLog

pytestmark = [pytest.mark.ray, pytest.mark.torch]

CHECKOUT = Path(__file__).parents[2]
CHANGED = ("steps", "sequence_length", "rows_per_batch", "checkpoint_every_steps", "micro_batch_rows")
CONFIG = pretrain.Config(steps=40, sequence_length=48, rows_per_batch=6, checkpoint_every_steps=8, micro_batch_rows=3)
CELLS = {
    "en.web.q1": [documents_of(1, documents=80, vocab_size=61)],
    "zh.web.q1": [documents_of(2, documents=120, vocab_size=61), documents_of(3, documents=20, vocab_size=61)],
}


class Told(Progress):
    """Keeps what the job says."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, line: str) -> None:
        self.lines.append(line)


def command(root: Path) -> list[str]:
    """The job as a user starts it, in a process and a Ray of its own."""
    settings = [f"--set={name}={getattr(CONFIG, name)}" for name in CHANGED]
    return [sys.executable, "-m", "jobs.pretrain", "--root", str(root), *settings]


def run_pretrain(root: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command(root), cwd=CHECKOUT, capture_output=True, text=True, timeout=400, check=False)


def kill_first_attempt(root: Path, killed: list[int]) -> None:
    """kill -9 rank 0 of the first attempt once a checkpoint is committed and further steps are under way."""
    store = open_store(root)
    deadline = time.monotonic() + 300
    while time.monotonic() < deadline:
        state = RunLog(store, "tiny").state
        if state.checkpoint is not None and state.checkpoint["step"] >= 8:
            os.kill(state.attempt_by["pid"], signal.SIGKILL)
            killed.append(state.checkpoint["step"])
            return
        time.sleep(0.05)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """(root of a run whose rank 0 was killed half-way, what the job said, step of the checkpoint before the kill)."""
    root = tmp_path_factory.mktemp("pretrain")
    write_tokens(open_store(root), CELLS, vocab_size=61)
    killed: list[int] = []
    killer = threading.Thread(target=kill_first_attempt, args=(root, killed), daemon=True)
    killer.start()
    done = run_pretrain(root)
    killer.join()
    assert done.returncode == 0, done.stderr
    return root, done.stderr, killed


def test_a_worker_killed_with_minus_9_is_replaced_and_the_run_ends_with_the_unbroken_rows(trained, tmp_path):
    root, _, killed = trained
    assert killed, "no worker was killed: the test proves nothing"
    log = RunLog(open_store(root), "tiny")
    assert log.state.attempt == 2
    assert log.state.finished["step"] == 40

    whole = str(tmp_path / "whole")
    store = open_store(whole)
    write_tokens(store, CELLS, vocab_size=61)
    RunLog(store, "tiny").write_plan(log.state.plan, log.state.recipe)
    [[unbroken]] = run_ranks(train_runs, 1, [(whole, "tiny", LoopSettings(micro_batch_rows=6), None)])
    assert log.state.finished["digest"] == unbroken["digest"]
    expected = {m["step"]: m["loss"] for m in unbroken["steps"]}
    found = {m["step"]: m["loss"] for m in read_metrics(open_store(root), "tiny")}
    assert found.keys() == expected.keys()
    assert max(abs(found[step] - expected[step]) for step in found) < 1e-3
    assert found[40] < found[1] - 0.5


def test_a_finished_run_repeated_writes_nothing_and_says_so(trained):
    root, _, _ = trained
    before = sorted(info.key for info in open_store(root).list(""))
    done = run_pretrain(root)
    assert done.returncode == 0
    assert sorted(info.key for info in open_store(root).list("")) == before
    assert "run tiny is finished at step 40" in done.stderr
    assert "nothing to do" in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize(("number", "code"), [(signal.SIGKILL, -9), (signal.SIGINT, 130)], ids=["kill", "ctrl-c"])
def test_a_driver_that_is_killed_takes_its_workers_along_and_the_same_command_goes_on(trained, tmp_path, number, code):
    root = tmp_path / "run"
    shutil.copytree(trained[0] / "datasets", root / "datasets")
    store = open_store(root)
    driver = subprocess.Popen(command(root), cwd=CHECKOUT, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 300
        while (RunLog(store, "tiny").state.checkpoint or {"step": 0})["step"] < 8:
            assert driver.poll() is None, "the run ended before it could be killed"
            assert time.monotonic() < deadline
            time.sleep(0.05)
        driver.send_signal(number)
        assert driver.wait(120) == code
    finally:
        driver.kill()
        driver.wait()
    worker = RunLog(store, "tiny").state.attempt_by["pid"]
    for _ in range(600):
        if not Path(f"/proc/{worker}").exists():
            break
        time.sleep(0.1)
    assert not Path(f"/proc/{worker}").exists(), "a worker outlived its driver by a minute"
    done = run_pretrain(root)
    assert done.returncode == 0, done.stderr
    assert "goes on from step" in done.stderr
    finished = RunLog(open_store(trained[0]), "tiny").state.finished
    assert RunLog(store, "tiny").state.finished["digest"] == finished["digest"]


def test_changed_settings_start_a_new_run_or_are_refused_as_asked(trained):
    root, _, _ = trained
    context = Context(store=open_store(root), engine="ray", progress=Told())
    with pytest.raises(ConfigError, match="end_position: 240 there, 246 now"):
        pretrain.run(replace(CONFIG, steps=41, on_change="refuse"), context)
    plan, recipe = plan_of(replace(CONFIG, peak_rate=1e-3), context)
    assert choose_run(replace(CONFIG, peak_rate=1e-3), context, plan, recipe) == "tiny-2"
    assert any("peak_rate" in line for line in context.progress.lines)
    plan, recipe = plan_of(replace(CONFIG, num_workers=5, zero_stage=3), context)
    assert choose_run(CONFIG, context, plan, recipe) == "tiny", "the layout is not part of a run's plan"


def test_an_error_of_ours_ends_the_run_once_and_is_told(trained, tmp_path):
    root = tmp_path / "spoilt"
    shutil.copytree(trained[0] / "datasets", root / "datasets")
    table = next((root / "datasets/tokens/shards").glob("*.crc"))  # a page alone would be masked
    table.write_bytes(bytes(b ^ 1 for b in table.read_bytes()))
    done = run_pretrain(root)
    assert done.returncode == 5, done.stderr
    assert table.name in done.stderr and "differs from its sha256" in done.stderr
    assert json.loads(next((root / "runs/tiny/incidents").iterdir()).read_text())["error"] == "IntegrityError"
    assert RunLog(open_store(root), "tiny").state.attempt <= 2
