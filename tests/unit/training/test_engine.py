# ruff: noqa: E402  (torch may be absent)
"""The loss scaling: norms and losses at any world size and ZeRO stage equal those of one plain process."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("deepspeed")

from pipelines.errors import ConfigError
from tests.unit.training.ranks import run_ranks
from training.data.rows import RowArrays, SpecialTokens, build_row
from training.engine import Engine
from training.layout import EngineConfig
from training.model.decoder import Decoder, ModelConfig, draw, initialise, parameter_shapes

pytestmark = pytest.mark.torch

MODEL = ModelConfig(vocab_size=61, d_model=24, layers=3, heads=4, kv_heads=2, d_ff=40)
SPECIAL = SpecialTokens(eos_id=2, pad_id=3, filler_id=4)
ENGINE = EngineConfig(zero_stage=1, micro_batch_rows=2, gradient_clip=0.05, persist_below_parameters=100)
RATE = 3e-3
# Rows a step: 5 leaves ranks uneven, 1 leaves ranks without any row.
BATCHES = (5, 7, 1, 6)


def rows_of(step: int) -> list[RowArrays]:
    """Rows of very different numbers of labels: whole ones, cut ones, one that is nearly all filler."""
    rng = np.random.default_rng(step)
    rows = []
    for i in range(BATCHES[step]):
        tokens = rng.integers(5, 61, 16)
        tokens[rng.random(16) < 0.1] = 2
        if i % 3 == 2:
            tokens[: 12 + i % 2] = 4
        rows.append(build_row(100 * step + i, [tokens[: 5 + i], tokens[5 + i :]], SPECIAL))
    return rows


def reference() -> list[tuple[list[float], float, float]]:
    """(losses of the rows, loss, gradient norm) of every step in a bare loop: one process, one batch, no DeepSpeed."""
    model = initialise(Decoder(MODEL), 3)
    groups = [
        {"params": [p for p in model.parameters() if p.ndim >= 2], "weight_decay": ENGINE.weight_decay},
        {"params": [p for p in model.parameters() if p.ndim < 2], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=RATE, betas=(ENGINE.beta1, ENGINE.beta2), eps=ENGINE.eps)
    curve = []
    for step in range(len(BATCHES)):
        rows = rows_of(step)
        n = sum(row.trained_tokens for row in rows)
        fields = ("ids", "positions", "documents", "labels")
        batch = [torch.from_numpy(np.stack([getattr(row, f) for row in rows])).long() for f in fields]
        by_row = model(*batch)
        loss = by_row.sum() / n
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(model.parameters(), ENGINE.gradient_clip)
        optimizer.step()
        optimizer.zero_grad()
        curve.append((by_row.tolist(), loss.item(), norm.item()))
    return curve


def drawn(model: ModelConfig, seed: int):
    shapes = parameter_shapes(model)
    return lambda name: draw(model, name, shapes[name], seed)


def train(config: EngineConfig) -> list[dict[str, Any]]:
    """What one rank sees: its part of the loss, the norm, and whether the update was applied."""
    engine = Engine(MODEL, drawn(MODEL, 3), config, SPECIAL)
    steps = []
    for step in range(len(BATCHES)):
        rows = rows_of(step)
        n, world = len(rows), engine.data_size
        mine = rows[engine.data_rank * n // world : (engine.data_rank + 1) * n // world]
        micro_steps = math.ceil(math.ceil(n / world) / config.micro_batch_rows)
        tokens = sum(row.trained_tokens for row in rows)
        outcome = engine.train_step(
            mine,
            micro_steps=micro_steps,
            trained_tokens=tokens,
            learning_rate=RATE,
        )
        steps.append(
            {
                "nll": outcome.nll_sum / tokens,
                "rows": outcome.row_losses.tolist(),
                "norm": outcome.grad_norm,
                "applied": outcome.applied,
                "speaks": engine.speaks,
                "evaluated": float(engine.evaluate(rows_of(0)).sum()),
            }
        )
    return steps


@pytest.fixture(scope="module")
def curve() -> list[tuple[list[float], float, float]]:
    return reference()


CONFIGS = [replace(ENGINE, zero_stage=stage) for stage in (0, 1, 2, 3)]
LOW = [
    replace(ENGINE, precision="bf16", **layout)
    for layout in ({"zero_stage": 1}, {"zero_stage": 3}, {"tensor_parallel": 2}, {"pipeline_stages": 2})
]
LAYOUTS = {
    1: CONFIGS,
    2: [
        *CONFIGS,
        *(replace(ENGINE, tensor_parallel=2, zero_stage=stage) for stage in (1, 2, 3)),
        replace(ENGINE, pipeline_stages=2),
        replace(ENGINE, zero_stage=2, offload="optimizer"),
        replace(ENGINE, zero_stage=3, offload="all", checkpoint_activations=True),
        replace(ENGINE, pipeline_stages=2, checkpoint_activations=True),
    ],
    3: [*CONFIGS, replace(ENGINE, pipeline_stages=3)],
    4: [
        replace(ENGINE, tensor_parallel=2, zero_stage=3),
        replace(ENGINE, pipeline_stages=2),
        replace(ENGINE, pipeline_stages=2, tensor_parallel=2),
    ],
}


def train_each(configs: list[EngineConfig]) -> list[list[dict[str, Any]]]:
    return [train(config) for config in configs]


@pytest.mark.parametrize("world_size", LAYOUTS)
def test_loss_and_gradient_norm_equal_one_process_in_any_layout(curve, world_size):
    ranks = run_ranks(train_each, world_size, LAYOUTS[world_size])
    for config, runs in zip(LAYOUTS[world_size], zip(*ranks, strict=True), strict=True):
        for step, (by_row, loss, norm) in enumerate(curve):
            speaking = [run[step] for run in runs if run[step]["speaks"]]
            assert len(speaking) == world_size // config.tensor_parallel // config.pipeline_stages
            assert sum(run["nll"] for run in speaking) == pytest.approx(loss, abs=2e-6), (config, step)
            assert [row for run in speaking for row in run["rows"]] == pytest.approx(by_row, abs=1e-4), (config, step)
            assert not any(row for run in runs if not run[step]["speaks"] for row in run[step]["rows"])
            for run in runs:
                assert run[step]["norm"] == pytest.approx(norm, rel=1e-4), (config, step)
                assert run[step]["applied"]
            assert {run[step]["evaluated"] for run in runs} == {runs[0][step]["evaluated"]}
            assert runs[0][step]["evaluated"] == pytest.approx(sum(curve[0][0]), rel=0.2)


@pytest.mark.slow
def test_compiled_layers_have_the_losses_of_plain_ones(curve):
    [[run]] = run_ranks(train_each, 1, [replace(ENGINE, compile_model=True)])
    for step, (_, loss, norm) in enumerate(curve):
        assert run[step]["nll"] == pytest.approx(loss, abs=1e-5)
        assert run[step]["norm"] == pytest.approx(norm, rel=1e-4)


@pytest.mark.slow
def test_bf16_stays_near_the_fp32_curve(curve):
    for runs in zip(*run_ranks(train_each, 2, LOW), strict=True):
        for step, (_, loss, norm) in enumerate(curve):
            assert sum(run[step]["nll"] for run in runs if run[step]["speaks"]) == pytest.approx(loss, rel=5e-3)
            assert runs[0][step]["norm"] == pytest.approx(norm, rel=5e-2)


DROPPING = [*CONFIGS, replace(ENGINE, tensor_parallel=2)]


def drop_one() -> list[tuple[bool, bool, bool, int]]:
    """In each layout: an update that is infinite on rank 0 only, then a good one."""
    seen = []
    for config in DROPPING:
        engine = Engine(MODEL, drawn(MODEL, 3), config, SPECIAL)
        before = [fragment.tensors["master"].clone() for fragment in engine.fragments(owned=False)]
        first = engine.train_step(
            rows_of(0)[:2],
            micro_steps=1,
            trained_tokens=1e-45 if engine.rank == 0 else 10,
            learning_rate=RATE,
        )
        after = [fragment.tensors["master"] for fragment in engine.fragments(owned=False)]
        unchanged = all(torch.equal(a, b) for a, b in zip(before, after, strict=True))
        second = engine.train_step(rows_of(0)[:2], micro_steps=1, trained_tokens=10, learning_rate=RATE)
        seen.append((first.applied, unchanged, second.applied, engine.adam_steps))
    return seen


def test_a_non_finite_gradient_on_one_rank_drops_the_update_on_all_and_is_seen():
    assert run_ranks(drop_one, 2) == [[(False, True, True, 1)] * len(DROPPING)] * 2


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"zero_stage": 0, "precision": "bf16"}, "no fp32 master"),
        ({"zero_stage": 2, "pipeline_stages": 2}, "pipeline stages with zero_stage 2"),
        ({"zero_stage": 3, "pipeline_stages": 2}, "pipeline stages with zero_stage 3"),
        ({"zero_stage": 0, "tensor_parallel": 2}, "no gradient norm over the tensor ranks"),
        ({"zero_stage": 0, "offload": "optimizer"}, "no masters to keep"),
        ({"zero_stage": 2, "offload": "all"}, "only stage 3 fetches"),
        ({"pipeline_stages": 2, "offload": "optimizer"}, "offload with pipeline"),
        ({"zero_stage": 3, "compile_model": True}, "hooks"),
        ({"tensor_parallel": 0}, "tensor_parallel 0"),
        ({"micro_batch_rows": 0}, "at least 1 row"),
    ],
)
def test_what_cannot_be_trained_on_any_machine_is_refused_with_the_reason(wrong, said):
    with pytest.raises(ConfigError, match=said):
        EngineConfig(**wrong)
