"""The rows of a rank, step by step, read ahead from the shards.

A rank knows its whole future, so it keeps many ranged GETs in flight: rows are submitted to a small thread
pool in the order in which they will be needed, `rows_ahead` of them at most. The stream holds no state but
the next step.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from pipelines.datasets.store import Store
from training.data.batches import Batch, BatchPlan
from training.data.order import Order
from training.data.plan import Plan
from training.data.rows import RowArrays, build_row, sum_digests
from training.data.shards import PageReader, TokenShards


@dataclass(frozen=True, slots=True, eq=False)
class StepRows:
    """What one rank trains in one step; both properties are this rank's part of the global ones."""

    batch: Batch
    rows: list[RowArrays]

    @property
    def trained_tokens(self) -> int:
        """Labels in these rows."""
        return sum(row.trained_tokens for row in self.rows)

    @property
    def digest(self) -> int:
        """Sum of the rows' digests mod 2^64."""
        return sum_digests([row.digest for row in self.rows])


class RowSource:
    """Rows by position: the plan, its data and the checked reads in one place."""

    def __init__(self, store: Store, plan: Plan, *, cache_bytes: int = 64 << 20) -> None:
        """Open the plan's datasets; refuses a plan that was not written for them."""
        self.plan = plan
        self.shards = TokenShards.open(store, [pin for segment in plan.segments for pin in segment.datasets])
        self.order = Order(plan, self.shards)
        self.batches = BatchPlan(plan)
        self._pages = PageReader(store, cache_bytes=cache_bytes)

    def row(self, position: int) -> RowArrays:
        """The row at a position, as arrays."""
        row = self.order.row(position)
        segment = self.plan.segments[row.segment]
        runs = []
        for span in row.spans:
            pin = segment.datasets[span.dataset]
            shard = self.shards.shards(pin, span.cell)[span.shard]
            runs.append(self._pages.read(shard, self.shards.datasets[pin].dtype, span.first, span.tokens))
        return build_row(position, runs, self.shards.special)


class RowStream:
    """The steps of one rank from `start_step` on."""

    def __init__(
        self,
        source: RowSource,
        *,
        rank: int,
        world_size: int,
        start_step: int = 0,
        rows_ahead: int = 64,
        requests_in_flight: int = 8,
    ) -> None:
        """Nothing is read before the first step is asked for."""
        self._source = source
        self._rank = rank
        self._world_size = world_size
        self._next_step = start_step
        self._rows_ahead = max(rows_ahead, 1)
        self._pool = ThreadPoolExecutor(requests_in_flight, thread_name_prefix="rows")

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
        waiting: deque[tuple[Batch, deque[Future[RowArrays]]]] = deque()
        ahead = 0
        for batch in self._batches():
            mine = batch.of_rank(self._rank, self._world_size)
            while waiting and ahead + len(mine) > self._rows_ahead:
                done, futures = waiting.popleft()
                ahead -= len(futures)
                yield StepRows(done, [future.result() for future in futures])
            waiting.append((batch, deque(self._pool.submit(self._source.row, int(p)) for p in mine)))
            ahead += len(mine)
        for done, futures in waiting:
            yield StepRows(done, [future.result() for future in futures])

    def close(self) -> None:
        """Drop what was read ahead."""
        self._pool.shutdown(wait=True, cancel_futures=True)

    def _batches(self) -> Iterator[Batch]:
        while self._next_step < self._source.batches.steps:
            self._next_step += 1
            yield self._source.batches.batch(self._next_step - 1)
