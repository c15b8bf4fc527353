"""Which layouts of a model fit a cluster, and how fast each would be: arithmetic, before anything is rented.

A layout is data x tensor x pipeline parallel sizes and a ZeRO stage. Memory is that of the fullest pipeline stage:
weights, gradients, masters, moments, buckets, and the activations that the backward pass of this decoder reads. Time is
compute at the share of the peak that the hardware table states, plus what communication does not hide, times the
pipeline's bubble. The model is checked against a published search (Wei et al., 2023, table 10); it is no measurement.

All ranks hold rows whatever their number (uneven batches are cut unevenly) and stages take uneven numbers of layers, so
no GPU is idle because of divisibility alone: 24 GPUs are 24 data-parallel ranks, or 12 x 2, or 3 x 8.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache

from training.hardware import Gpu
from training.layout import bucket_elements, stage_bounds
from training.model.decoder import ModelConfig
from training.step_metrics import step_flops

EXPOSED = 0.25  # share of gradient and weight traffic that compute does not hide (fitted with the table above)
RUNTIME_GB = 2.5  # CUDA context, NCCL, workspaces, fragmentation
_MICRO_BATCHES = (1, 2, 4, 8, 16)


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """What is trained: rows of `sequence_length` tokens, `rows_per_batch` a step."""

    model: ModelConfig
    sequence_length: int
    rows_per_batch: int
    weight_bytes: int = 2  # bf16; 4 for fp32


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """One way to lay a model out, with what it costs.  `tokens_per_s` is of the whole cluster."""

    data: int
    tensor: int
    pipeline: int
    zero_stage: int
    micro_batch_rows: int
    checkpoint_activations: bool
    idle_gpus: int
    memory_gb: float
    bubble: float
    tokens_per_s: float
    mfu: float

    @property
    def gpus(self) -> int:
        """GPUs that work."""
        return self.data * self.tensor * self.pipeline


def layouts(work: Work, kind: Gpu, gpus: int, *, gpus_per_node: int = 8, usable: float = 0.97) -> list[Layout]:
    """Every layout that fits into `usable` of the memory, the fastest first; for each, its best micro-batch.

    Activations are computed again in the backward pass only where the layout does not fit otherwise.
    """
    found = []
    for data, tensor, pipeline, stage in _shapes(work.model, gpus, gpus_per_node, work.rows_per_batch):
        tried = [
            layout
            for again in (False, True)
            for rows in _MICRO_BATCHES
            if rows <= max(1, math.ceil(work.rows_per_batch / data))
            and (layout := _layout(work, kind, gpus, gpus_per_node, data, tensor, pipeline, stage, rows, again))
            and layout.memory_gb <= usable * kind.memory_gb
        ]
        plain = [layout for layout in tried if not layout.checkpoint_activations]
        if plain or tried:
            found.append(max(plain or tried, key=lambda one: (one.tokens_per_s, -one.memory_gb)))
    return sorted(found, key=lambda one: (-one.tokens_per_s, one.tensor, one.pipeline, one.zero_stage))


def layout(
    work: Work,
    kind: Gpu,
    *,
    data: int,
    tensor: int = 1,
    pipeline: int = 1,
    zero_stage: int = 1,
    micro_batch_rows: int = 1,
    checkpoint_activations: bool = False,
    gpus_per_node: int = 8,
) -> Layout:
    """One layout, whether it fits or not."""
    gpus = data * tensor * pipeline
    return _layout(
        work,
        kind,
        gpus,
        gpus_per_node,
        data,
        tensor,
        pipeline,
        zero_stage,
        micro_batch_rows,
        checkpoint_activations,
    )


@cache
def stage_layers(model: ModelConfig, stages: int) -> list[int]:
    """Layers of each pipeline stage as the engine cuts them: by parameters, embedding and logits included."""
    table = model.vocab_size * model.d_model
    outside = model.d_model + table * (1 if model.tied_embeddings else 2)
    layer = (model.parameters - outside) // model.layers
    bounds = stage_bounds([table, *[layer] * model.layers, model.d_model + table], stages)
    return [min(last, model.layers + 1) - max(first, 1) for first, last in itertools.pairwise(bounds)]


def _shapes(model: ModelConfig, gpus: int, per_node: int, rows: int) -> Iterator[tuple[int, int, int, int]]:
    """(data, tensor, pipeline, ZeRO stage): tensor parallelism stays inside a node, ZeRO-2 and 3 without pipelines."""
    for tensor in range(1, min(per_node, gpus) + 1):
        if per_node % tensor or model.heads % tensor or model.kv_heads % tensor or model.d_ff % tensor:
            continue
        for pipeline in range(1, min(model.layers, gpus // tensor) + 1):
            data = min(gpus // (tensor * pipeline), rows)
            if pipeline > 1 and gpus - data * tensor * pipeline >= tensor * data:
                continue  # one stage more would use them
            for stage in (1,) if pipeline > 1 else (1, 2, 3):
                if stage == 1 or data > 1:
                    yield data, tensor, pipeline, stage


def _layout(
    work: Work,
    kind: Gpu,
    gpus: int,
    per_node: int,
    data: int,
    tensor: int,
    pipeline: int,
    zero: int,
    micro: int,
    again: bool,
) -> Layout:
    model, length = work.model, work.sequence_length
    stages = stage_layers(model, pipeline)
    micro_steps = math.ceil(math.ceil(work.rows_per_batch / data) / micro)
    memory = max(
        _stage_bytes(work, stages, number, data, tensor, zero, micro, micro_steps, again)
        for number in range(pipeline)
    )
    flops, _ = step_flops(model, 1, length)
    peak = 1e12 * (kind.peak_tflops if work.weight_bytes == 2 else kind.fp32_tflops)
    reached = peak * kind.reached_fraction
    slowest = _slowest_share(model, length, stages)
    compute = micro * length * flops * slowest / tensor / reached * (4 / 3 if again else 1)
    rings = (6 if again else 4) * 2 * (tensor - 1) / tensor  # an all-reduce moves 2 (t - 1) / t of its bytes
    bytes_of_row = micro * length * model.d_model * work.weight_bytes
    compute += rings * bytes_of_row * max(stages) / (kind.all_reduce_gb_per_s * 1e9)
    inside = data * tensor * pipeline <= per_node
    wire = (kind.all_reduce_gb_per_s if inside else kind.network_gb_per_s) * 1e9
    if pipeline > 1:
        compute += 2 * bytes_of_row / wire
    largest = max(_stage_parameters(model, stages, number) for number in range(pipeline)) / tensor
    moved = largest * 4 + largest * work.weight_bytes * (2 * micro_steps if zero == 3 else 1)
    seconds = (micro_steps + pipeline - 1) * compute + EXPOSED * moved * (data - 1) / data / wire
    tokens = work.rows_per_batch * length / seconds
    used = data * tensor * pipeline
    return Layout(
        data=data,
        tensor=tensor,
        pipeline=pipeline,
        zero_stage=zero,
        micro_batch_rows=micro,
        checkpoint_activations=again,
        idle_gpus=gpus - used,
        memory_gb=memory / 1e9 + RUNTIME_GB,
        bubble=(pipeline - 1) / (micro_steps + pipeline - 1),
        tokens_per_s=tokens,
        mfu=tokens * flops / (used * peak),
    )


def _stage_parameters(model: ModelConfig, stages: Sequence[int], number: int) -> float:
    """Parameters of a stage; a tied embedding stands on both ends of a pipeline."""
    table = model.vocab_size * model.d_model
    ends = (number == 0) + (number == len(stages) - 1 and (not model.tied_embeddings or len(stages) > 1))
    tables = (1 if model.tied_embeddings else 2) if len(stages) == 1 else ends
    outside = model.d_model + table * (1 if model.tied_embeddings else 2)
    return (model.parameters - outside) / model.layers * stages[number] + tables * table


def _stage_bytes(
    work: Work,
    stages: Sequence[int],
    number: int,
    data: int,
    tensor: int,
    zero: int,
    micro: int,
    micro_steps: int,
    again: bool,
) -> float:
    model, size = work.model, work.weight_bytes
    parameters = _stage_parameters(model, stages, number) / tensor
    weights = size / data if zero == 3 else size
    gradients = size / data if zero >= 2 else size
    held = parameters * (weights + gradients + 12 / data)  # masters and moments in fp32
    layer = _activation_bytes(model, tensor, size) * micro * work.sequence_length
    border = model.d_model * size * micro * work.sequence_length
    in_flight = min(len(stages) - number, micro_steps)  # 1F1B: stage s holds p - s micro-batches
    every = in_flight * stages[number]
    activations = every * border + layer if again else every * layer
    if number == len(stages) - 1:
        activations += micro * work.sequence_length * model.vocab_size * (size + 4)  # logits, and their softmax in fp32
    buckets = 2 * 4 * bucket_elements(int(parameters), data)  # one filled in fp32 while the other is reduced
    return held + activations + buckets


def _activation_bytes(model: ModelConfig, tensor: int, size: int) -> float:
    """Bytes a token and layer that backward reads: whole are both norms' inputs and outputs, cut by `tensor` the
    queries, keys and values before and after rotation, what attention gave (twice), gate, up, silu and product.
    """
    width, kv = model.d_model, model.kv_heads * model.head_width
    return size * (4 * width + (4 * width + 3 * kv + 4 * model.d_ff) / tensor)


def _slowest_share(model: ModelConfig, length: int, stages: Sequence[int]) -> float:
    """The share of a token's operations that the slowest stage has; the logits count for the last one."""
    table = 6 * model.vocab_size * model.d_model
    layers = step_flops(model, 1, length)[1] - table
    shares = [layers * count / model.layers for count in stages]
    shares[-1] += table
    return max(shares) / sum(shares)
