"""The cost model of pretrain: the layouts that fit the GPUs asked for, and what the run would take and read.

Nothing is measured on a sample: layouts come from arithmetic (training/layout_search.py), the mixture from the order
itself, so laps and tokens of each cell are those that the run will read.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

from jobs.runtime.context import Context
from jobs.runtime.cost import Figure, Plan, Request
from pipelines.errors import ConfigError, InputError

SHOWN = 12  # layouts in the table
CHECKPOINT_BYTES = 12  # a parameter: master and both moments in fp32
GET_DOLLARS = 0.4e-6  # S3's list price of a GET
MOST_LAPS = 5  # Skywork never reads a source more often (after Muennighoff et al., 2023)
VOCABULARY = 65_536  # where there are no tokens yet


def plan_pretraining(config: Any, context: Context, request: Request) -> Plan:
    """Layouts, time, money, checkpoints, requests; and of the mixture what each cell gives, where there are tokens."""
    from training.model.decoder import ModelConfig
    from training.model.presets import preset
    from training.step_metrics import step_flops

    notes: list[str] = []
    try:
        cells, recipe, steps, cut = _mixture(config, context)
        model = ModelConfig(**recipe["model"])
    except InputError as error:
        cells, steps, cut = [], config.all_steps, False
        model = config.scaled(preset(config.model, VOCABULARY))
        notes.append(f"no mixture is told: {error.args[0]}; the vocabulary is taken to be {VOCABULARY:,}")
    rows = steps * config.rows_per_batch
    tokens = rows * config.sequence_length
    checkpoints = math.ceil(steps / config.checkpoint_every_steps)
    figures = {
        "steps": Figure(value=steps, unit="", error=0.0),
        "tokens": Figure(value=tokens, unit="", error=0.0),
        "parameters": Figure(value=model.parameters, unit="", error=0.0),
        "operations": Figure(value=step_flops(model, tokens, tokens * config.sequence_length)[0], unit="flop"),
        "checkpoint": Figure(value=CHECKPOINT_BYTES * model.parameters, unit="B"),
        "checkpoints": Figure(value=checkpoints, unit="", error=0.0),
        "reads": Figure(value=rows, unit="requests"),
        "read_dollars": Figure(value=rows * GET_DOLLARS, unit="$"),
    }
    if cut:
        notes.append(f"a cell has no rows left after {steps} steps, so the run would end there")
    often = [cell for cell in cells if cell["laps"] > MOST_LAPS]
    notes += [f"{cell['cell']} is read {cell['laps']:.2f} times (more than {MOST_LAPS})" for cell in often]
    tables: dict[str, list[dict[str, Any]]] = {"mixture": cells} if cells else {}
    if request.gpus is None:
        notes.append("--gpus N --gpu KIND tells layouts, time and money")
    else:
        found, tables["layouts"], told = _on_gpus(config, model, tokens, request.gpus, request)
        figures |= found
        notes += told
    return Plan(job="pretrain", sample={}, figures=figures, notes=notes, tables=tables)


def _on_gpus(
    config: Any, model: Any, tokens: int, gpus: int, request: Request
) -> tuple[dict[str, Figure], list[dict[str, Any]], list[str]]:
    """(figures of the fastest layout, a row for each that fits, notes); ConfigError where none fits."""
    from training.hardware import gpu
    from training.layout_search import Work, layouts

    kind = gpu(request.gpu or config.gpu_kind)
    if request.gpu_dollars is not None:
        kind = replace(kind, dollars_per_hour=request.gpu_dollars)
    work = Work(
        model=model,
        sequence_length=config.sequence_length,
        rows_per_batch=config.rows_per_batch,
        weight_bytes=2 if config.precision == "bf16" else 4,
    )
    fitting = layouts(work, kind, gpus, gpus_per_node=request.gpus_per_node)
    if not fitting:
        raise ConfigError(
            f"no layout of {model.parameters / 1e9:.1f} billion parameters fits {gpus} GPUs of {kind.memory_gb:g} GB",
            mend="more or larger GPUs, bf16, shorter rows, or a smaller model",
        )
    best = fitting[0]
    seconds = tokens / best.tokens_per_s
    figures = {
        "tokens_per_s": Figure(value=best.tokens_per_s, unit="tokens/s"),
        "wall": Figure(value=seconds, unit="s"),
        "dollars": Figure(value=seconds / 3600 * gpus * kind.dollars_per_hour, unit="$"),
        "gpu_memory": Figure(value=best.memory_gb * 1e9, unit="B"),
    }
    rows = [
        {
            "DP": one.data,
            "TP": one.tensor,
            "PP": one.pipeline,
            "zero": one.zero_stage,
            "rows": one.micro_batch_rows,
            "again": one.checkpoint_activations,
            "idle": one.idle_gpus,
            "GB": round(one.memory_gb, 1),
            "bubble": round(one.bubble, 3),
            "tok/s/GPU": round(one.tokens_per_s / one.gpus),
            "MFU": round(one.mfu, 3),
            "days": round(tokens / one.tokens_per_s / 86400, 2),
        }
        for one in fitting[:SHOWN]
    ]
    chosen = {
        "num_workers": best.gpus,
        "zero_stage": best.zero_stage,
        "micro_batch_rows": best.micro_batch_rows,
        "tensor_parallel": best.tensor,
        "pipeline_stages": best.pipeline,
        "checkpoint_activations": str(best.checkpoint_activations).lower(),
    }
    notes = [
        "the first layout: " + " ".join(f"--set {name}={value}" for name, value in chosen.items()),
        f"speed is a model's (within 6% of Skywork-13B's published search on A800), {kind.dollars_per_hour:g} dollars "
        "a GPU-hour a round figure (--gpu-dollars)",
    ]
    if work.weight_bytes == 4:
        notes.append("precision is fp32, which GPUs multiply many times slower than precision=bf16")
    return figures, rows, notes


def _mixture(config: Any, context: Context) -> tuple[list[dict[str, Any]], dict[str, Any], int, bool]:
    """(what each cell gives, the recipe, steps of the plan, does it end before what was asked).

    A run that goes on from another is told by itself where that one has not got so far.
    """
    from jobs.pretrain_begin import parent_of, plan_of
    from training.data.batches import BatchPlan
    from training.data.order import Order
    from training.data.shards import TokenShards

    first = 0
    if config.after:
        try:
            first = parent_of(config, context)[1]["position"]
        except InputError as error:
            context.progress.say(f"told by itself: {error.args[0]}")
            alone = {"ramp_from": config.ramp_from or config.weights}
            config = replace(config, after="", **(alone if config.ramp_fraction else {}))
    plan, recipe = plan_of(config, context)
    shards = TokenShards.open(context.store, [pin for segment in plan.segments for pin in segment.datasets])
    order = Order(plan, shards)
    laps = order.laps_read()
    held, read = dict.fromkeys(laps, 0), dict.fromkeys(laps, 0)
    for number, segment in enumerate(plan.segments):
        for c, cell in enumerate(segment.cells):
            geometry = shards.geometry(segment.datasets[cell.dataset], cell.cell, cell.name, cell.stretch_tokens)
            held[cell.name] = geometry.tokens
            if segment.from_position >= first:
                rows = order.rows_before(number, c, plan.segment_end(number) - segment.from_position)
                read[cell.name] += rows * segment.sequence_length
    total = max(sum(read.values()), 1)
    cells = [
        {
            "cell": name,
            "share": round(read[name] / total, 4),
            "tokens": held[name],
            "read": read[name],
            "laps": round(laps[name], 3),
        }
        for name in sorted(read)
    ]
    before = BatchPlan(plan).step_at(first)
    steps = BatchPlan(plan).steps - before
    return cells, recipe, steps, steps < config.all_steps
