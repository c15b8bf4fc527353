"""The engine against a bare torch loop on the same model: time of a step, losses, gradient norms, memory of the start.

`python -m tests.benchmarks.engine` prints tables on stderr and one JSON line on stdout. Two ranks on gloo, one thread
each. The bare loop keeps whole fp32 masters and moments on every rank, adds gradients up in fp32 in one flat
all-reduce, clips and steps as torch does. Steps are timed in turn, a few of each in every round of one run; a round's
time is divided by the bare loop's of the same round. Losses and norms are compared over 50 steps with accumulation and
three and more documents a row. The start's peak is the growth of a process's resident memory while it builds its part,
over the bytes that the part needs to train: weights, masters, moments, and under ZeRO-3 the gradients, which DeepSpeed
allocates at once.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import math
import os
import platform
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch

from tests.unit.training.ranks import run_ranks
from training.data.rows import RowArrays, SpecialTokens, build_row
from training.engine import Engine
from training.layout import EngineConfig
from training.model.decoder import Decoder, ModelConfig, draw, initialise, parameter_shapes

SPECIAL = SpecialTokens(eos_id=2, pad_id=3, filler_id=4)
RATE = 1e-3
TIMED = ModelConfig(vocab_size=2048, d_model=256, layers=8, heads=8, kv_heads=8, d_ff=704)  # 6.9 M parameters
COMPARED = ModelConfig(vocab_size=512, d_model=64, layers=4, heads=4, kv_heads=2, d_ff=176)
BUILT = ModelConfig(vocab_size=8192, d_model=2048, layers=3, heads=16, kv_heads=16, d_ff=5632)  # 171 M
LAYOUTS = {
    "zero1": {"zero_stage": 1},
    "zero2": {"zero_stage": 2},
    "zero3": {"zero_stage": 3},
    "tensor2": {"tensor_parallel": 2},
    "pipe2": {"pipeline_stages": 2},
}


def note(line: str) -> None:
    """One line of a table."""
    sys.stderr.write(line + "\n")


def weights_of(model: ModelConfig, seed: int) -> Callable[[str], torch.Tensor]:
    """The drawn weights by name."""
    shapes = parameter_shapes(model)
    return lambda name: draw(model, name, shapes[name], seed)


def rows_of(step: int, rows: int, length: int, vocab: int) -> list[RowArrays]:
    """Rows of three to six documents."""
    rng = np.random.default_rng(step)
    made = []
    for i in range(rows):
        cuts = sorted(rng.choice(np.arange(8, length - 8), rng.integers(2, 6), replace=False).tolist())
        tokens = rng.zipf(1.3, length) % (vocab - 8) + 8
        spans = [tokens[a:b].copy() for a, b in pairwise([0, *cuts, length])]
        for span in spans:
            span[-1] = SPECIAL.eos_id
        made.append(build_row(step * rows + i, spans, SPECIAL))
    return made


class Bare:
    """A plain loop on this rank: whole fp32 masters, one flat all-reduce, torch's clip and AdamW."""

    def __init__(self, model: ModelConfig, config: EngineConfig) -> None:
        self.world, self.config = torch.distributed.get_world_size(), config
        dtype = torch.bfloat16 if config.precision == "bf16" else torch.float32
        self.model = initialise(Decoder(model), 3).to(dtype)
        self.parameters = list(self.model.parameters())
        self.masters = [p.data.float() if dtype != torch.float32 else p for p in self.parameters]
        self.masters = [
            m if m is p else torch.nn.Parameter(m) for m, p in zip(self.masters, self.parameters, strict=True)
        ]
        groups = [
            {"params": [m for m in self.masters if m.ndim >= 2], "weight_decay": config.weight_decay},
            {"params": [m for m in self.masters if m.ndim < 2], "weight_decay": 0.0},
        ]
        self.adam = torch.optim.AdamW(groups, lr=RATE, betas=(config.beta1, config.beta2), eps=config.eps)

    def step(self, rows: list[RowArrays], micro_steps: int, tokens: int) -> tuple[float, float]:
        """(this rank's sum of token losses, the gradient's norm)."""
        summed, size = 0.0, self.config.micro_batch_rows
        for i in range(micro_steps):
            fields = ("ids", "positions", "documents", "labels")
            chosen = rows[i * size : (i + 1) * size]
            batch = [torch.from_numpy(np.stack([getattr(row, f) for row in chosen])).long() for f in fields]
            by_row = self.model(*batch)
            (by_row.sum() * (self.world / tokens)).backward()
            summed += float(by_row.detach().double().sum())
        flat = torch.cat([p.grad.reshape(-1).float() for p in self.parameters])
        torch.distributed.all_reduce(flat)
        flat /= self.world
        parts = flat.split([p.numel() for p in self.parameters])
        for master, part in zip(self.masters, parts, strict=True):
            master.grad = part.view_as(master)
        norm = torch.nn.utils.clip_grad_norm_(self.masters, self.config.gradient_clip)
        self.adam.step()
        for parameter, master in zip(self.parameters, self.masters, strict=True):
            parameter.grad = None
            if parameter is not master:
                parameter.data.copy_(master.data)
        return summed, float(norm)


def cpu_seconds() -> float:
    """User and system time of this rank."""
    times = os.times()
    return times.user + times.system


def time_steps(rounds: int, steps: int) -> dict[str, list[tuple[float, float]]]:
    """(wall, CPU seconds) of a step in every round, by loop; a round has `steps` of each."""
    base = EngineConfig(micro_batch_rows=4)
    ours = {
        name: Engine(TIMED, weights_of(TIMED, 3), replace(base, **LAYOUTS[name]), SPECIAL) for name in list(LAYOUTS)[:3]
    }
    bare, rank = Bare(TIMED, base), torch.distributed.get_rank()
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in ("bare", *ours)}
    for turn in range(rounds + 1):
        for name in list(found) if turn % 2 else list(found)[::-1]:
            torch.distributed.barrier()
            wall, cpu = time.perf_counter(), cpu_seconds()
            for step in range(steps):
                rows = rows_of(turn * steps + step, 8, 256, TIMED.vocab_size)
                tokens, mine = sum(row.trained_tokens for row in rows), rows[4 * rank : 4 * rank + 4]
                if name == "bare":
                    bare.step(mine, 1, tokens)
                else:
                    ours[name].train_step(mine, micro_steps=1, trained_tokens=tokens, learning_rate=RATE)
            torch.distributed.barrier()
            if turn:  # the first is the warm-up
                found[name].append(((time.perf_counter() - wall) / steps, (cpu_seconds() - cpu) / steps))
    return found


def curves(precision: str, clip: float, micro: int, steps: int) -> dict[str, list[tuple[float, float, bool]]]:
    """(sum of losses, norm, speaks) of every step on this rank, by layout."""
    base = EngineConfig(micro_batch_rows=micro, precision=precision, gradient_clip=clip)
    made: dict[str, list[tuple[float, float, bool]]] = {}
    for name in ("bare", *LAYOUTS):
        engine = (
            None
            if name == "bare"
            else Engine(COMPARED, weights_of(COMPARED, 3), replace(base, **LAYOUTS[name]), SPECIAL)
        )
        loop = Bare(COMPARED, base) if engine is None else None
        rank, size = (engine.data_rank, engine.data_size) if engine else (torch.distributed.get_rank(), 2)
        made[name] = []
        for step in range(steps):
            rows = rows_of(step, 8, 64, COMPARED.vocab_size)
            tokens, mine = sum(row.trained_tokens for row in rows), rows[8 * rank // size : 8 * (rank + 1) // size]
            if loop:
                summed, norm = loop.step(mine, len(mine) // micro, tokens)
                made[name].append((summed / tokens, norm, True))
            else:
                outcome = engine.train_step(
                    mine, micro_steps=len(mine) // micro, trained_tokens=tokens, learning_rate=RATE
                )
                made[name].append((outcome.nll_sum / tokens, outcome.grad_norm, engine.speaks))
    return made


def compare(precision: str, clip: float, micro: int, steps: int) -> dict[str, tuple[float, float, float]]:
    """From the bare loop, by layout: the largest difference of a loss, the largest and the median one of a norm."""
    ranks = run_ranks(curves, 2, precision, clip, micro, steps)
    summed = {
        name: [
            (sum(rank[name][i][0] for rank in ranks if rank[name][i][2]), ranks[0][name][i][1]) for i in range(steps)
        ]
        for name in ranks[0]
    }
    found = {}
    for name in LAYOUTS:
        losses = [abs(a[0] - b[0]) for a, b in zip(summed[name], summed["bare"], strict=True)]
        norms = [abs(a[1] - b[1]) / b[1] for a, b in zip(summed[name], summed["bare"], strict=True)]
        found[name] = (max(losses), max(norms), median(norms))
    return found


def build(config: EngineConfig) -> tuple[int, int]:
    """(growth of resident memory to its peak while the engine is built, bytes of this rank's part)."""
    small = replace(BUILT, d_model=64, d_ff=128, layers=2, vocab_size=100)
    Engine(small, weights_of(small, 1), config, SPECIAL)  # what libraries allocate once
    Path("/proc/self/clear_refs").write_text("5")  # the peak counts from here
    before = _status("VmRSS")
    engine = Engine(BUILT, weights_of(BUILT, 1), config, SPECIAL)
    grown = _status("VmHWM") - before
    elements = sum(fragment.length for fragment in engine.fragments(owned=False))
    width = 2 if config.precision == "bf16" else 4
    held = math.prod([BUILT.parameters, width]) // (config.tensor_parallel * config.pipeline_stages)
    if config.pipeline_stages > 1 or config.tensor_parallel > 1:
        held = elements * width
    if config.zero_stage == 3:
        held = 2 * elements * width
    return grown, 12 * elements + held


def _status(field: str) -> int:
    [line] = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(field)]
    return int(line.split()[1]) * 1024


def main() -> None:
    """All tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=8, help="of each loop in a round")
    parser.add_argument("--only", choices=("time", "agreement", "memory"), default=None)
    arguments = parser.parse_args()
    line: dict[str, Any] = {"benchmark": "engine", "rounds": arguments.rounds, "steps": arguments.steps, "ranks": 2}
    if arguments.only in (None, "time"):
        ranks = run_ranks(time_steps, 2, arguments.rounds, arguments.steps)
        bare_cpu = median(cpu for rank in ranks for _, cpu in rank["bare"])
        note(f"{'loop':8} {'ms a step':>10} {'CPU ms a rank':>14} {'to bare, by round':>20} {'CPU to bare':>22}")
        for name in ranks[0]:
            walls = [wall for wall, _ in ranks[0][name]]
            cpus = [sum(rank[name][i][1] for rank in ranks) / 2 for i in range(arguments.rounds)]
            ratios = [wall / bare for wall, (bare, _) in zip(walls, ranks[0]["bare"], strict=True)]
            note(
                f"{name:8} {1e3 * median(walls):10.1f} {1e3 * median(cpus):14.1f} {median(ratios):8.2f} "
                f"({min(ratios):.2f}..{max(ratios):.2f}) {median(cpus) / bare_cpu:22.2f}"
            )
            line |= {f"{name}_ms": round(1e3 * median(walls), 1), f"{name}_cpu_ms": round(1e3 * median(cpus), 1)}
            if name != "bare":
                line |= {
                    name: round(median(ratios), 3),
                    f"{name}_spread": [round(min(ratios), 3), round(max(ratios), 3)],
                    f"{name}_cpu": round(median(cpus) / bare_cpu, 3),
                }
    if arguments.only in (None, "agreement"):
        note(f"{'':32} {'layout':8} {'loss':>10} {'norm, relative':>16} {'its median':>12}")
        cases = {
            "fp32, as it is": ("fp32", 1e9, 4),
            "fp32, accumulated": ("fp32", 1e9, 2),
            "fp32, accumulated, clipped": ("fp32", 0.5, 2),
            "bf16, accumulated, clipped": ("bf16", 0.5, 2),
        }
        for case, settings in cases.items():
            for name, (loss, norm, middle) in compare(*settings, 50).items():
                note(f"{case:32} {name:8} {loss:10.1e} {norm:16.1e} {middle:12.1e}")
                told = {
                    "loss": float(f"{loss:.2e}"),
                    "norm": float(f"{norm:.2e}"),
                    "norm_median": float(f"{middle:.2e}"),
                }
                line.setdefault(case, {})[name] = told
        line["zero_bitwise"] = int(all(line["fp32, as it is"][f"zero{stage}"]["loss"] == 0 for stage in (1, 2, 3)))
    if arguments.only in (None, "memory"):
        for name, settings in LAYOUTS.items():
            for precision in ("fp32", "bf16"):
                found = run_ranks(build, 2, EngineConfig(precision=precision, **settings))
                line[f"{name}_{precision}_start"] = round(max(grown / part for grown, part in found), 3)
                note(
                    f"start {name:8} {precision}: "
                    + ", ".join(f"{grown / 1e6:.0f} of {part / 1e6:.0f} MB" for grown, part in found)
                )
    line["versions"] = {name: importlib.metadata.version(name) for name in ("torch", "deepspeed", "numpy")}
    line["machine"] = f"{platform.machine()}, {os.cpu_count()} CPUs"
    sys.stdout.write(json.dumps(line) + "\n")


if __name__ == "__main__":
    main()
