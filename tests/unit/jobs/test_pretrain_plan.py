"""What a training is told to take before it begins, and recipes that are planned without being run."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

pytest.importorskip("torch")

from cluster.cli import main
from jobs import pretrain
from jobs.pretrain_begin import plan_of
from jobs.runtime.context import Context
from jobs.runtime.cost import Request, plan_job
from jobs.runtime.progress import Progress
from jobs.runtime.recipe import config_of, read_recipe
from pipelines.datasets.store import open_store
from pipelines.errors import ConfigError
from tests.unit.training.token_shards import documents_of, write_tokens
from training.data.batches import BatchPlan

pytestmark = pytest.mark.torch

CELLS = {
    "en.web.q0": [documents_of(1, documents=100, vocab_size=61)],
    "en.web.q1": [documents_of(2, documents=200, vocab_size=61)],
    "zh.web.q1": [documents_of(3, documents=100, vocab_size=61)],
}
CONFIG = pretrain.Config(
    sequence_length=32, rows_per_batch=4, steps=100, weights={"en.web.*": 3, "zh.web.q1": 1}, precision="bf16"
)


@pytest.fixture
def root(tmp_path):
    write_tokens(open_store(str(tmp_path)), CELLS, vocab_size=61)
    return str(tmp_path)


def context_of(root: str) -> Context:
    return Context(store=open_store(root), progress=Progress())


def test_the_mixture_told_is_that_of_the_order(root):
    before = sorted(info.key for info in open_store(root).list(""))
    told = plan_job("pretrain", CONFIG, context_of(root), Request())
    cells = {row["cell"]: row for row in told.tables["mixture"]}
    assert cells["zh.web.q1"]["share"] == pytest.approx(0.25, abs=0.01)
    assert sum(row["read"] for row in cells.values()) == told.figures["tokens"].value == 100 * 4 * 32
    web = [cells[name] for name in ("en.web.q0", "en.web.q1")]
    ratios = [row["share"] / row["tokens"] for row in web]
    assert ratios[0] == pytest.approx(ratios[1], rel=0.05)  # a pattern's weight goes by tokens
    for row in cells.values():
        assert row["laps"] == pytest.approx(row["read"] / row["tokens"], abs=0.01)
    assert sorted(info.key for info in open_store(root).list("")) == before


def test_layouts_come_with_time_money_and_the_settings_to_use(root):
    told = plan_job("pretrain", replace(CONFIG, model="1.3b"), context_of(root), Request(gpus=24, gpu="h200"))
    for row in told.tables["layouts"]:
        assert row["DP"] * row["TP"] * row["PP"] + row["idle"] == 24
    seconds, dollars = told.figures["wall"].value, told.figures["dollars"].value
    assert dollars == pytest.approx(seconds / 3600 * 24 * 3.5)
    dearer = Request(gpus=24, gpu="h200", gpu_dollars=7.0)
    assert plan_job("pretrain", replace(CONFIG, model="1.3b"), context_of(root), dearer).figures[
        "dollars"
    ].value == pytest.approx(2 * dollars)
    assert any("--set num_workers=" in note for note in told.notes)


def test_a_model_that_fits_no_layout_is_an_error_with_a_mend(root):
    with pytest.raises(ConfigError, match="no layout of"):
        plan_job("pretrain", replace(CONFIG, model="skywork-13b"), context_of(root), Request(gpus=1, gpu="h100-80g"))


def test_a_cell_read_too_often_and_a_run_that_ends_early_are_told(root):
    told = plan_job("pretrain", replace(CONFIG, steps=2000), context_of(root), Request())
    assert any("is read" in note and "more than 5" in note for note in told.notes)
    ramp = replace(CONFIG, steps=2000, max_laps=1, ramp_from={"zh.web.q1": 1}, ramp_fraction=0.5)
    told = plan_job("pretrain", ramp, context_of(root), Request())
    steps = told.figures["steps"].value
    assert 0 < steps < 2000 and any(f"no rows left after {steps} steps" in note for note in told.notes)
    assert max(row["laps"] for row in told.tables["mixture"]) <= 1


def test_without_tokens_the_plan_says_so_and_still_has_layouts(tmp_path):
    told = plan_job("pretrain", CONFIG, context_of(str(tmp_path)), Request(gpus=8))
    assert "layouts" in told.tables and any("no mixture is told" in note for note in told.notes)


def test_a_ramp_moves_the_shares_from_the_first_to_the_last_weights(root):
    config = replace(
        CONFIG, weights={"en.web.*": 1, "zh.web.*": 9}, ramp_from={"en.web.*": 9, "zh.web.*": 1}, ramp_fraction=1.0
    )
    plan, _ = plan_of(config, context_of(root))
    shares = [sum(c.share for c in s.cells if c.name == "zh.web.q1") / 65_536 for s in plan.segments]
    assert len(shares) == 16 and shares == sorted(shares)
    assert shares[0] == pytest.approx(0.125, abs=0.001) and shares[-1] == pytest.approx(0.875, abs=0.001)
    assert BatchPlan(plan).steps == 100


def test_further_datasets_join_the_mixture_under_names_of_their_own(root):
    write_tokens(open_store(root), {"en.web.q0": CELLS["en.web.q0"], "en.stem.q1": CELLS["zh.web.q1"]}, name="new")
    config = replace(CONFIG, also=("new",), weights={"en.web.q0": 1, "new/en.web.q0": 1, "*.stem.*": 2})
    plan, _ = plan_of(config, context_of(root))
    assert {c.name: c.share for c in plan.segments[0].cells} == {
        "en.stem.q1": 32_768,
        "en.web.q0": 16_384,
        "new/en.web.q0": 16_384,
    }


def test_settings_that_contradict_each_other_are_refused():
    for wrong in (
        {"ramp_fraction": 0.5},
        {"ramp_from": {"a": 1.0}},
        {"after": "x", "init": "y@3"},
        {"scale_tokens": 0.0},
        {"train_tokens": -1.0},
    ):
        with pytest.raises(ConfigError):
            pretrain.Config(**wrong)


def test_tokens_of_a_run_are_steps_and_scale():
    config = pretrain.Config(train_tokens=2e12, sequence_length=4096, rows_per_batch=4096)
    assert config.all_steps == 119_210
    assert replace(config, scale_tokens=1e-7, sequence_length=64, rows_per_batch=8).all_steps == 391


@pytest.mark.parametrize("name", ["skywork-13b", "baichuan-7b"])
def test_a_training_recipe_parses_whole_and_a_dry_run_shows_its_plan(name, tmp_path, capsys):
    steps = read_recipe(name)
    assert all(step.job == "pretrain" for step in steps)
    for step in steps:
        config_of(step, {})
    main(["run", name, "--dry-run", "--root", str(tmp_path), "--json"])
    body = json.loads(capsys.readouterr().out)
    assert [job["plan"]["tables"]["layouts"][0]["idle"] for job in body["jobs"]] == [0] * len(steps)
    assert not list(tmp_path.iterdir())


def test_the_skywork_recipe_has_the_printed_mixture_and_ramp():
    first, _, second = read_recipe("skywork-13b")
    weights = first.settings["weights"]
    assert sum(weights.values()) == pytest.approx(100)
    assert sum(w for cell, w in weights.items() if cell.startswith("en.")) == pytest.approx(49.8)
    assert sum(w for cell, w in weights.items() if cell.startswith("zh.")) == pytest.approx(39.8)
    for name, stem in (("ramp_from", 10), ("weights", 40)):
        mixture = second.settings[name]
        assert sum(mixture.values()) == pytest.approx(100) and mixture["*.stem.*"] == stem
        rest = {cell: w / (100 - stem) * 100 for cell, w in mixture.items() if cell != "*.stem.*"}
        assert rest == pytest.approx(weights)
    assert (second.settings["schedule"], second.settings["peak_rate"]) == ("constant", 6e-5)


def test_weights_of_the_command_line_take_the_place_of_those_of_a_recipe():
    step = read_recipe("skywork-13b")[0]
    assert config_of(step, {"weights": {"en.web.q1": 1.0}}).weights == {"en.web.q1": 1.0}
    assert config_of(step, {"steps": 5}).weights == step.settings["weights"]
