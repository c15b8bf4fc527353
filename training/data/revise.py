"""The next revision of a plan: what was trained stays, everything from a position on follows a change.

Ramps of weights and batches and exhausted cells are compiled into constant segments here: a reader knows one rule only.
A segment ends at the last batch at which every cell still has its rows; then the cell leaves the mixture, is read for
one more lap, or the run ends there, as the change says.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from pipelines.errors import ConfigError
from training.data.batches import BatchPlan
from training.data.mixture import Mixture, integer_shares
from training.data.order import Order, ShardSizes
from training.data.plan import CellPlan, DatasetPin, Plan, Segment
from training.data.shards import TokenDataset

RAMP_SEGMENTS = 16
MOST_SEGMENTS = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """Where the rows of a cell of the order come from: its label in a dataset."""

    dataset: DatasetPin
    cell: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """What is to hold from a position on.  `weights` by the order's names, each with its entry in `sources`."""

    weights: Mapping[str, float]
    sources: Mapping[str, Source]
    sequence_length: int
    rows_per_batch: int
    steps: int  # of the whole run, those before the change included
    ramp_steps: int = 0  # steps in which the shares move from `ramp_from`, or those before, to `weights`
    ramp_from: Mapping[str, float] | None = None
    max_laps: int | None = None
    on_depletion: Literal["stop", "reweight", "repeat"] = "stop"
    skips: tuple[tuple[int, int], ...] = ()  # further positions that are not trained, all from the change on
    batch_ramp: tuple[tuple[int, int], ...] = ()  # (step of the run, rows_per_batch after it), rising steps


def fresh_sources(datasets: Sequence[TokenDataset]) -> dict[str, Source]:
    """Every cell of the datasets by its name in the order: its label, or DATASET/LABEL where an earlier one has it."""
    sources: dict[str, Source] = {}
    for dataset in datasets:
        for label in dataset.cells:
            name = label if label not in sources else f"{dataset.pin.name}/{label}"
            sources[name] = Source(dataset=dataset.pin, cell=label)
    return sources


def revise(plan: Plan | None, change: Change, from_position: int, sizes: ShardSizes, *, seed: int = 0) -> Plan:
    """The plan that is `plan` before `from_position`, a batch's end, and `change` from there on.

    ConfigError where the position lies inside a batch, where nothing is left to train, or where a cell that was
    begun has no source any more.
    """
    return _Compiler(plan, change, from_position, sizes, seed).compile()


class _Compiler:
    def __init__(self, plan: Plan | None, change: Change, at: int, sizes: ShardSizes, seed: int) -> None:
        self._change, self._sizes = change, sizes
        self._seed = plan.seed if plan else seed
        self._done = BatchPlan(plan).step_at(at) if plan else 0
        kept = [segment for segment in plan.segments if segment.from_position < at] if plan else []
        self._segments: list[Segment] = kept
        self._end = at
        if change.skips and min(start for start, _ in change.skips) < at:
            raise ConfigError(f"skips {change.skips} begin before position {at}", mend="what was trained stays")
        before = [skip for skip in plan.skips if skip[0] < at] if plan else []
        if before and before[-1][1] > at:
            raise ConfigError(f"position {at} lies inside the skipped range {before[-1]}")
        self._skips = (*before, *sorted(change.skips))
        self._rows = change.rows_per_batch
        borders = [step for step, _ in change.batch_ramp]
        if borders != sorted(set(borders)) or any(step <= self._done for step in borders):
            raise ConfigError(
                f"batch_ramp {change.batch_ramp}: expected rising steps of the run after step {self._done}"
            )
        self._last_shares = {cell.name: cell.share for cell in kept[-1].cells} if kept else {}
        self._old_sources = {
            cell.name: Source(dataset=segment.datasets[cell.dataset], cell=cell.cell)
            for segment in kept
            for cell in segment.cells
        }
        if missing := sorted(name for name, weight in change.weights.items() if weight and name not in change.sources):
            raise ConfigError(f"cells {missing} have a weight and no source")

    def compile(self) -> Plan:
        """Segment after segment until the steps are planned."""
        left = self._change.steps - self._done
        if left < 1:
            raise ConfigError(
                f"the run has {self._done} steps before position {self._end}; steps is {self._change.steps}",
                mend="steps counts from the run's beginning: raise it",
            )
        for steps, weights, rows in self._pieces(left):
            self._rows = rows
            if not self._phase(steps, weights):
                break
        if not self._segments or self._segments[-1].from_position >= self._end:
            raise ConfigError("no cell has a row left for one batch", mend="more laps (max_laps) or more data")
        return self._plan(self._end)

    def _pieces(self, left: int) -> Iterator[tuple[int, dict[str, float], int]]:
        """(steps, weights, rows a batch): the phases, cut where the batch changes."""
        at, rows, borders = self._done, self._change.rows_per_batch, list(self._change.batch_ramp)
        for steps, weights in self._phases(left):
            end = at + steps
            while at < end:
                while borders and borders[0][0] <= at:
                    rows = borders.pop(0)[1]
                until = min(end, borders[0][0]) if borders else end
                yield until - at, weights, rows
                at = until

    def _phases(self, left: int) -> list[tuple[int, dict[str, float]]]:
        """(steps, weights) of the ramp and of what follows it."""
        goal = {name: float(weight) for name, weight in self._change.weights.items() if weight}
        ramp = min(self._change.ramp_steps, left)
        total = sum(goal.values())
        first = self._change.ramp_from or self._last_shares
        if not ramp or not first or not total:
            return [(left, goal)]
        start = {name: weight / sum(first.values()) for name, weight in first.items()}
        pieces = min(RAMP_SEGMENTS, ramp)
        phases = []
        for piece in range(pieces):
            done = (piece + 0.5) / pieces
            names = sorted(start.keys() | goal.keys())
            weights = {n: (1 - done) * start.get(n, 0.0) + done * goal.get(n, 0.0) / total for n in names}
            steps = ramp * (piece + 1) // pieces - ramp * piece // pieces
            phases.append((steps, {name: weight for name, weight in weights.items() if weight}))
        return [*phases, (left - ramp, goal)] if left > ramp else phases

    def _phase(self, steps: int, weights: dict[str, float]) -> bool:
        """Add the segments of a phase; False where the run ends here."""
        caps: dict[str, int | None] = dict.fromkeys(weights, self._change.max_laps)
        while steps:
            if len(self._segments) > MOST_SEGMENTS:
                raise ConfigError(f"the plan needs more than {MOST_SEGMENTS} segments: its cells are too small")
            segment = self._segment(weights, caps)
            fits, depleted = self._fit(segment, steps)
            if fits:
                self._segments.append(segment)
                self._end = self._position_after(segment, fits)
                self._last_shares = {cell.name: cell.share for cell in segment.cells}
                steps -= fits
            if not steps:
                return True
            if self._change.on_depletion == "stop":
                return False
            for name in depleted:
                if self._change.on_depletion == "repeat":
                    caps[name] = (caps[name] or 0) + 1
                else:
                    weights = {other: weight for other, weight in weights.items() if other != name}
            if not weights:
                return False
        return True

    def _segment(self, weights: dict[str, float], caps: Mapping[str, int | None]) -> Segment:
        """From the end of what is planned on; every cell that was begun is in it, if only with its cursor."""
        cursors = Order(self._plan(self._end), self._sizes).cursors if self._segments else {}
        names = sorted(cursors.keys() | weights.keys())
        shares = dict(zip(names, integer_shares([weights.get(name, 0.0) for name in names]), strict=True))
        stretches = {cell.name: cell.stretch_tokens for cell in self._segments[-1].cells} if self._segments else {}
        pins: list[DatasetPin] = []
        cells = []
        for name in names:
            source = self._change.sources.get(name) or self._old_sources[name]
            if source.dataset not in pins:
                pins.append(source.dataset)
            lap, used = cursors.get(name, (0, 0))
            length = self._change.sequence_length
            cells.append(
                CellPlan(
                    name=name,
                    cell=source.cell,
                    dataset=pins.index(source.dataset),
                    share=shares[name],
                    stretch_tokens=stretches.get(name, length) if used else length,
                    lap=lap,
                    used=used,
                    lap_cap=caps.get(name) if shares[name] else None,
                )
            )
        return Segment(
            from_position=self._end,
            sequence_length=self._change.sequence_length,
            rows_per_batch=self._rows,
            datasets=tuple(pins),
            cells=tuple(cells),
        )

    def _fit(self, segment: Segment, steps: int) -> tuple[int, list[str]]:
        """(batches of which every cell has its rows, the cells that have none for one more)."""
        mixture = Mixture([cell.share for cell in segment.cells])
        ends: dict[str, int] = {}
        for number, cell in enumerate(segment.cells):
            if not cell.share or cell.lap_cap is None:
                continue
            pin = segment.datasets[cell.dataset]
            tokens = self._sizes.geometry(pin, cell.cell, cell.name, cell.stretch_tokens).tokens
            rows = max(cell.lap_cap * tokens - cell.lap * tokens - cell.used, 0) // segment.sequence_length
            ends[cell.name] = mixture.position(number, rows)  # the position that would need a row more
        first = min(ends.values(), default=None)
        if first is None:
            return steps, []
        trained = self._trained_before(segment.from_position + first) - self._trained_before(segment.from_position)
        fits = min(steps, trained // segment.rows_per_batch)
        if fits == steps:
            return fits, []
        needed = self._position_after(segment, fits + 1) - segment.from_position
        return fits, [name for name, end in ends.items() if end < needed]

    def _trained_before(self, position: int) -> int:
        return position - sum(min(end, position) - start for start, end in self._skips if start < position)

    def _position_after(self, segment: Segment, steps: int) -> int:
        """The position after so many batches of the segment."""
        position, rows = segment.from_position, steps * segment.rows_per_batch
        for start, end in self._skips:
            if end <= position:
                continue
            if start - position >= rows:
                break
            rows -= max(start - position, 0)
            position = end
        return position + rows

    def _plan(self, end: int) -> Plan:
        skips = tuple(skip for skip in self._skips if skip[0] < end)
        return Plan(seed=self._seed, end_position=end, segments=tuple(self._segments), skips=skips)

