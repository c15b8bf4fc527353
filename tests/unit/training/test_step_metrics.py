
from __future__ import annotations

import time

import numpy as np
import pytest

pytest.importorskip("torch")

from training.data.plan import CellPlan, DatasetPin, Plan, Segment
from training.data.rows import SpecialTokens, build_row
from training.model.decoder import ModelConfig
from training.model.presets import preset
from training.step_metrics import CellLosses, StepClock, memory, peak_tflops_of, speed, squared_lengths, step_flops

pytestmark = pytest.mark.torch

SPECIAL = SpecialTokens(eos_id=2, pad_id=3, filler_id=4)


def row(*documents: int):
    """A row of documents of these lengths, each but the last ended by EOS."""
    tokens = [token for length in documents for token in [*[9] * (length - 1), SPECIAL.eos_id]]
    return build_row(0, [np.array(tokens)], SPECIAL)


def test_skywork_reaches_what_its_report_says_between_the_two_counts_of_parameters():
    """1,873 tokens a second and A800 in rows of 4,096: 56.5 % (Wei et al., 2023, 3.5)."""
    model = preset("skywork-13b", 65_519)
    told = speed(model, 4096 * 1873, 4096 * 4096 * 1873, 4096.0, 1, peak_tflops_of("NVIDIA A800-SXM4-80GB"))
    assert told["tokens_per_s_rank"] == 1873
    assert told["mfu"] == pytest.approx(0.570, abs=1e-3)
    assert told["mfu_without_embedding"] == pytest.approx(0.559, abs=1e-3)


def test_attention_counts_by_the_lengths_of_documents():
    model = ModelConfig(vocab_size=100, d_model=16, layers=3, heads=4, kv_heads=2, d_ff=32, tied_embeddings=False)
    assert squared_lengths(row(5, 7, 4)) == 25 + 49 + 16
    whole, masked = (step_flops(model, 16, squared) for squared in (256, 90))
    assert whole[0] - masked[0] == 12 * 3 * 4 * 4 * (256 - 90)
    assert masked[0] - masked[1] == 6 * 100 * 16 * 16
    tied = ModelConfig(vocab_size=100, d_model=16, layers=3, heads=4, kv_heads=2, d_ff=32)
    assert step_flops(tied, 16, 90)[0] == step_flops(tied, 16, 90)[1] == masked[1]


@pytest.mark.parametrize(
    ("name", "peak"),
    [("NVIDIA H100 80GB HBM3", 989), ("NVIDIA H200", 989), ("NVIDIA A100-SXM4-40GB", 312), ("NVIDIA L4", None)],
)
def test_a_peak_is_found_by_the_devices_name(name, peak):
    assert peak_tflops_of(name) == peak


def test_without_a_peak_there_is_no_utilisation():
    model = preset("tiny", 100)
    assert speed(model, 10, 100, 2.0, 2, None) == {
        "tokens_per_s": 5.0,
        "tokens_per_s_rank": 2.5,
        "mfu": None,
        "mfu_without_embedding": None,
    }
    assert memory()["peak_rss_bytes"] > 1 << 20


def test_losses_by_cell_add_up_over_the_ranks():
    pin = DatasetPin(name="t", version=1, manifest_sha256="a" * 64)
    cells = [CellPlan(name=n, cell=n, dataset=0, share=1, stretch_tokens=8) for n in ("zh", "en")]
    one = Segment(from_position=0, sequence_length=8, rows_per_batch=1, datasets=(pin,), cells=(cells[0],))
    two = Segment(from_position=9, sequence_length=8, rows_per_batch=1, datasets=(pin,), cells=tuple(cells))
    losses = CellLosses(Plan(seed=1, end_position=20, segments=(one, two)))
    assert losses.names == ["en", "zh"]
    first = losses.sums(["zh", "en"], [row(4, 4), row(8)], [12.0, 14.0])
    second = losses.sums(["zh"], [row(8)], [9.0])
    assert losses.told(first + second) == {
        "loss_by_cell": {"en": 14 / 7, "zh": 21 / 13},
        "tokens_by_cell": {"en": 7, "zh": 13},
    }
    assert losses.told(first * 0) == {"loss_by_cell": {}, "tokens_by_cell": {}}


def test_the_parts_of_a_step_are_its_seconds_and_waits_are_told_over_a_window():
    clock = StepClock()
    time.sleep(0.02)
    clock.lap("other")
    time.sleep(0.03)
    clock.lap("control")
    told = clock.end(0.01, 0.025)
    parts = [value for name, value in told.items() if name.endswith("_seconds") and "_p" not in name]
    assert sum(parts) == pytest.approx(told["seconds"])
    assert told["data_wait_seconds"] == pytest.approx(0.025)
    assert told["stall_share"] == pytest.approx(0.025 / told["seconds"])
    for _ in range(99):
        told = clock.end(0.0, 0.0)
    assert told["data_wait_p50_seconds"] == 0
    assert 0 < told["data_wait_p99_seconds"] < 0.025
    assert clock.end(0.0, 0.0)["stall_share"] == 0, "the first step has left the window"
