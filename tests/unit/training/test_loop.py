# ruff: noqa: E402  (torch may be absent)
"""A run cut short and gone on with, at other world sizes and ZeRO stages, against an unbroken one."""

from __future__ import annotations

import math
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("deepspeed")

from pipelines.datasets.store import open_store
from pipelines.errors import InputError, IntegrityError
from tests.unit.training.ranks import run_ranks
from tests.unit.training.training_tasks import MODEL, SETTINGS, STEPS, prepare, train_beside_a_newer_attempt, train_runs
from training.checkpoint.reader import CheckpointReader
from training.checkpoint.saved import load_decoder
from training.data.stream import RowSource
from training.metrics import read_metrics
from training.model.decoder import Decoder, initialise, parameter_shapes
from training.run_log import RunLog
from training.start import find_start, first_weights
from training.step_metrics import PARTS

pytestmark = pytest.mark.torch


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory):
    """Run `tiny` at one rank, ZeRO-1, without a stop."""
    root = str(tmp_path_factory.mktemp("unbroken"))
    prepare(root)
    [runs] = run_ranks(train_runs, 1, [(root, "tiny", SETTINGS, None)])
    return root, runs[0]


@pytest.fixture(scope="module")
def broken(tmp_path_factory):
    """The same run at ZeRO-2 on 3 ranks, dead after step 8; its newest checkpoint is of step 5."""
    root = str(tmp_path_factory.mktemp("broken"))
    prepare(root)
    ranks = run_ranks(train_runs, 3, [(root, "tiny", replace(SETTINGS, zero_stage=2), 8)])
    assert RunLog(open_store(root), "tiny").state.checkpoint["step"] == 5
    return root, ranks[0][0]


def losses(run) -> dict[int, float]:
    return {metrics["step"]: metrics["loss"] for metrics in run["steps"]}


def test_the_loss_falls_and_the_run_is_finished_in_its_chain(unbroken):
    root, run = unbroken
    curve = losses(run)
    assert list(curve) == list(range(1, STEPS + 1))
    assert curve[STEPS] < curve[1] - 0.3
    state = RunLog(open_store(root), "tiny").state
    assert state.finished["digest"] == run["digest"]
    assert state.checkpoint["step"] == STEPS
    assert [m["loss"] for m in read_metrics(open_store(root), "tiny")] == list(curve.values())


def test_zero_2_on_three_ranks_sees_the_same_rows_and_losses(unbroken, broken):
    whole = {m["step"]: m for m in unbroken[1]["steps"]}
    for metrics in broken[1]["steps"]:
        assert metrics["digest"] == whole[metrics["step"]]["digest"]
        assert metrics["loss"] == pytest.approx(whole[metrics["step"]]["loss"], abs=2e-6)
        assert metrics["grad_norm"] == pytest.approx(whole[metrics["step"]]["grad_norm"], rel=1e-4)


@pytest.mark.parametrize("world_size", [1, 2, 3])
def test_a_run_goes_on_in_any_layout_with_the_rows_and_losses_of_an_unbroken_one(
    unbroken, broken, world_size, tmp_path
):
    stages = {1: (0, 1), 2: (3,), 3: (1, 3)}[world_size]
    jobs = []
    for stage in stages:
        root = str(tmp_path / f"stage-{stage}")
        shutil.copytree(broken[0], root)
        # On 2 ranks ZeRO-3 partitions the matrices, on 3 it keeps every parameter of this model whole.
        persist = 100 if world_size == 2 else SETTINGS.persist_below_parameters
        settings = replace(SETTINGS, zero_stage=stage, persist_below_parameters=persist)
        jobs.append((root, "tiny", settings, None))
    ranks = run_ranks(train_runs, world_size, jobs)
    whole = losses(unbroken[1])
    for stage, (root, *_), run in zip(stages, jobs, ranks[0], strict=True):
        curve = losses(run)
        assert list(curve) == list(range(6, STEPS + 1)), "goes on from the checkpoint of step 5"
        assert run["digest"] == unbroken[1]["digest"]
        assert max(abs(curve[step] - whole[step]) for step in curve) < 2e-6, f"stage {stage}"
        log = RunLog(open_store(root), "tiny")
        assert (log.state.attempt, log.state.finished["digest"]) == (2, unbroken[1]["digest"])
        metrics = read_metrics(open_store(root), "tiny")
        assert [m["step"] for m in metrics] == list(range(1, STEPS + 1))


def test_a_run_stops_on_request_with_a_checkpoint_and_goes_on_later(unbroken, tmp_path):
    root = str(tmp_path / "run")
    prepare(root)
    eager = replace(SETTINGS, control_every_s=0.0)
    [[stopped, ended], _] = run_ranks(
        train_runs, 2, [(root, "tiny", eager, None, 7), (root, "tiny", replace(eager, zero_stage=2), None)]
    )
    assert (stopped["finished"], len(stopped["steps"])) == (False, 7)
    assert [m["step"] for m in ended["steps"]] == list(range(8, STEPS + 1))
    assert ended["digest"] == unbroken[1]["digest"]
    assert max(abs(losses(ended)[step] - losses(unbroken[1])[step]) for step in losses(ended)) < 2e-6


def test_a_run_that_died_before_its_last_entry_is_finished_without_training(unbroken, tmp_path):
    root = tmp_path / "run"
    shutil.copytree(unbroken[0], root)
    sorted((root / "runs/tiny/log").iterdir())[-1].unlink()
    [[run]] = run_ranks(train_runs, 1, [(str(root), "tiny", SETTINGS, None)])
    assert run["steps"] == []
    state = RunLog(open_store(root), "tiny").state
    assert state.attempt == 2
    assert state.finished["digest"] == unbroken[1]["digest"]
    assert state.finished["loss"] == losses(unbroken[1])[STEPS]


def test_an_attempt_that_was_overtaken_leaves_on_every_rank_and_commits_nothing(tmp_path):
    root = str(tmp_path / "run")
    prepare(root)
    eager = replace(SETTINGS, control_every_s=0.0)
    left = run_ranks(train_beside_a_newer_attempt, 2, root, "tiny", eager, 6)
    assert all(text.startswith("exit 7") for text in left), left
    state = RunLog(open_store(root), "tiny").state
    assert (state.attempt, state.checkpoint["step"], state.finished) == (2, 5, None)


def test_the_nearest_whole_checkpoint_of_the_nodes_or_the_store_is_gone_on_from(unbroken, tmp_path):
    def near(root: Path, folder: str = "near", **other):
        return replace(SETTINGS, local_every_steps=2, local_folder=str(root / folder), **other)

    # Dead after step 9: the store has step 5, the folders 6 and 8, and older ones were removed there.
    first, apart = tmp_path / "first", tmp_path / "apart"
    prepare(str(first))
    prepare(str(apart))
    jobs = [(str(first), "tiny", near(first, zero_stage=2), 9), (str(apart), "tiny", near(apart, "node-"), 9)]
    run_ranks(train_runs, 2, jobs)
    for near_by in ("first/near", "apart/node-0", "apart/node-1"):
        steps = {
            key.name for key in (tmp_path / near_by / "runs/tiny/checkpoints").iterdir() if any(key.rglob("*.f32"))
        }
        assert steps == {"step-00000006", "step-00000008"}
    jobs = []
    for name in ("whole", "spoilt", "gone"):
        shutil.copytree(first, tmp_path / name)
        jobs.append((str(tmp_path / name), "tiny", near(tmp_path / name), None))
    shutil.copytree(apart, tmp_path / "one-node-of-two")
    jobs.append((str(tmp_path / "one-node-of-two"), "tiny", near(tmp_path / "one-node-of-two", "node-"), None))
    slices = next((tmp_path / "spoilt/near/runs/tiny/checkpoints/step-00000008").rglob("rank-00001-*.f32"))
    body = bytearray(slices.read_bytes())
    body[100] ^= 1
    slices.write_bytes(body)
    shutil.rmtree(tmp_path / "gone/near")
    damaged = tmp_path / "damaged"
    shutil.copytree(unbroken[0], damaged)
    sorted((damaged / "runs/tiny/log").iterdir())[-1].unlink()  # that it is finished
    slices = next((damaged / "runs/tiny/checkpoints/step-00000014").rglob("*.f32"))
    slices.write_bytes(slices.read_bytes()[:-2000])
    jobs.append((str(damaged), "tiny", SETTINGS, None))
    ranks = run_ranks(train_runs, 1, jobs)
    both = (str(apart), "tiny", near(apart, "node-"), None)
    runs = [*zip(jobs, ranks[0], strict=True), (both, run_ranks(train_runs, 2, [both])[0][0])]
    begun = {job[0].rpartition("/")[2]: run["steps"][0]["step"] for job, run in runs}
    assert begun == {"whole": 9, "spoilt": 7, "gone": 6, "one-node-of-two": 6, "damaged": 11, "apart": 9}
    [incident] = (damaged / "runs/tiny/incidents").iterdir()
    assert "went on from step 10" in incident.read_text()
    assert "step 14: " in incident.read_text()
    for job, run in runs:
        assert run["digest"] == unbroken[1]["digest"]
        assert max(abs(losses(run)[step] - losses(unbroken[1])[step]) for step in losses(run)) < 2e-6
        assert [m["step"] for m in read_metrics(open_store(job[0]), "tiny")] == list(range(1, STEPS + 1))
        saved = [e["step"] for _, e in RunLog(open_store(job[0]), "tiny").entries("checkpoint")]
        assert saved == [5, 10, STEPS, STEPS] if job[0].endswith("damaged") else [5, 10, STEPS]
    assert not list((tmp_path / "whole/near").rglob("*.f32")), "a finished run needs none"


def test_losses_by_cell_are_those_of_the_rows_and_the_same_in_any_layout(unbroken, broken, tmp_path):
    store = open_store(unbroken[0])
    log = RunLog(store, "tiny")
    source, metrics = RowSource(store, log.state.plan), unbroken[1]["steps"]
    model = initialise(Decoder(MODEL), log.state.recipe["seed"])
    sums: dict[str, list[float]] = {}
    for position in source.batches.batch(0).positions:
        row, where = source.row(int(position)), source.order.row(int(position))
        cell = source.plan.segments[0].cells[where.cell].name
        batch = [torch.from_numpy(getattr(row, f)[None]).long() for f in ("ids", "positions", "documents", "labels")]
        loss, labels = sums.get(cell, (0.0, 0))
        with torch.no_grad():
            sums[cell] = [loss + float(model(*batch).sum()), labels + row.trained_tokens]
    assert set(sums) == {"en.web", "zh.web"}
    assert metrics[0]["tokens_by_cell"] == {cell: labels for cell, (_, labels) in sums.items()}
    for cell, (loss, labels) in sums.items():
        assert metrics[0]["loss_by_cell"][cell] == pytest.approx(loss / labels, rel=1e-5)
    jobs, zero_3 = [], {"zero_stage": 3, "persist_below_parameters": 100}
    for name, layout in (("zero-3", zero_3), ("pipeline", {"pipeline_stages": 2})):
        prepare(str(tmp_path / name))
        jobs.append((str(tmp_path / name), "tiny", replace(SETTINGS, **layout), 3))
    for run in (broken[1], *run_ranks(train_runs, 2, jobs)[0]):
        for one, other in zip(metrics, run["steps"], strict=False):
            assert one["tokens_by_cell"] == other["tokens_by_cell"]
            assert one["loss_by_cell"] == pytest.approx(other["loss_by_cell"], abs=5e-6)
            assert other["optimizer_seconds"] > 0
    for one in metrics:
        assert sum(one["tokens_by_cell"].values()) == one["batch_tokens"]
        whole = sum(one["loss_by_cell"][cell] * n for cell, n in one["tokens_by_cell"].items())
        assert whole / one["batch_tokens"] == pytest.approx(one["loss"])
    for step in metrics:
        parts = [step[f"{part}_seconds"] for part in PARTS]
        assert sum(parts) == pytest.approx(step["seconds"])
        assert min(step["forward_backward_seconds"], step["optimizer_seconds"]) > 0
        assert (step["mfu"], step["peak_gpu_bytes"]) == (None, None)


def test_old_checkpoints_go_and_milestones_stay(unbroken, tmp_path):
    root = str(tmp_path / "run")
    prepare(root)
    settings = replace(SETTINGS, checkpoint_every_steps=3, milestone_every_steps=4, keep_last=1, background_saves=True)
    settings = replace(settings, tensorboard=str(tmp_path / "board"), peak_tflops=1.0)
    [[run]] = run_ranks(train_runs, 1, [(root, "tiny", settings, None)])
    assert run["digest"] == unbroken[1]["digest"]
    log = RunLog(open_store(root), "tiny")
    assert [e["step"] for _, e in log.entries("checkpoint")] == [3, 4, 6, 8, 9, 12, STEPS]
    assert {c["step"] for c in log.state.kept if c.get("milestone")} == {4, 8, 12}
    assert STEPS in {c["step"] for c in log.state.kept}
    assert all(0 < m["mfu"] == m["mfu_without_embedding"] < 1 for m in run["steps"]), "its embeddings are tied"
    [events] = (tmp_path / "board/tiny").iterdir()
    assert b"loss_by_cell/zh.web" in events.read_bytes()
    there = {p.name for p in Path(root, "runs/tiny/checkpoints").iterdir() if any(p.rglob("*.f32"))}
    assert there == {f"step-{c['step']:08d}" for c in log.state.kept}


@pytest.mark.slow
def test_a_zero_3_checkpoint_is_read_by_zero_2_on_three_ranks(unbroken, tmp_path):
    root = str(tmp_path / "run")
    prepare(root)
    small = replace(SETTINGS, zero_stage=3)
    run_ranks(train_runs, 2, [(root, "tiny", small, 11)])
    [[run], *_] = run_ranks(train_runs, 3, [(root, "tiny", replace(SETTINGS, zero_stage=2), None)])
    assert run["digest"] == unbroken[1]["digest"]
    whole, curve = losses(unbroken[1]), losses(run)
    assert list(curve) == [11, 12, 13, 14]
    assert max(abs(curve[step] - whole[step]) for step in curve) < 2e-6


@pytest.mark.slow
def test_a_bf16_run_goes_on_in_another_layout_near_its_unbroken_losses(tmp_path):
    roots = [str(tmp_path / name) for name in ("whole", "cut")]
    for root in roots:
        prepare(root, precision="bf16")
    [[whole, _], _] = run_ranks(
        train_runs,
        2,
        [(roots[0], "tiny", SETTINGS, None), (roots[1], "tiny", replace(SETTINGS, zero_stage=3), 6)],
    )
    [[run]] = run_ranks(train_runs, 1, [(roots[1], "tiny", SETTINGS, None)])
    assert run["digest"] == whole["digest"]
    expected, curve = losses(whole), losses(run)
    assert max(abs(curve[step] - expected[step]) for step in curve) < 2e-2


def test_weights_read_without_deepspeed_have_the_loss_that_the_checkpoint_states(unbroken):
    import numpy as np
    import torch

    store = open_store(unbroken[0])
    state = RunLog(store, "tiny").state
    reader = CheckpointReader(store, state.checkpoint["key"], state.checkpoint["sha256"])
    model, source = load_decoder(reader), RowSource(store, state.plan)
    rows = [source.row(position) for position in reader.body["probe"]["positions"]]
    fields = ("ids", "positions", "documents", "labels")
    batch = [torch.from_numpy(np.stack([getattr(row, f) for row in rows])).long() for f in fields]
    with torch.no_grad():
        loss = model(*batch).sum().item() / sum(row.trained_tokens for row in rows)
    assert loss == pytest.approx(reader.body["probe"]["loss"], rel=1e-5)


def test_a_checkpoint_whose_bytes_differ_is_refused_before_a_weight_is_used(broken, tmp_path):
    root = tmp_path / "spoilt"
    shutil.copytree(broken[0], root)
    spoilt = sorted((root / "runs/tiny/checkpoints/step-00000005").rglob("rank-00001-*.f32"))[0]
    body = bytearray(spoilt.read_bytes())
    body[len(body) // 2] ^= 1
    spoilt.write_bytes(body)
    store = open_store(root)
    state = RunLog(store, "tiny").state
    reader = CheckpointReader(store, state.checkpoint["key"], state.checkpoint["sha256"])
    with pytest.raises(IntegrityError, match="does not match its crc32c"):
        for name, shape in reader.shapes.items():
            reader.read(name, 0, math.prod(shape))
    table = sorted((root / "runs/tiny/checkpoints/step-00000005").rglob("rank-00000-*.json"))[0]
    table.write_bytes(table.read_bytes().replace(b'"offset":0', b'"offset":1', 1))
    with pytest.raises(IntegrityError, match="differs from its sha256"):
        CheckpointReader(store, state.checkpoint["key"], state.checkpoint["sha256"])


def test_a_run_may_begin_with_the_weights_of_another_ones_checkpoint(unbroken):
    store = open_store(unbroken[0])
    start, config = find_start(store, f"tiny@{STEPS}")
    assert config == MODEL
    begun = first_weights(store, config, 99, start)
    drawn = first_weights(store, config, 99, None)
    entry = RunLog(store, "tiny").state.checkpoint
    trained = load_decoder(CheckpointReader(store, entry["key"], entry["sha256"]))
    for name, weights in trained.named_parameters():
        assert torch.equal(begun(name), weights)
        assert not torch.equal(begun(name), drawn(name))
    with pytest.raises(InputError, match=r"no checkpoint of step 7"):
        find_start(store, "tiny@7")
    with pytest.raises(InputError, match="neither a folder nor RUN@STEP"):
        find_start(store, "nowhere")


def test_a_run_that_begins_with_a_folder_pins_what_is_in_it(unbroken, tmp_path):
    pytest.importorskip("safetensors")
    from training.model.llama import write_llama

    drawn, names = first_weights(open_store(unbroken[0]), MODEL, 4, None), list(parameter_shapes(MODEL))
    write_llama(tmp_path / "hf", MODEL, names, drawn, dtype="float32", ids={}, longest=24)
    store = open_store(unbroken[0])
    start, config = find_start(store, str(tmp_path / "hf"))
    begun = first_weights(store, config, 1, start)
    assert all(torch.equal(begun(name), drawn(name)) for name in names)
    (tmp_path / "hf" / "config.json").write_text((tmp_path / "hf" / "config.json").read_text() + " ")
    with pytest.raises(IntegrityError, match="the run pins"):
        first_weights(store, config, 1, start)


def test_saves_in_the_background_are_whole_and_a_death_beside_one_costs_at_most_that_one(unbroken, tmp_path):
    jobs = []
    for name, dies in (("whole", None), ("dies-5", 5), ("dies-6", 6)):
        prepare(str(tmp_path / name))
        jobs.append((str(tmp_path / name), "tiny", replace(SETTINGS, background_saves=True, zero_stage=2), dies))
    whole = run_ranks(train_runs, 2, jobs[:1])[0][0]
    assert whole["digest"] == unbroken[1]["digest"]
    log = RunLog(open_store(jobs[0][0]), "tiny")
    entries = [entry for _, entry in log.entries("checkpoint")]
    assert [entry["step"] for entry in entries] == [5, 10, STEPS]
    for entry, saved in zip(entries, (5, 10, STEPS), strict=True):
        body = CheckpointReader(log.store, entry["key"], entry["sha256"]).body
        assert body["progress"]["step"] == body["adam_steps"]["decayed"] == saved
    for job in jobs[1:]:
        run_ranks(train_runs, 2, [job])
        assert (RunLog(open_store(job[0]), "tiny").state.checkpoint or {"step": 0})["step"] in (0, 5)
        [again] = run_ranks(train_runs, 1, [(*job[:3], None)])
        assert again[0]["digest"] == unbroken[1]["digest"]
        gone_on, curve = losses(again[0]), losses(unbroken[1])
        assert max(abs(gone_on[step] - curve[step]) for step in gone_on) < 2e-6


def spoil(root: str, shards: list[int]) -> None:
    """Flip a byte in token shards, the smallest ones first."""
    store = open_store(root)
    keys = sorted((info.size_bytes, info.key) for info in store.list("datasets/tokens/shards/") if ".bin" in info.key)
    for number in shards:
        body = bytearray(store.get(keys[number][1]))
        body[10] ^= 1
        store.put(keys[number][1], bytes(body))


def test_one_corrupt_page_is_masked_and_told_and_more_than_the_budget_ends_the_run(unbroken, tmp_path):
    one, two = str(tmp_path / "one"), str(tmp_path / "two")
    for root, shards in ((one, [0]), (two, [0, 1])):
        prepare(root)
        spoil(root, shards)
    ranks = run_ranks(train_runs, 2, [(one, "tiny", SETTINGS, None)])
    assert ranks[0][0]["digest"] != unbroken[1]["digest"], "rows are told by what was trained on"
    assert math.isfinite(ranks[0][0]["steps"][-1]["loss"])
    entry = RunLog(open_store(one), "tiny").state.checkpoint
    voids = CheckpointReader(open_store(one), entry["key"], entry["sha256"]).body["voids"]
    assert {void["page"] for void in voids} == {0}
    assert len({void["shard"] for void in voids}) == 1
    with pytest.raises(Exception, match="2 corrupt pages"):
        run_ranks(train_runs, 2, [(two, "tiny", SETTINGS, None)])
