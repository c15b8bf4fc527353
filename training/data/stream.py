"""The rows of a rank, step by step, read ahead from the shards.

A rank knows its whole future, so it keeps many ranged GETs in flight: positions go in groups, in the order in which
they will be needed, to a small thread pool, `rows_ahead` of them at most. The stream holds no state but the next step.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from time import perf_counter
from types import TracebackType
from typing import Self

import numpy as np
import numpy.typing as npt

from pipelines.datasets.store import Store
from training.data.batches import Batch, BatchPlan
from training.data.order import Order
from training.data.plan import Plan
from training.data.rows import RowArrays, Void, build_rows, sum_digests
from training.data.shards import PageReader, TokenShards

_GROUP_ROWS = 64


@dataclass(frozen=True, slots=True, eq=False)
class StepRows:
    """What one rank trains in one step, and how long the caller waited for it; sums are this rank's part."""

    batch: Batch
    rows: list[RowArrays]
    waited_s: float

    @property
    def trained_tokens(self) -> int:
        """Labels in these rows."""
        return sum(row.trained_tokens for row in self.rows)

    @property
    def digest(self) -> int:
        """Sum of the rows' digests mod 2^64."""
        return sum_digests([row.digest for row in self.rows])

    @property
    def voids(self) -> list[Void]:
        """Pages that were masked in these rows."""
        return [void for row in self.rows for void in row.voids]


class RowSource:
    """Rows by position: the plan, its data and the checked reads in one place."""

    def __init__(self, store: Store, plan: Plan, *, cache_bytes: int | None = None, in_flight: int = 64) -> None:
        """Open the plan's datasets; refuses a plan that was not written for them.

        `cache_bytes` of pages are kept, by default none of a folder, which the system keeps already.
        """
        self.plan = plan
        self.shards = TokenShards.open(store, [pin for segment in plan.segments for pin in segment.datasets])
        self.order = Order(plan, self.shards)
        self.batches = BatchPlan(plan)
        if cache_bytes is None:
            cache_bytes = 64 << 20 if "://" in store.location else 0
        self._pages = PageReader(store, cache_bytes=cache_bytes, in_flight=in_flight)
        self._by_cell = [
            [self.shards.shards(segment.datasets[cell.dataset], cell.cell) for cell in segment.cells]
            for segment in plan.segments
        ]
        self._dtype = next(iter(self.shards.datasets.values())).dtype

    def row(self, position: int) -> RowArrays:
        """The row at a position, as arrays."""
        [row] = self.rows(np.array([position]))
        return row

    def rows(self, positions: npt.NDArray[np.int64]) -> list[RowArrays]:
        """The rows at positions of one segment."""
        number = self.order.segment_of(int(positions[0]))
        spans = self.order.spans(positions)
        shards = self._by_cell[number]
        cells = np.repeat(spans.cell, np.diff(spans.starts)).tolist()
        places = zip(cells, spans.shard.tolist(), spans.first.tolist(), spans.tokens.tolist(), strict=True)
        runs = [(shards[cell][shard], first, tokens) for cell, shard, first, tokens in places]
        flat, voids = self._pages.read(runs, self._dtype, self.shards.special.filler_id)
        tokens = flat.reshape(len(positions), self.plan.segments[number].sequence_length)
        rows = build_rows(positions, tokens, spans.starts, spans.tokens, self.shards.special)
        for run, void in voids:
            i = int(np.searchsorted(spans.starts, run, side="right")) - 1
            rows[i] = replace(rows[i], voids=(*rows[i].voids, void._replace(position=rows[i].position)))
        return rows

    def close(self) -> None:
        """Drop what is in flight."""
        self._pages.fetcher.close()


class RowStream:
    """The steps of one rank from `start_step` on."""

    def __init__(
        self,
        source: RowSource,
        *,
        rank: int,
        world_size: int,
        start_step: int = 0,
        rows_ahead: int = 256,
        readers: int = 8,
    ) -> None:
        """Nothing is read before the first step is asked for."""
        self._source = source
        self._rank = rank
        self._world_size = world_size
        self._next_step = start_step
        self._rows_ahead = max(rows_ahead, 1)
        self._group_rows = min(_GROUP_ROWS, max(self._rows_ahead // 4, 1))
        self._pool = ThreadPoolExecutor(readers, thread_name_prefix="rows")

    def __enter__(self) -> Self:
        """The stream."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop reading."""
        self.close()

    def __iter__(self) -> Iterator[StepRows]:
        """Steps in order until the plan ends; a failed read is raised at the step that needs it."""
        groups: deque[Future[list[RowArrays]]] = deque()
        ready: deque[RowArrays] = deque()
        steps: deque[tuple[Batch, int]] = deque()
        begun: list[npt.NDArray[np.int64]] = []  # positions that do not fill a group yet
        ahead = 0
        batches = self._batches()
        batch = next(batches, None)
        while batch is not None or steps:
            while batch is not None and (not steps or ahead < self._rows_ahead):
                if begun and steps[-1][0].segment != batch.segment:
                    groups.append(self._submit(begun))
                mine = batch.of_rank(self._rank, self._world_size)
                steps.append((batch, len(mine)))
                ahead += len(mine)
                if len(mine):
                    begun.append(mine)
                if sum(map(len, begun)) >= self._group_rows:
                    groups.extend(self._submit_full(begun))
                batch = next(batches, None)
            now, count = steps.popleft()
            began = perf_counter()
            while len(ready) < count:
                if not groups:
                    groups.append(self._submit(begun))
                ready.extend(groups.popleft().result())
            waited = perf_counter() - began
            ahead -= count
            yield StepRows(now, [ready.popleft() for _ in range(count)], waited)

    def close(self) -> None:
        """Drop what was read ahead."""
        self._source.close()
        self._pool.shutdown(wait=True, cancel_futures=True)

    def _submit(self, begun: list[npt.NDArray[np.int64]]) -> Future[list[RowArrays]]:
        """One group of what was begun, which is then empty."""
        positions = np.concatenate(begun)
        begun.clear()
        return self._pool.submit(self._source.rows, positions)

    def _submit_full(self, begun: list[npt.NDArray[np.int64]]) -> Iterator[Future[list[RowArrays]]]:
        positions = np.concatenate(begun)
        begun.clear()
        full = len(positions) // self._group_rows * self._group_rows
        for start in range(0, full, self._group_rows):
            yield self._pool.submit(self._source.rows, positions[start : start + self._group_rows])
        if full < len(positions):
            begun.append(positions[full:])

    def _batches(self) -> Iterator[Batch]:
        for step in itertools.count(self._next_step):
            if step >= self._source.batches.steps:
                return
            yield self._source.batches.batch(step)
