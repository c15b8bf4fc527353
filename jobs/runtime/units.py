"""The middle of list -> map -> commit, for whole stages and for steps of wide jobs: units become done records."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc

from jobs.runtime.context import Context
from jobs.runtime.done import read_done
from jobs.runtime.execute import Task
from jobs.runtime.stage import Stage

WAVE_UNITS = 20_000


def do_units(
    context: Context, stage: Stage, units: pa.Table, prefix: str, *, engine: str | None = None, shown: str | None = None
) -> pa.Table:
    """Every unit done once: those without a done record below `prefix` are mapped. All done rows that lie there."""
    done = read_done(context.store, prefix)
    left = units.filter(pc.invert(pc.is_in(units["unit"], done["unit"].combine_chunks())))
    map_units(context, stage, left, prefix, engine=engine, shown=shown)
    return read_done(context.store, prefix) if left.num_rows else done


def map_units(
    context: Context, stage: Stage, units: pa.Table, prefix: str, *, engine: str | None = None, shown: str | None = None
) -> None:
    """Run these units in waves on the engine; `shown` instead of the stage's job is what progress is told under."""
    task = Task(
        location=context.store.location,
        stage=stage,
        done_prefix=prefix,
        flush_seconds=context.flush_seconds,
        flush_units=context.flush_units,
    )
    with context.progress.stage(shown or stage.job, units.num_rows) as tick:
        for start in range(0, units.num_rows, WAVE_UNITS):
            for rows in context.map(task, units.slice(start, WAVE_UNITS), engine=engine):
                tick(rows)
