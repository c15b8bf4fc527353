"""Checkpoints from any layout into any other, planted faults, what a save costs training, what a load fetches.

`python -m tests.benchmarks.checkpoint` prints a table on stderr and one JSON line on stdout. A small model is trained
on six steps in each layout and saved; every layout then restores every checkpoint: masters and moments are compared to
the bit with what was saved, and the losses of the steps that follow with those of the layout that did not stop. Of a
larger model a save is timed beside torch.save of the same state, in turn, and the bytes are counted that ranks of other
layouts fetch.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import statistics
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tests.benchmarks.checkpoint_ranks import MODEL, Layout, Owned, plant, read, read_large, write, write_large
from tests.benchmarks.filters import note
from tests.unit.training.ranks import run_ranks
from tests.unit.training.training_tasks import prepare

LAYOUTS = (
    Layout(name="zero1_dp1", world=1, zero_stage=1),
    Layout(name="zero1_dp2", world=2, zero_stage=1),
    Layout(name="zero2_dp3", world=3, zero_stage=2),
    Layout(name="zero3_dp2", world=2, zero_stage=3),
    Layout(name="zero3_dp3", world=3, zero_stage=3),
    Layout(name="tp2", world=2, zero_stage=1, tensor_parallel=2),
    Layout(name="pp2", world=2, zero_stage=1, pipeline_stages=2),
    Layout(name="tp2_dp2", world=4, zero_stage=2, tensor_parallel=2),
)
LOSS_TOLERANCE = 1e-5
ROUNDS = 5


def whole(ranks: Sequence[Owned]) -> dict[str, np.ndarray]:
    """What all ranks own together: (elements,) by parameter and state, NaN where nobody has it."""
    sizes: dict[str, int] = {}
    for owned in ranks:
        for name, places, _ in owned:
            sizes[name] = max(sizes.get(name, 0), int(places.max()) + 1)
    found: dict[str, np.ndarray] = {}
    for owned in ranks:
        for name, places, values in owned:
            for state, part in values.items():
                found.setdefault(f"{name}/{state}", np.full(sizes[name], np.nan, np.float32))[places] = part
    return found


def same_state(one: dict[str, np.ndarray], other: dict[str, np.ndarray]) -> bool:
    """Equal to the bit, and nothing missing."""
    return one.keys() == other.keys() and all(
        np.array_equal(values.view(np.uint32), other[name].view(np.uint32)) and not np.isnan(values).any()
        for name, values in one.items()
    )


def furthest(one: Sequence[float], other: Sequence[float]) -> float:
    """Between two curves of losses."""
    return max(abs(a - b) for a, b in zip(one, other, strict=True))


def every_pair(folder: Path, layouts: Sequence[Layout]) -> tuple[dict[str, Any], dict[str, Any]]:
    """(keys of the line, what each layout saved) after every layout has read every checkpoint."""
    roots = {layout.name: str(folder / layout.name) for layout in layouts}
    saved: dict[str, Any] = {}
    for layout in layouts:
        prepare(roots[layout.name], model=MODEL)
        ranks = run_ranks(write, layout.world, roots[layout.name], layout)
        saved[layout.name] = {"state": whole([r["owned"] for r in ranks]), "losses": ranks[0]["losses"]}
        note(f"saved by {layout.name}")
    is_bitwise, is_close, is_same_layout, worst = True, True, True, 0.0
    for layout in layouts:
        found = run_ranks(read, layout.world, list(roots.values()), layout)
        for number, (name, before) in enumerate(saved.items()):
            state, losses = whole([rank[number]["owned"] for rank in found]), found[0][number]["losses"]
            away = furthest(losses, before["losses"])
            worst = max(worst, away)
            is_bitwise &= same_state(before["state"], state)
            is_close &= away <= LOSS_TOLERANCE
            if name == layout.name:
                is_same_layout &= losses == before["losses"]
            bits = "to the bit" if same_state(before["state"], state) else "DIFFERENT"
            note(f"{name:>10} -> {layout.name:<10} state {bits}, losses {away:.1e}")
    line = {
        "same_layout_bitwise": int(is_same_layout),
        "state_bitwise": int(is_bitwise),
        "losses_close": int(is_close),
        "worst_loss_difference": float(f"{worst:.2e}"),
        "pairs": len(layouts) ** 2,
    }
    return line, saved


def planted(folder: Path, layout: Layout, before: dict[str, Any]) -> dict[str, Any]:
    """How many planted faults the same comparison finds."""
    ranks = run_ranks(plant, layout.world, str(folder / layout.name), layout)
    caught = {}
    for fault in ranks[0]:
        state = whole([rank[fault]["owned"] for rank in ranks])
        away = furthest(ranks[0][fault]["losses"], before["losses"])
        caught[fault] = not same_state(before["state"], state) or away > LOSS_TOLERANCE
        note(f"{fault:>22}: losses {away:.1e}, {'found' if caught[fault] else 'not found'}")
    caught["stale_attempt"] &= ranks[0]["stale_attempt"]["refused"]
    is_untouched = not caught.pop("after_a_stale_attempt")
    return {"faults_planted": len(caught), "faults_caught": sum(caught.values()), "chain_untouched": int(is_untouched)}


def cost(folder: Path) -> dict[str, Any]:
    """Seconds that a save stops training, beside torch.save; bytes that other layouts fetch over those they hold."""
    layout = Layout(name="large", world=2, zero_stage=2)
    root = str(folder / layout.name)
    prepare(root, model=MODEL)
    took = run_ranks(write_large, layout.world, root, layout, ROUNDS)
    slowest = {name: [max(each) for each in zip(*(rank[name] for rank in took), strict=True)] for name in took[0]}
    told = {name: round(statistics.median(seconds), 4) for name, seconds in slowest.items()}
    fetched = {}
    for other in (
        Layout(name="zero2_dp2", world=2, zero_stage=2),
        Layout(name="zero3_dp3", world=3, zero_stage=3),
        Layout(name="tp2", world=2, zero_stage=1, tensor_parallel=2),
        Layout(name="pp2", world=2, zero_stage=1, pipeline_stages=2),
    ):
        fetched[other.name] = round(max(run_ranks(read_large, other.world, root, other)), 4)
        note(f"{other.name}: {fetched[other.name]} of its own bytes fetched")
    return {
        "stall_s": told["ours"],
        "torch_save_s": told["torch_save"],
        "upload_s": told["uploaded"],
        "stall_s_spread": [round(bound(slowest["ours"]), 4) for bound in (min, max)],
        "torch_save_s_spread": [round(bound(slowest["torch_save"]), 4) for bound in (min, max)],
        "rounds": ROUNDS,
        "bytes_read_over_own": max(fetched.values()),
        "bytes_read_over_own_each": fetched,
    }


def main() -> None:
    """All parts, or those that are named."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--parts", default="pairs,cost")
    parts = parser.parse_args().parts.split(",")
    line: dict[str, Any] = {"benchmark": "checkpoint"}
    with tempfile.TemporaryDirectory() as made:
        if "pairs" in parts:
            found, saved = every_pair(Path(made), LAYOUTS)
            line |= found | planted(Path(made), LAYOUTS[1], saved[LAYOUTS[1].name])
        if "cost" in parts:
            line |= cost(Path(made))
    line["versions"] = {name: importlib.metadata.version(name) for name in ("torch", "deepspeed", "numpy")}
    for name, value in line.items():
        note(f"{name:28} {value}")
    sys.stdout.write(json.dumps(line) + "\n")


if __name__ == "__main__":
    main()
