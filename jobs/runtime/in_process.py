"""The engine without an engine: units one after another in this process."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pyarrow as pa

from jobs.runtime.done import DoneWriter
from jobs.runtime.execute import Task, run_unit
from jobs.runtime.stage import unit_of

if TYPE_CHECKING:
    from jobs.runtime.context import Context


def map_units(context: Context, task: Task, units: pa.Table) -> Iterator[pa.Table]:
    """Done rows of each unit, recorded in batches."""
    done = DoneWriter(context.store, task.done_prefix, units=task.flush_units, seconds=task.flush_seconds)
    try:
        for row in units.to_pylist():
            rows = run_unit(task.stage, unit_of(row), context.store)
            done.add(rows)
            yield rows
    finally:
        done.close()
