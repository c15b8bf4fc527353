"""Steps: the next B positions that are not skipped, cut contiguously over the ranks.

Skipped positions are consumed but not trained; `rank` and `select` convert between positions and trained
rows by prefix sums over the skips. No batch crosses a segment's border. The state between two steps is one
integer.
"""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pipelines.errors import ConfigError
from training.data.plan import Plan


@dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """One step's positions, ascending; `end` is the state of the stream after it."""

    step: int
    segment: int
    positions: npt.NDArray[np.int64]

    @property
    def end(self) -> int:
        """The position to go on from."""
        return int(self.positions[-1]) + 1

    def of_rank(self, rank: int, world_size: int) -> npt.NDArray[np.int64]:
        """The slots [r n div W, (r + 1) n div W) of rank r; empty where there are more ranks than rows."""
        n = len(self.positions)
        return self.positions[rank * n // world_size : (rank + 1) * n // world_size]


class BatchPlan:
    """All steps of a plan, numbered from 0."""

    def __init__(self, plan: Plan) -> None:
        """Count the steps of every segment; a border inside a batch is refused."""
        self.plan = plan
        self._skip_starts = [start for start, _ in plan.skips]
        self._skip_ends = [end for _, end in plan.skips]
        before = np.cumsum([0, *(end - start for start, end in plan.skips)])
        self._skipped_before = [int(n) for n in before]
        # Trained ranks at which the skips stand: select() looks up how many lie before a rank.
        self._skip_ranks = [
            start - n for start, n in zip(self._skip_starts, self._skipped_before, strict=False)
        ]
        self._first_ranks: list[int] = []
        self._first_steps: list[int] = []
        step = 0
        for number, segment in enumerate(plan.segments):
            first, last = self.rank(segment.from_position), self.rank(plan.segment_end(number))
            steps, left = divmod(last - first, segment.rows_per_batch)
            if left:
                raise ConfigError(
                    f"segment from {segment.from_position} to {plan.segment_end(number)} trains "
                    f"{last - first} rows, {left} more than {steps} batches of {segment.rows_per_batch}; "
                    "a segment ends at a batch's end"
                )
            self._first_ranks.append(first)
            self._first_steps.append(step)
            step += steps
        self.steps = step
        self.rows = self.rank(plan.end_position)

    def rank(self, position: int) -> int:
        """How many trained positions lie before `position`."""
        i = bisect_right(self._skip_starts, position)
        if i and position < self._skip_ends[i - 1]:
            return self._skip_starts[i - 1] - self._skipped_before[i - 1]
        return position - self._skipped_before[i]

    def select(self, rank: int) -> int:
        """The position of the trained row number `rank`."""
        return rank + self._skipped_before[bisect_right(self._skip_ranks, rank)]

    def batch(self, step: int) -> Batch:
        """The positions of a step."""
        if not 0 <= step < self.steps:
            raise IndexError(f"step {step} is outside 0..{self.steps - 1}")
        number = bisect_right(self._first_steps, step) - 1
        rows = self.plan.segments[number].rows_per_batch
        first = self._first_ranks[number] + (step - self._first_steps[number]) * rows
        ranks = np.arange(first, first + rows, dtype=np.int64)
        skips = np.searchsorted(np.asarray(self._skip_ranks, dtype=np.int64), ranks, side="right")
        return Batch(step, number, ranks + np.asarray(self._skipped_before, dtype=np.int64)[skips])

    def step_of(self, position: int) -> int | None:
        """The step that trains the row at `position`; None where the plan skips it."""
        rank = self.rank(position)
        if self.select(rank) != position:
            return None
        number = max(bisect_right(self._first_ranks, rank) - 1, 0)
        rows = self.plan.segments[number].rows_per_batch
        return self._first_steps[number] + (rank - self._first_ranks[number]) // rows

    def step_at(self, position: int) -> int:
        """The step that goes on from `position`, which must be a batch's end (or 0)."""
        rank = self.rank(position)
        number = max(bisect_right(self._first_ranks, rank) - 1, 0)
        steps, inside = divmod(rank - self._first_ranks[number], self.plan.segments[number].rows_per_batch)
        if inside:
            raise ConfigError(
                f"position {position} lies inside a batch of {self.plan.segments[number].rows_per_batch} rows"
            )
        return self._first_steps[number] + steps
