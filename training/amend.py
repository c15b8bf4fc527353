"""Changing a run on its way: what is asked, checked against the data, becomes the next revision of its plan.

The same for a branch, which leaves the run alone and goes on from one of its checkpoints under another name.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from typing import Any, ClassVar, Literal

import numpy as np
import pyarrow.compute as pc
from pydantic import TypeAdapter

from pipelines.datasets import open_dataset
from pipelines.datasets.parts import read_parquet
from pipelines.datasets.store import Store
from pipelines.errors import InputError
from training.data.batches import BatchPlan
from training.data.mixture import cell_weights
from training.data.order import Order
from training.data.plan import DatasetPin, Plan
from training.data.revise import Change, Source, revise
from training.data.shards import TokenDataset, TokenShards
from training.run_log import RunState
from training.schedule import Schedule

_SAMPLE = 20_000  # documents that are looked up for the overlap with what was seen


@dataclass(frozen=True, slots=True, kw_only=True)
class Amendment:
    """What may change on a run's way; what is not given stays as it was."""

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}
    weights: dict[str, float] = field(
        default_factory=dict, metadata={"doc": "weight of each cell, or of all that match a pattern such as en.web.*"}
    )
    ramp_steps: int = field(default=0, metadata={"doc": "steps in which the shares move to these weights"})
    ramp_from: dict[str, float] = field(
        default_factory=dict, metadata={"doc": "weights that the ramp begins with; empty: the shares before"}
    )
    tokens: tuple[str, ...] = field(default=(), metadata={"doc": "token datasets to read at their newest versions"})
    sequence_length: int | None = field(default=None, metadata={"doc": "tokens a row"})
    rows_per_batch: int | None = field(default=None, metadata={"doc": "rows a step, over all workers"})
    batch_ramp: tuple[tuple[int, int], ...] = field(
        default=(), metadata={"doc": "[step, rows a step after it], ..., with rising steps"}
    )
    steps: int | None = field(default=None, metadata={"doc": "steps of the whole run"})
    max_laps: int | None = field(default=None, metadata={"doc": "most times that a cell may be read"})
    on_depletion: Literal["stop", "reweight", "repeat"] = field(
        default="stop", metadata={"doc": "where a cell has no row left under max_laps"}
    )
    skips: tuple[tuple[int, int], ...] = field(default=(), metadata={"doc": "[start, end) positions not to train"})
    peak_rate: float | None = field(default=None, metadata={"doc": "highest learning rate"})
    warmup_fraction: float | None = field(default=None, metadata={"doc": "share of the run in which the rate rises"})
    floor_fraction: float | None = field(default=None, metadata={"doc": "last learning rate over the highest"})
    schedule: Literal["cosine", "constant", "wsd"] | None = field(
        default=None, metadata={"doc": "how the rate goes on after the warm-up"}
    )
    decay_fraction: float | None = field(default=None, metadata={"doc": "share of the run in which wsd falls"})
    rewarm: bool = field(default=False, metadata={"doc": "begin the schedule anew at the change, warm-up included"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Amended:
    """The next plan and recipe, and what a person wants to know before saying yes."""

    plan: Plan
    recipe: dict[str, Any]
    from_position: int
    report: dict[str, Any]


def amended(store: Store, state: RunState, amendment: Amendment, from_position: int) -> Amended:
    """The plan of a run with an amendment from a position on, which is a batch's end; nothing is written."""
    if state.plan is None:
        raise InputError("the run has no plan")
    plan = state.plan
    before, batches = Order(plan, _shards(store, _pins(plan))), BatchPlan(plan)
    step = batches.step_at(from_position)
    segment = plan.segments[before.segment_of(min(from_position, plan.end_position - 1))]
    newest = {name: TokenDataset(open_dataset(store, name)) for name in amendment.tokens}
    pins = [*_pins(plan), *(dataset.pin for dataset in newest.values())]
    shards = _shards(store, pins)
    sources = _sources(plan, shards, newest)
    known = {name: shards.datasets[s.dataset].tokens_by_cell[s.cell] for name, s in sources.items()}
    weights = {cell.name: float(cell.share) for cell in segment.cells if cell.share}
    if amendment.weights:
        weights = cell_weights(amendment.weights, known)
    change = Change(
        weights=weights,
        sources=sources,
        sequence_length=amendment.sequence_length or segment.sequence_length,
        rows_per_batch=amendment.rows_per_batch or segment.rows_per_batch,
        steps=amendment.steps or batches.steps,
        ramp_steps=amendment.ramp_steps,
        ramp_from=cell_weights(amendment.ramp_from, known) if amendment.ramp_from else None,
        max_laps=amendment.max_laps,
        on_depletion=amendment.on_depletion,
        skips=amendment.skips,
        batch_ramp=amendment.batch_ramp,
    )
    later = revise(plan, change, from_position, shards)
    schedule = dict(state.recipe.get("schedule", {}))
    rates = {name: name for name in ("peak_rate", "warmup_fraction", "floor_fraction", "decay_fraction")}
    rates["schedule"] = "kind"
    asked = {rates[name]: getattr(amendment, name) for name in rates if getattr(amendment, name) is not None}
    if amendment.rewarm:
        asked["from_position"] = from_position
    recipe = {**state.recipe, "schedule": {**schedule, **asked}}
    order = Order(later, shards)
    end = BatchPlan(later).steps
    report = {
        "from_position": from_position,
        "from_step": step,
        "steps": {"before": batches.steps, "after": end, "asked": change.steps},
        "segments": len(later.segments),
        "learning_rate": _rates(state.recipe, recipe, plan, later, from_position),
        "cells": _cells(plan, later, shards, from_position, order, sources, amendment.max_laps),
        "seen_documents": {
            name: _seen_share(store, plan, before, from_position, dataset) for name, dataset in newest.items()
        },
    }
    return Amended(plan=later, recipe=recipe, from_position=from_position, report=report)


def _pins(plan: Plan) -> list[DatasetPin]:
    return list(dict.fromkeys(pin for segment in plan.segments for pin in segment.datasets))


def _shards(store: Store, pins: list[DatasetPin]) -> TokenShards:
    return TokenShards.open(store, pins)


def _sources(plan: Plan, shards: TokenShards, newest: dict[str, TokenDataset]) -> dict[str, Source]:
    """Every cell that can have a weight: those of the plan, and those of the newest versions that were asked for.

    A cell goes on in a newer version that extends its own; in one that does not, it is a new cell, NAME@vN.
    """
    last = plan.segments[-1]
    sources = {cell.name: Source(dataset=last.datasets[cell.dataset], cell=cell.cell) for cell in last.cells}
    stretches = {cell.name: cell.stretch_tokens for cell in last.cells}
    for name, dataset in newest.items():
        mine = {known.cell: cell for cell, known in sources.items() if known.dataset.name == name}
        for label in dataset.cells:
            cell = mine.get(label)
            if cell is None:
                cell = label if label not in sources else f"{name}/{label}"
            else:
                old = shards.geometry(sources[cell].dataset, label, cell, stretches[cell])
                if not shards.geometry(dataset.pin, label, cell, stretches[cell]).is_extension_of(old):
                    cell = f"{cell}@v{dataset.pin.version}"
            sources[cell] = Source(dataset=dataset.pin, cell=label)
    return sources


def _rates(old: dict[str, Any], new: dict[str, Any], plan: Plan, later: Plan, position: int) -> dict[str, float] | None:
    if "schedule" not in old:
        return None
    adapter = TypeAdapter(Schedule)
    before, after = adapter.validate_python(old["schedule"]), adapter.validate_python(new["schedule"])
    return {
        "before": before.learning_rate(position, plan.end_position),
        "after": after.learning_rate(position, later.end_position),
        "at_end": after.learning_rate(later.end_position, later.end_position),
    }


def _cells(
    plan: Plan,
    later: Plan,
    shards: TokenShards,
    at: int,
    order: Order,
    sources: dict[str, Source],
    max_laps: int | None,
) -> list[dict[str, Any]]:
    """For each cell: share before and at the end, laps read at the change and at the end, tokens left of `max_laps`."""
    old = {cell.name: cell.share for cell in plan.segments[-1].cells}
    last = {cell.name: cell for cell in later.segments[-1].cells}
    begun = next((s for s in later.segments if s.from_position >= at), later.segments[-1])
    cursors = {cell.name: (cell.lap, cell.used) for cell in begun.cells}
    laps = order.laps_read()
    rows = []
    for name in sorted(last):
        cell = last[name]
        tokens = shards.geometry(sources[name].dataset, cell.cell, name, cell.stretch_tokens).tokens
        lap, used = cursors.get(name, (0, 0))
        last_lap, last_used = order.cursors[name]
        left = None if max_laps is None else max((max_laps - last_lap) * tokens - last_used, 0)
        rows.append(
            {
                "cell": name,
                "share_before": round(old.get(name, 0) / 65_536, 4),
                "share_after": round(cell.share / 65_536, 4),
                "laps_seen": round(lap + used / max(tokens, 1), 3),
                "laps_at_end": round(laps[name], 3),
                "tokens": tokens,
                "tokens_left": left,
            }
        )
    return rows


def _seen_share(store: Store, plan: Plan, order: Order, at: int, newest: TokenDataset) -> float | None:
    """The share of a new version's documents that the run has begun to see before position `at`, from a sample by id.

    None where the run read nothing of the dataset.
    """
    new = _Documents(store, newest.pin)
    bound = new.bound(_SAMPLE)
    seen: set[str] = set()
    known = False
    for number, segment in enumerate(plan.segments):
        last = min(plan.segment_end(number), at) - segment.from_position
        for c, cell in enumerate(segment.cells):
            pin = segment.datasets[cell.dataset]
            if last <= 0 or pin.name != newest.pin.name or not cell.share:
                continue
            known = True
            stream = order.stream(number, c)
            read = stream.used + order.rows_before(number, c, last) * segment.sequence_length
            laps = -(-read // stream.geometry.tokens)
            numbers = {unit: shard for shard, unit in enumerate(stream.geometry.units)}
            for unit, ids, tokens in _Documents(store, pin).sampled(cell.cell, bound):
                shards = np.full(len(ids), numbers[unit])
                for ahead in range(laps if ids else 0):
                    found, _ = order.compiled(number).positions(c, shards, tokens, np.full(len(ids), ahead))
                    seen.update(i for i, q in zip(ids, found.tolist(), strict=True) if 0 <= q < last)
    if not known:
        return None
    ids = [i for cell in newest.cells for _, some, _ in new.sampled(cell, bound) for i in some]
    return round(sum(i in seen for i in ids) / max(1, len(ids)), 4)


class _Documents:
    """Which documents lie where in a version's shards."""

    def __init__(self, store: Store, pin: DatasetPin) -> None:
        self._store = store
        self._parts = open_dataset(store, pin.name, pin.version).parts("docs").to_pylist()

    def bound(self, sample: int) -> str:
        """The end of a range of ids' last six hex digits that holds about so many documents."""
        rows = sum(part["rows"] or 0 for part in self._parts)
        return "g" if rows <= sample else f"{16**6 * sample // rows:06x}"

    def sampled(self, cell: str, bound: str) -> Iterator[tuple[str, list[str], np.ndarray]]:
        """(unit, ids, first tokens) of the documents of each shard of a cell whose ids fall below the bound."""
        for part in self._parts:
            if part["cell"] == cell:
                table = read_parquet(self._store.get(part["key"]), ["id", "first_token"])
                ends = pc.utf8_slice_codeunits(table["id"], -6)
                table = table.filter(pc.less(ends, bound))
                yield part["unit"], table["id"].to_pylist(), table["first_token"].to_numpy()


def as_note(amendment: Amendment) -> dict[str, Any]:
    """What was asked, as the chain keeps it: only what was given."""
    empty = asdict(Amendment())
    return {name: value for name, value in asdict(amendment).items() if value != empty[name]}
