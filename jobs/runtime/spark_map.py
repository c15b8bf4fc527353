"""Spark as a scheduler for the unit map: one task a group of units, no text through the JVM.

Tasks store parts and done records themselves; the driver receives one small row a unit. A task's writes happen
0..n times, which content-named objects make harmless.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Iterator
from functools import partial
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from jobs.runtime.done import DoneWriter
from jobs.runtime.execute import DONE, Task, run_unit
from jobs.runtime.stage import unit_of
from pipelines.datasets.store import open_store
from pipelines.errors import GristmillError

if TYPE_CHECKING:
    from jobs.runtime.context import Context

MAX_TASKS = 2000


def map_units(context: Context, task: Task, units: pa.Table) -> Iterator[pa.Table]:
    """A wave as one Spark job; progress follows its finished tasks."""
    sc = context.spark().sparkContext
    rows = units.to_pylist()
    if not rows:
        return
    tasks = min(len(rows), MAX_TASKS)
    sc.setJobDescription(f"gristmill:{task.stage.job}")
    group = f"{task.stage.job}-{task.stage.stage_id}"
    outcome: dict[str, Any] = {}

    def work() -> None:
        sc.setJobGroup(group, f"gristmill:{task.stage.job}", interruptOnCancel=True)
        try:
            outcome["rows"] = sc.parallelize(rows, tasks).mapPartitions(partial(_run_group, task)).collect()
        except BaseException as e:  # noqa: BLE001  handed to the waiting thread, which raises it
            outcome["error"] = e

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    reported = 0
    try:
        while thread.is_alive():
            thread.join(0.5)
            finished = _finished_tasks(sc, group) * len(rows) // tasks
            for _ in range(min(finished, len(rows)) - reported):
                yield DONE.empty_table()
            reported = max(reported, min(finished, len(rows)))
    except BaseException:
        sc.cancelJobGroup(group)
        raise
    if "error" in outcome:
        raise _reason(outcome["error"])
    for _ in range(len(rows) - reported):
        yield DONE.empty_table()


def _run_group(task: Task, rows: Iterable[dict[str, Any]]) -> Iterator[tuple[str, float]]:
    """On an executor."""
    store = open_store(task.location)
    done = DoneWriter(store, task.done_prefix, units=task.flush_units, seconds=task.flush_seconds)
    for row in rows:
        started = time.monotonic()
        done.add(run_unit(task.stage, unit_of(row), store))
        yield row["unit"], time.monotonic() - started
    done.close()


def _finished_tasks(sc: Any, group: str) -> int:
    tracker = sc.statusTracker()
    stages = [s for job in tracker.getJobIdsForGroup(group) for s in tracker.getJobInfo(job).stageIds]
    return sum(info.numCompletedTasks for s in stages if (info := tracker.getStageInfo(s)))


def _reason(error: BaseException) -> BaseException:
    """The Python error of the task that failed, out of the JVM's trace."""
    text = str(error)
    lines = [line for line in text.splitlines() if line.strip()]
    for line in reversed(lines):
        for kind in (GristmillError, *_all(GristmillError)):
            name = f"{kind.__module__}.{kind.__name__}: "
            if name in line:
                return kind(line.partition(name)[2].strip().rstrip("'\")"))
    if isinstance(error, KeyboardInterrupt):
        return error
    python = [line for line in lines if "Error" in line and not line.lstrip().startswith("at ")]
    return GristmillError(f"Spark gave up on the stage: {(python or lines or ['no message'])[0].strip()[:400]}")


def _all(kind: type[GristmillError]) -> list[type[GristmillError]]:
    return [k for s in kind.__subclasses__() for k in (s, *_all(s))]
