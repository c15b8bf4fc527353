"""Which plan and recipe a config of pretrain means for the tokens as they are, and which run has or gets them.

A run begins at position 0, or goes on from a checkpoint of another as its branch (`after`). Where tokens or settings
differ from what a run was planned with, the next name is taken: NAME-2, NAME-3, ...
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from jobs.runtime.context import Context
from pipelines.datasets.store import Store
from pipelines.errors import ConfigError, InputError

if TYPE_CHECKING:
    from jobs.pretrain import Config


def plan_of(config: Config, context: Context) -> tuple[Any, dict[str, Any]]:
    """The plan and the recipe that this config means for the tokens as they are; both are checked on the data."""
    if config.after:
        return _plan_after(config, context)
    from training.data.order import Order
    from training.data.shards import TokenDataset, TokenShards
    from training.layout import LAYOUT_FIELDS, EngineConfig
    from training.loop import recipe_of
    from training.model.presets import preset
    from training.start import find_start

    datasets = [TokenDataset(context.open(name)) for name in (config.tokens, *config.also)]
    shards = TokenShards(datasets)
    plan = _first_plan(config, datasets, shards)
    order = Order(plan, shards)
    laps = ", ".join(f"{cell} {count:.2f}" for cell, count in order.laps_read().items())
    context.progress.say(f"laps of each cell that {config.all_steps} steps read: {laps}")
    engine = EngineConfig(
        **{name: getattr(config, name) for name in LAYOUT_FIELDS if hasattr(config, name)},
        precision=config.precision,
        gradient_clip=config.gradient_clip,
        weight_decay=config.weight_decay,
    )
    vocab_size = shards.tokenizer["vocab_size"]
    if not config.init:
        model = config.scaled(preset(config.model, vocab_size))
        return plan, recipe_of(model, _schedule(config), engine, seed=config.seed)
    start, model = find_start(context.store, config.init)
    if model.vocab_size < vocab_size:
        raise ConfigError(
            f"{config.init} has {model.vocab_size} tokens, the tokenizer of {config.tokens} has {vocab_size}",
            mend="tokenize the corpus with that model's tokenizer",
        )
    return plan, {**recipe_of(model, _schedule(config), engine, seed=config.seed), "start": start}


def _schedule(config: Config) -> Any:
    from training.schedule import Schedule

    return Schedule(
        peak_rate=config.peak_rate,
        warmup_fraction=config.warmup_fraction,
        floor_fraction=config.floor_fraction,
        kind=config.schedule,
        decay_fraction=config.decay_fraction,
    )


def _first_plan(config: Config, datasets: list[Any], shards: Any) -> Any:
    """The plan of a run that begins at position 0."""
    from training.data.mixture import cell_weights
    from training.data.plan import single_segment_plan
    from training.data.revise import Change, fresh_sources, revise

    sources = fresh_sources(datasets)
    known = {name: shards.datasets[s.dataset].tokens_by_cell[s.cell] for name, s in sources.items()}
    weights = cell_weights(config.weights, known)
    if not config.also and not config.ramp_steps:
        return single_segment_plan(
            seed=config.seed,
            dataset=datasets[0].pin,
            weights=weights,
            sequence_length=config.sequence_length,
            rows_per_batch=config.rows_per_batch,
            steps=config.all_steps,
            lap_cap=config.max_laps,
        )
    change = Change(
        weights=weights,
        sources=sources,
        sequence_length=config.sequence_length,
        rows_per_batch=config.rows_per_batch,
        steps=config.all_steps,
        ramp_from=cell_weights(config.ramp_from, known) if config.ramp_from else None,
        ramp_steps=config.ramp_steps,
        max_laps=config.max_laps,
    )
    return revise(None, change, 0, shards, seed=config.seed)


def parent_of(config: Config, context: Context) -> tuple[Any, dict[str, Any], dict[str, Any]]:
    """(the run that `after` names, its checkpoint, the branch's note).

    InputError where there is no such checkpoint, or the run is not finished and no step is named.
    """
    from training.run_log import RunLog

    name, at, step = config.after.partition("@")
    if at and not step.isdigit():
        raise ConfigError(f"after={config.after}: the step is a number", mend=f"for example {name}@100, or {name}")
    log = RunLog(context.store, name)
    if log.state.finished is None and not step:
        raise InputError(
            f"run {name!r} is not finished, and {config.run} goes on from its end",
            mend=f"train it first, or name one of its checkpoints: after={name}@STEP",
        )
    checkpoint = log.checkpoint_of(int(step) if step else None)
    note = {"run": name, "step": checkpoint["step"], "checkpoint": checkpoint["key"]}
    return log, checkpoint, note


def _plan_after(config: Config, context: Context) -> tuple[Any, dict[str, Any]]:
    """The plan of a branch: rows up to the checkpoint as they were, this config's from there on."""
    from training.amend import Amendment, amended

    parent, checkpoint, note = parent_of(config, context)
    change = Amendment(
        weights=config.weights,
        ramp_from=config.ramp_from,
        ramp_steps=config.ramp_steps,
        tokens=(config.tokens, *config.also),
        sequence_length=config.sequence_length,
        rows_per_batch=config.rows_per_batch,
        steps=note["step"] + config.all_steps,
        max_laps=config.max_laps,
        peak_rate=config.peak_rate,
        warmup_fraction=config.warmup_fraction,
        floor_fraction=config.floor_fraction,
        schedule=config.schedule,
        decay_fraction=config.decay_fraction,
        rewarm=True,
    )
    made = amended(context.store, parent.state_at(checkpoint["number"]), change, checkpoint["position"])
    steps = made.report["steps"]
    if steps["after"] < steps["asked"]:
        context.progress.say(f"a cell has no more rows after step {steps['after']} of {steps['asked']}")
    return made.plan, made.recipe


def run_names(name: str) -> Iterator[str]:
    """NAME, NAME-2, NAME-3, ..."""
    yield name
    number = 2
    while True:
        yield f"{name}-{number}"
        number += 1


def newest_run(store: Store, name: str, tokens_sha256: str) -> str | None:
    """The newest run of NAME, NAME-2, ... on these tokens; else the newest of them that has a checkpoint, or None."""
    from training.run_log import RunLog

    found: str | None = None
    matching: str | None = None
    for candidate in run_names(name):
        state = RunLog(store, candidate).state
        if state.plan is None:
            return matching or found
        if state.checkpoint is not None:
            found = candidate
            if any(pin.manifest_sha256 == tokens_sha256 for pin in state.plan.segments[-1].datasets):
                matching = candidate
    return None


def choose_run(config: Config, context: Context, plan: Any, recipe: dict[str, Any]) -> str:
    """The run of this name whose plan is ours, or the first that is free."""
    from training.run_log import RunLog

    for name in run_names(config.run):
        log = RunLog(context.store, name)
        differences = log.differences(plan, recipe)
        if not differences:
            return name
        told = "; ".join(differences)
        if config.on_change == "refuse":
            raise ConfigError(
                f"run {name!r} was planned otherwise: {told[:600]}",
                mend=f"another run name, on_change=new_run, or `gristmill runs amend {name}` to change it on its way",
            )
        context.progress.say(f"run {name} was planned otherwise, so it stays as it is: {told[:200]}")
    raise ConfigError("no run name is free")
