"""Ray actors for the unit map: models stay loaded, the driver dispatches by its own `ray.wait` loop.

What is decided stands in `pool.py`; here it is carried out. Text never goes through the object store: an actor stores
its part and returns done rows. A killed actor or a lost node costs the units that were under way, which other actors
do again; content-named parts make that harmless.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from jobs.runtime.done import DoneWriter
from jobs.runtime.execute import Task, run_task_unit
from jobs.runtime.pool import Pool, PoolRules, Send, Start, Stop, Work
from jobs.runtime.stage import unit_of
from pipelines.errors import GristmillError

if TYPE_CHECKING:
    from jobs.runtime.context import Context

POLL_SECONDS = 1.0  # how often lateness and room are looked at; a finished unit is seen at once


class UnitActor:
    """One process with the stage's models loaded."""

    def __init__(self, task: Task) -> None:
        self._task = task

    def ready(self) -> int:
        """Process id: the actor is there."""
        return os.getpid()

    def run(self, row: dict[str, Any]) -> tuple[pa.Table, int]:
        """(done rows of one unit, resident bytes of this process)."""
        return run_task_unit(self._task, unit_of(row)), _resident_bytes()


def map_units(context: Context, task: Task, units: pa.Table) -> Iterator[pa.Table]:
    """A wave over a pool of actors."""
    rows = units.to_pylist()
    rules = PoolRules(most_actors=max(1, min(len(rows), context.parallelism or 10_000)))
    pool = Pool([Work(number=n, size_bytes=row["size_bytes"] or 0) for n, row in enumerate(rows)], rules)
    done = DoneWriter(context.store, task.done_prefix, units=task.flush_units, seconds=task.flush_seconds)
    hands = _Hands(context.ray(), task, pool, rows)
    try:
        while not pool.is_finished:
            hands.carry_out()
            for finished in hands.wait():
                done.add(finished)
                yield finished
    finally:
        done.close()
        hands.stop_all()
    context.progress.say(
        f"  {task.stage.job}: {pool.most_at_once} actors at most, the largest of {pool.largest_rss_bytes / 1e6:.0f} MB"
        + (f"; {pool.sent_twice} late units were sent twice" if pool.sent_twice else "")
    )


class _Hands:
    """The pool's actors in Ray, and the calls under way."""

    def __init__(self, ray: Any, task: Task, pool: Pool, rows: list[dict[str, Any]]) -> None:
        self._ray, self._task, self._pool, self._rows = ray, task, pool, rows
        needs = task.stage.resources
        # restarts are the pool's: it knows what was under way, and sends it to whoever is free
        self._kind = ray.remote(num_cpus=needs.num_cpus, num_gpus=needs.num_gpus, max_restarts=0)(UnitActor)
        self._actors: dict[int, Any] = {}
        self.pids: dict[int, int] = {}
        self._calls: dict[Any, tuple[int, int | None]] = {}
        self._room, self._looked = 1, 0.0

    def carry_out(self) -> None:
        """What the pool decides."""
        now = time.monotonic()
        for action in self._pool.decide(now, room=self._room_at(now)):
            if isinstance(action, Start):
                self._actors[action.actor] = self._kind.remote(self._task)
                self._calls[self._actors[action.actor].ready.remote()] = (action.actor, None)
            elif isinstance(action, Send):
                call = self._actors[action.actor].run.remote(self._rows[action.number])
                self._calls[call] = (action.actor, action.number)
            elif isinstance(action, Stop):
                self._end(action.actor)

    def wait(self) -> Iterator[pa.Table]:
        """Done rows of what has finished since; waits for the next one, but not longer than POLL_SECONDS."""
        if not self._calls:
            return
        ready, _ = self._ray.wait(list(self._calls), num_returns=1, timeout=POLL_SECONDS)
        for call in ready:
            if call not in self._calls:  # of an actor that ended meanwhile
                continue
            actor, number = self._calls.pop(call)
            try:
                result = self._ray.get(call)
            except self._ray.exceptions.RayTaskError as e:
                job = self._task.stage.job
                cause = e.cause
                raise (cause if isinstance(cause, GristmillError) else GristmillError(f"{job}: {cause!r}")) from e
            except self._ray.exceptions.RayActorError as e:
                self._lost(actor, e)
                continue
            if number is None:
                self.pids[actor] = result
                self._pool.ready(actor)
            elif self._pool.finished(actor, number, time.monotonic(), result[1]):
                yield result[0]

    def stop_all(self) -> None:
        """End every actor of this wave."""
        for actor in list(self._actors):
            self._end(actor)

    def _lost(self, actor: int, error: Exception) -> None:
        self._end(actor)
        killer = self._pool.died(actor)
        if killer is not None:
            told = self._rows[killer]["input"]
            raise GristmillError(f"{self._task.stage.job}: the unit {told} ended its process again and again: {error}")

    def _end(self, actor: int) -> None:
        self._calls = {call: who for call, who in self._calls.items() if who[0] != actor}
        if (handle := self._actors.pop(actor, None)) is not None:
            self._ray.kill(handle)

    def _room_at(self, now: float) -> int:
        """Actors that the cluster has room for, looked at now and then: a cluster may grow."""
        if now - self._looked > 5 * POLL_SECONDS:
            have, needs = self._ray.cluster_resources(), self._task.stage.resources
            bounds = [
                have.get(name, 0) / need for name, need in (("CPU", needs.num_cpus), ("GPU", needs.num_gpus)) if need
            ]
            self._room, self._looked = max(1, int(min(bounds, default=1))), now
        return self._room


def _resident_bytes() -> int:
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except OSError:
        return 0
    return pages * os.sysconf("SC_PAGE_SIZE")
