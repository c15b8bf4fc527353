from __future__ import annotations

from dataclasses import replace

import pytest

from pipelines.errors import ConfigError
from training.hardware import gpu
from training.layout_search import Work, layout, layouts, stage_layers
from training.model.presets import preset, scaled
from training.step_metrics import step_flops

SKYWORK = Work(model=preset("skywork-13b", 65_519), sequence_length=4096, rows_per_batch=4096)
A800 = gpu("a800-80g")


@pytest.mark.parametrize(
    ("data", "tensor", "pipeline", "published"),  # tokens a second and GPU; Wei et al., 2023, table 10
    [(256, 1, 2, 1873), (256, 2, 1, 1775), (128, 2, 2, 1776), (128, 1, 4, 1828), (128, 4, 1, 1417)],
)
def test_speed_is_within_six_percent_of_a_published_search(data, tensor, pipeline, published):
    found = layout(SKYWORK, A800, data=data, tensor=tensor, pipeline=pipeline)
    assert found.tokens_per_s / found.gpus == pytest.approx(published, rel=0.06)


def test_memory_tells_the_published_layout_fits_and_plain_data_parallelism_does_not():
    whole = layout(SKYWORK, A800, data=512)
    halves = layout(SKYWORK, A800, data=256, pipeline=2)
    assert whole.memory_gb > 80  # "out of memory" in the table
    assert halves.memory_gb == pytest.approx(77.1, rel=0.05)  # published


def test_the_search_finds_the_layout_that_was_trained():
    best = layouts(SKYWORK, A800, 512)[0]
    assert (best.data, best.tensor, best.pipeline, best.zero_stage, best.idle_gpus) == (256, 1, 2, 1, 0)


def test_24_gpus_all_work_although_64_layers_divide_by_none_of_their_thirds():
    """Three servers of eight were bought once, and a layout that only knew equal stages could use sixteen GPUs."""
    model = scaled(preset("13b", 65_536), depth=64 / 40)
    assert model.layers == 64
    work = Work(model=model, sequence_length=2048, rows_per_batch=512)
    found = layouts(work, A800, 24)
    assert found and found[0].idle_gpus == 0 and found[0].gpus == 24
    thirds = [one for one in found if one.pipeline % 3 == 0]
    assert thirds and all(one.idle_gpus == 0 for one in thirds)
    thirds = stage_layers(model, 3)
    assert sum(thirds) == 64 and max(thirds) - min(thirds) <= 1 and thirds == thirds[::-1]


def test_every_layout_listed_fits_and_uses_no_gpu_twice():
    for count in (1, 7, 8, 23, 24):
        for one in layouts(Work(model=preset("1.3b", 65_536), sequence_length=4096, rows_per_batch=64), A800, count):
            assert one.memory_gb <= 0.97 * A800.memory_gb
            assert one.gpus + one.idle_gpus == count and one.idle_gpus >= 0
            assert 8 % one.tensor == 0
            assert one.zero_stage == 1 or one.pipeline == 1


def test_recomputing_activations_is_the_last_resort():
    small = layouts(Work(model=preset("1.3b", 65_536), sequence_length=4096, rows_per_batch=64), A800, 8)
    assert not small[0].checkpoint_activations
    long_rows = layouts(Work(model=preset("baichuan-7b", 65_536), sequence_length=32_768, rows_per_batch=8), A800, 8)
    assert long_rows and all(one.checkpoint_activations for one in long_rows if one.tensor == 1)


def test_what_fits_nowhere_gives_no_layout():
    assert layouts(Work(model=preset("skywork-13b", 65_536), sequence_length=4096, rows_per_batch=64), A800, 1) == []


def test_operations_of_a_token_are_those_of_the_published_figure():
    whole, without = step_flops(SKYWORK.model, 1, 4096)
    assert whole == pytest.approx(94.9e9, rel=0.002)
    assert whole - without == 6 * 65_519 * 4608


def test_single_precision_is_slower_and_larger():
    work = Work(model=preset("1.3b", 65_536), sequence_length=4096, rows_per_batch=64)
    half, single = (layout(replace(work, weight_bytes=size), A800, data=8) for size in (2, 4))
    assert single.tokens_per_s < half.tokens_per_s / 8 and single.memory_gb > half.memory_gb


def test_an_unknown_gpu_is_refused_with_those_there_are():
    with pytest.raises(ConfigError, match="h200"):
        gpu("tpu")


def test_a_scaled_model_keeps_its_proportions():
    small = scaled(SKYWORK.model, width=1 / 18, depth=1 / 26)
    assert (small.heads, small.kv_heads, small.d_model, small.layers) == (2, 2, 256, 2)
    assert small.d_ff == 680 and small.head_width == SKYWORK.model.head_width
    assert scaled(SKYWORK.model) == SKYWORK.model
