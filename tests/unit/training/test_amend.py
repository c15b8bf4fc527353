"""Amending, branching and comparing runs, on token shards and a chain, without an engine."""

from __future__ import annotations

import json
import re
from dataclasses import replace

import numpy as np
import pytest
from click.testing import CliRunner

from cluster.cli import runs
from pipelines.datasets.store import FolderStore
from pipelines.errors import ConfigError, ConflictError
from tests.unit.training.token_shards import EOS, write_tokens
from training.amend import Amendment, amended
from training.data.batches import BatchPlan
from training.data.plan import DatasetPin, single_segment_plan
from training.data.stream import RowSource
from training.run_log import Attempt, RunLog

ONE = {"en.web": [list(range(8, 408)), list(range(408, 631))], "zh.web": [list(range(700, 861))]}
TWO = {"en.web": [*ONE["en.web"], list(range(1600, 1777))], "zh.web": [list(range(860, 700, -1))], "code": [[9] * 90]}
RECIPE = {"seed": 1, "schedule": {"peak_rate": 1e-3, "warmup_fraction": 0.1, "floor_fraction": 0.1}}


@pytest.fixture
def store(tmp_path):
    store = FolderStore(str(tmp_path))
    manifest = write_tokens(store, ONE, vocab_size=2000)
    plan = single_segment_plan(
        seed=2,
        dataset=DatasetPin(name="tokens", version=1, manifest_sha256=manifest.sha256),
        weights={"en.web": 3, "zh.web": 1},
        sequence_length=10,
        rows_per_batch=4,
        steps=20,
    )
    RunLog(store, "tiny").write_plan(plan, RECIPE)
    attempt = Attempt(RunLog(store, "tiny"), {"job": "j"})
    for step in (5, 10):
        attempt.add("checkpoint", {"key": f"k{step}", "sha256": "s", "step": step, "position": 4 * step, "loss": 3.0})
    return store


def call(store, *arguments: str) -> str:
    done = CliRunner().invoke(runs.command, [*arguments, "--root", store.location], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.output


def test_an_amendment_keeps_every_row_before_it_and_changes_those_after(store):
    before = RowSource(store, RunLog(store, "tiny").state.plan)
    change = ["--set", "weights={en.web: 1, zh.web: 3}", "--set", "steps=30"]
    out = json.loads(call(store, "amend", "tiny", *change, "--json"))
    assert (out["revision"], out["from_position"], out["from_step"]) == (2, 40, 10)
    assert out["steps"] == {"before": 20, "after": 30, "asked": 30}
    zh = next(row for row in out["cells"] if row["cell"] == "zh.web")
    assert (zh["share_before"], zh["share_after"]) == (0.25, 0.75)
    state = RunLog(store, "tiny").state
    assert (state.revision, state.amended_from, BatchPlan(state.plan).steps) == (2, 40, 30)
    after = RowSource(store, state.plan)
    for position in range(40):
        assert after.row(position).digest == before.row(position).digest
    assert any(after.row(p).digest != before.row(p).digest for p in range(40, 80))
    assert "weights" in call(store, "show", "tiny")


def test_a_dry_run_writes_nothing_and_shows_what_was_seen(store):
    text = call(store, "amend", "tiny", "--from-step", "12", "--set", "rows_per_batch=6", "--dry-run")
    assert "nothing was written" in text
    assert "laps seen" in text
    assert RunLog(store, "tiny").state.revision == 1
    assert max(map(len, text.splitlines())) <= 80


def test_a_newer_version_grows_a_cell_or_is_a_new_one_and_its_seen_documents_are_counted(store):
    write_tokens(store, TWO, vocab_size=2000)
    asked = Amendment(tokens=("tokens",), weights={"en.web": 2, "zh.web@v2": 1, "code": 1}, steps=40)
    made = amended(store, RunLog(store, "tiny").state, asked, 40)
    last = made.plan.segments[-1]
    assert {cell.name: (cell.cell, cell.share > 0, cell.used > 0) for cell in last.cells} == {
        "code": ("code", True, False),
        "en.web": ("en.web", True, True),
        "zh.web": ("zh.web", False, True),
        "zh.web@v2": ("zh.web", True, False),
    }
    source = RowSource(store, made.plan)
    tokens = {t for p in range(40, made.plan.end_position) for t in source.row(p).ids.tolist()}
    assert tokens & set(range(1600, 1777)), "the new shard is read"
    with pytest.raises(ConfigError, match=r"weights name 'zh.web@v3', which fits no cell"):
        amended(store, RunLog(store, "tiny").state, replace(asked, weights={"zh.web@v3": 1}), 40)


def test_documents_of_a_refiltered_version_that_were_seen_are_counted(store, tmp_path):
    rng = np.random.default_rng(1)
    documents = [[*rng.integers(8, 2000, 9).tolist(), EOS] for _ in range(200)]
    other = FolderStore(str(tmp_path / "other"))
    first = write_tokens(other, {"en": [np.concatenate(documents[:100])]}, vocab_size=2000)
    plan = single_segment_plan(
        seed=2,
        dataset=DatasetPin(name="tokens", version=1, manifest_sha256=first.sha256),
        weights={"en": 1},
        sequence_length=10,  # a row is a document
        rows_per_batch=4,
        steps=25,
    )
    RunLog(other, "r").write_plan(plan, RECIPE)
    write_tokens(other, {"en": [np.concatenate(documents[50:130])]}, vocab_size=2000)
    made = amended(other, RunLog(other, "r").state, Amendment(tokens=("tokens",), weights={"en@v2": 1}, steps=30), 60)
    rows = [tuple(RowSource(other, plan).row(p).ids.tolist()) for p in range(60)]
    seen = sum(tuple(document) in rows for document in documents[50:130])
    assert 0 < seen < 50
    assert made.report["seen_documents"] == {"tokens": round(seen / 80, 4)}


def test_what_is_trained_already_is_not_amended(store):
    state = RunLog(store, "tiny").state
    made = amended(store, state, Amendment(steps=30), 24)
    with pytest.raises(ConfigError, match="a checkpoint at position 40, after 24"):
        RunLog(store, "tiny").revise(made.plan, made.recipe, from_position=24, note={})


def test_an_attempt_by_the_old_plan_may_commit_up_to_the_change_and_nothing_beyond(store):
    attempt = Attempt(RunLog(store, "tiny"), {"job": "old"})
    made = amended(store, attempt.log.state, Amendment(rows_per_batch=8), 48)
    assert RunLog(store, "tiny").revise(made.plan, made.recipe, from_position=48, note={}) == 2
    attempt.add("checkpoint", {"key": "k12", "sha256": "s", "step": 12, "position": 48, "loss": 3.0})
    with pytest.raises(ConflictError, match="amended from position 48"):
        attempt.add("checkpoint", {"key": "k15", "sha256": "s", "step": 15, "position": 60, "loss": 3.0})
    again = Attempt(RunLog(store, "tiny"), {"job": "new"})
    again.add("checkpoint", {"key": "k14", "sha256": "s", "step": 14, "position": 64, "loss": 3.0})
    assert RunLog(store, "tiny").state.checkpoint["key"] == "k14"


def test_a_branch_shares_the_rows_before_its_checkpoint_and_leaves_the_run_alone(store):
    entries = len(list(store.list("runs/tiny/log/")))
    call(store, "branch", "tiny@5", "--name", "stem", "--set", "weights={zh.web: 1}", "--set", "steps=12")
    call(store, "branch", "tiny@5", "--name", "control", "--control")
    stem, control, tiny = (RunLog(store, name).state for name in ("stem", "control", "tiny"))
    assert len(list(store.list("runs/tiny/log/"))) == entries
    assert stem.checkpoint["key"] == control.checkpoint["key"] == "k5"
    assert stem.checkpoint["branched_from"]["run"] == "tiny"
    rows = [RowSource(store, state.plan) for state in (stem, control, tiny)]
    for position in range(20):
        assert len({source.row(position).digest for source in rows}) == 1
    for position in range(20, 80):
        assert rows[1].row(position).digest == rows[2].row(position).digest
    assert {segment.cells[1].share for segment in stem.plan.segments[1:]} == {65_536}
    done = CliRunner().invoke(runs.command, ["branch", "tiny@7", "--name", "x", "--control", "--root", store.location])
    assert "no checkpoint of step 7" in str(done.exception)
    with pytest.raises(ConflictError, match="there is a run 'stem' already"):
        RunLog(store, "stem").begin_branch(stem.plan, stem.recipe, {}, {})


def test_a_mixture_is_given_by_cell_and_what_a_cap_leaves_over_is_listed(store):
    mixture = ["--mixture", "zh.web=1", "--set", "steps=60", "--set", "max_laps=1"]
    out = json.loads(call(store, "branch", "tiny@5", "--name", "zh", *mixture, "--json"))
    assert out["steps"]["after"] < out["steps"]["asked"]
    left = {cell["cell"]: cell["tokens_left"] for cell in out["cells"]}
    # 161 tokens, 50 of them before; 111 give two batches of 4 rows of 10.
    assert left == {"zh.web": 161 - 50 - 80, "en.web": 623 - 150}
    text = call(store, "amend", "tiny", *mixture, "--dry-run")
    assert re.search(r"zh\.web: \d+ tokens of max_laps are left over", text)
    with pytest.raises(ConfigError, match="is not CELL=WEIGHT"):
        call(store, "amend", "tiny", "--mixture", "zh.web", "--dry-run")


def test_losses_of_two_runs_are_set_side_by_side(store):
    for name, offset in (("tiny", 0.0), ("stem", 0.25)):
        lines = [{"step": s, "loss": 5.0 - s / 10 + offset, "digest": "a" if s < 4 else name} for s in range(1, 11)]
        for line in lines:
            line |= {"loss_by_cell": {"en": 3.0 + 2 * offset, name: 1.0}, "tokens_by_cell": {"en": 7, name: 3}}
        body = "".join(json.dumps(line) + "\n" for line in lines).encode()
        store.put(f"runs/{name}/metrics/attempt-0001/step-00000001-x.jsonl", body)
    RunLog(store, "stem").write_plan(RunLog(store, "tiny").state.plan, RECIPE)
    told = json.loads(call(store, "compare", "tiny", "stem", "--json"))
    assert told["difference"] == 0.25
    assert told["same_rows_up_to_step"] == 3
    assert told["loss_by_cell"] == {"en": [3.0, 3.5]}
    assert "+0.2500" in call(store, "compare", "tiny", "stem")
