# ruff: noqa: E402  (torch may be absent)
"""One layout's checkpoint in every other: masters and moments to the bit, and the losses that follow."""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("deepspeed")

from pipelines.datasets.store import open_store
from tests.unit.training.ranks import run_ranks
from tests.unit.training.test_engine import SPECIAL, drawn, rows_of
from training.checkpoint.reader import FORMAT, CheckpointReader
from training.checkpoint.slices import STATES, table_key, write_slices
from training.engine import Engine
from training.layout import EngineConfig
from training.model.decoder import ModelConfig, parameter_shapes

pytestmark = pytest.mark.torch

MODEL = ModelConfig(vocab_size=61, d_model=24, layers=3, heads=4, kv_heads=2, d_ff=48)
ENGINE = EngineConfig(micro_batch_rows=2, gradient_clip=1e6, persist_below_parameters=100)
SOURCES = {
    "zero2-dp2": (2, replace(ENGINE, zero_stage=2)),
    "tensor2": (2, replace(ENGINE, tensor_parallel=2)),
    "pipe2": (2, replace(ENGINE, pipeline_stages=2)),
    "zero3-dp3": (3, replace(ENGINE, zero_stage=3)),
}
TARGETS = {
    1: [ENGINE],
    2: [
        replace(ENGINE, zero_stage=3),
        replace(ENGINE, tensor_parallel=2, zero_stage=2),
        replace(ENGINE, pipeline_stages=2),
    ],
    3: [replace(ENGINE, zero_stage=2)],
}
BEFORE, AFTER = 2, 3
Held = list[tuple[str, tuple[int, ...], tuple[int, ...], int, dict[str, np.ndarray]]]


def steps(engine: Engine, first: int, last: int, *, rate_at: int = 0) -> list[float]:
    """Losses of some steps, the same rows in any layout; the rate falls with the step."""
    losses = []
    for step in range(first, last):
        rows = rows_of(step % 4)
        tokens = sum(row.trained_tokens for row in rows)
        cut = [len(rows) * i // engine.data_size for i in range(engine.data_size + 1)]
        outcome = engine.train_step(
            rows[cut[engine.data_rank] : cut[engine.data_rank + 1]],
            micro_steps=math.ceil(math.ceil(len(rows) / engine.data_size) / 2),
            trained_tokens=tokens,
            learning_rate=3e-3 / (1 + step + rate_at),
        )
        losses.append(outcome.nll_sum / tokens)
    return losses


def held(engine: Engine) -> Held:
    return [
        (f.parameter, f.start, f.size, f.offset, {s: f.tensors[s].detach().float().numpy().copy() for s in STATES})
        for f in engine.fragments(owned=True)
    ]


def save(root: str, name: str, config: EngineConfig) -> tuple[Held, Held, list[float], str]:
    """Train, save, go on: (what was owned at first, at the save, the losses after it, the sha256 of this table)."""
    engine = Engine(MODEL, drawn(MODEL, 3), config, SPECIAL)
    first = held(engine)
    steps(engine, 0, BEFORE)
    table = write_slices(open_store(root), name, engine.rank, engine.fragments(owned=True), engine.shapes)
    return first, held(engine), steps(engine, BEFORE, BEFORE + AFTER), table


def save_each(root: str, world: int) -> list[tuple[str, tuple[Held, Held, list[float], str]]]:
    return [(name, save(root, name, config)) for name, (size, config) in SOURCES.items() if size == world]


def commit(root: str, name: str, tables: list[str]) -> str:
    body = {
        "format": FORMAT,
        "parameters": [{"name": n, "shape": list(shape)} for n, shape in parameter_shapes(MODEL).items()],
        "slice_tables": [{"key": table_key(name, rank, sha), "sha256": sha} for rank, sha in enumerate(tables)],
    }
    encoded = json.dumps(body).encode()
    open_store(root).put(f"{name}/checkpoint.json", encoded)
    return hashlib.sha256(encoded).hexdigest()


@torch.no_grad()
def load(engine: Engine, reader: CheckpointReader, *, adam_steps: int) -> None:
    for fragment in engine.fragments(owned=False):
        box = {"start": fragment.start, "size": fragment.size}
        for state, run in reader.read(fragment.parameter, fragment.offset, fragment.length, **box).items():
            target = fragment.tensors[state]
            target.copy_(torch.from_numpy(run).view(target.shape))
    engine.after_load(adam_steps=adam_steps)


def load_each(root: str, checkpoints: dict[str, str], configs: list[EngineConfig]) -> list[dict[str, Any]]:
    """Every checkpoint in each of the layouts; in the first layout also what must not go unseen."""
    seen = []
    for i, config in enumerate(configs):
        engine = Engine(MODEL, drawn(MODEL, 8), config, SPECIAL)
        for name, sha256 in checkpoints.items():
            reader = CheckpointReader(open_store(root), f"{name}/checkpoint.json", sha256)
            load(engine, reader, adam_steps=BEFORE)
            found = {"source": name, "layout": config, "held": held(engine)}
            found["losses"] = steps(engine, BEFORE, BEFORE + AFTER)
            seen.append(found)
        if i == 0:
            faults = {}
            load(engine, reader, adam_steps=BEFORE + 1)
            faults["adam's step is off by one"] = steps(engine, BEFORE, BEFORE + AFTER)
            load(engine, reader, adam_steps=BEFORE)
            faults["the schedule is off by one"] = steps(engine, BEFORE, BEFORE + AFTER, rate_at=1)
            load(engine, reader, adam_steps=BEFORE)
            for fragment in engine.fragments(owned=False):
                fragment.tensors["exp_avg"].zero_()
            faults["a moment is zero"] = steps(engine, BEFORE, BEFORE + AFTER)
            seen.append({"faults": faults, "source": name})
    return seen


def whole(ranks: list[Held]) -> dict[str, dict[str, np.ndarray]]:
    """The parameters put together; each element must come exactly once."""
    shapes = parameter_shapes(MODEL)
    made = {name: {state: np.zeros(shape, np.float32) for state in STATES} for name, shape in shapes.items()}
    times = {name: np.zeros(shape, np.int64) for name, shape in shapes.items()}
    for name, start, size, offset, tensors in (run for rank in ranks for run in rank):
        box = tuple(slice(s, s + n) for s, n in zip(start, size, strict=True))
        where = np.unravel_index(np.arange(offset, offset + tensors["master"].size), size)
        times[name][box][where] += 1
        for state in STATES:
            made[name][state][box][where] = tensors[state].reshape(-1)
    assert all((count == 1).all() for count in times.values()), "owned fragments do not tile every parameter"
    return made


def same(one: dict[str, dict[str, np.ndarray]], two: dict[str, dict[str, np.ndarray]]) -> bool:
    return all(np.array_equal(one[name][state], two[name][state]) for name in one for state in STATES)


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    root = str(Path(tmp_path_factory.mktemp("layouts")))
    found = {}
    for world in (2, 3):
        for runs in zip(*run_ranks(save_each, world, root, world), strict=True):
            name = runs[0][0]
            firsts, saves, losses, tables = zip(*(run for _, run in runs), strict=True)
            found[name] = (whole(list(firsts)), whole(list(saves)), [sum(step) for step in zip(*losses, strict=True)])
            found[name] += (commit(root, name, list(tables)),)
    return root, found


def test_first_weights_are_equal_to_the_bit_in_any_layout(saved):
    weights = drawn(MODEL, 3)
    for name, (first, *_) in saved[1].items():
        for parameter, states in first.items():
            assert np.array_equal(states["master"], weights(parameter).numpy()), (name, parameter)
            assert not states["exp_avg"].any()


@pytest.mark.parametrize("world", TARGETS)
def test_any_layout_goes_on_from_any_other_and_planted_faults_are_seen(saved, world):
    root, found = saved
    checkpoints = {name: made[3] for name, made in found.items()}
    for runs in zip(*run_ranks(load_each, world, root, checkpoints, TARGETS[world]), strict=True):
        _, at_save, after, _ = found[runs[0]["source"]]
        if "faults" in runs[0]:
            for fault in runs[0]["faults"]:
                losses = [sum(step) for step in zip(*(run["faults"][fault] for run in runs), strict=True)]
                assert losses != pytest.approx(after, rel=1e-5), fault
            continue
        assert same(whole([run["held"] for run in runs]), at_save), (runs[0]["source"], runs[0]["layout"])
        losses = [sum(step) for step in zip(*(run["losses"] for run in runs), strict=True)]
        assert losses == pytest.approx(after, rel=1e-5), (runs[0]["source"], runs[0]["layout"])
