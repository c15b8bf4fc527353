"""Ray actors for the unit map: models stay loaded, the driver dispatches by its own `ray.wait` loop.

At most two units are in flight an actor. Text never goes through the object store: an actor stores its part and
returns done rows. A killed actor is replaced and its unit redone; content-named parts make that harmless.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from jobs.runtime.done import DoneWriter
from jobs.runtime.execute import Task, run_task_unit
from jobs.runtime.stage import unit_of
from pipelines.errors import GristmillError

if TYPE_CHECKING:
    from jobs.runtime.context import Context

IN_FLIGHT = 2


class UnitActor:
    """One process with the stage's models loaded."""

    def __init__(self, task: Task) -> None:
        self._task = task

    def run(self, row: dict[str, Any]) -> pa.Table:
        """Done rows of one unit."""
        return run_task_unit(self._task, unit_of(row))


def map_units(context: Context, task: Task, units: pa.Table) -> Iterator[pa.Table]:
    """A wave over a pool of actors."""
    ray = context.ray()
    size = max(1, min(units.num_rows, int(ray.cluster_resources().get("CPU", 1)), context.parallelism or 10_000))
    kind = ray.remote(num_cpus=1, max_restarts=-1, max_task_retries=4)(UnitActor)
    actors = [kind.remote(task) for _ in range(size)]
    done = DoneWriter(context.store, task.done_prefix, units=task.flush_units, seconds=task.flush_seconds)
    waiting = iter(units.to_pylist())
    flying: dict[Any, Any] = {}
    try:
        for actor in actors * IN_FLIGHT:
            _send(actor, waiting, flying)
        while flying:
            ready, _ = ray.wait(list(flying), num_returns=1)
            actor = flying.pop(ready[0])
            try:
                rows = ray.get(ready[0])
            except ray.exceptions.RayTaskError as e:
                raise (
                    e.cause if isinstance(e.cause, GristmillError) else GristmillError(f"{task.stage.job}: {e.cause!r}")
                ) from e
            except ray.exceptions.RayActorError as e:
                raise GristmillError(f"{task.stage.job}: a unit ended its process five times: {e}") from e
            done.add(rows)
            _send(actor, waiting, flying)
            yield rows
    finally:
        done.close()
        for actor in actors:
            ray.kill(actor)


def _send(actor: Any, waiting: Iterator[dict[str, Any]], flying: dict[Any, Any]) -> None:
    row = next(waiting, None)
    if row is not None:
        flying[actor.run.remote(row)] = actor
