"""The run's chain (F): who trains, by which plan, what is committed; and the fence that keeps stale writers
out.

One create-only chain under runs/NAME/log. A writer may create only the number after the last one it has
read. Opening an attempt takes a number, so a rank 0 that wakes late is refused, reads on, sees the newer
attempt and stops with a ConflictError (exit 7); entries that others may add (a control request) are read
and written past. The state of a run is a fold over its entries.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

from pipelines.datasets.chain import Chain
from pipelines.datasets.store import Store
from pipelines.errors import ConfigError, ConflictError, InputError, IntegrityError
from training.data.plan import Plan, read_plan

FORMAT = "gristmill.run/1"
KINDS = ("plan", "attempt", "checkpoint", "finished", "stopped", "control")


@dataclass(frozen=True, slots=True, kw_only=True)
class RunState:
    """What the entries up to `number` say; plan and recipe (model, schedule, optimizer) are the newest."""

    number: int = 0
    revision: int = 0
    plan: Plan | None = None
    recipe: dict[str, Any] = field(default_factory=dict)
    attempt: int = 0
    attempt_by: dict[str, Any] = field(default_factory=dict)
    checkpoint: dict[str, Any] | None = None
    finished: dict[str, Any] | None = None
    stop_requested: bool = False


def fold(state: RunState, number: int, entry: dict[str, Any]) -> RunState:
    """The state after one more entry; unknown formats and kinds are refused."""
    kind = entry.get("kind")
    if entry.get("format") != FORMAT or kind not in KINDS or number != state.number + 1:
        raise IntegrityError(
            f"entry {number} of the run's chain is {entry.get('format')!r} {kind!r} after number "
            f"{state.number}; this version reads {FORMAT!r}, one number after the other"
        )
    state = replace(state, number=number)
    if kind == "plan":
        plan = read_plan(entry["plan"], sha256=entry["sha256"])
        return replace(state, revision=entry["revision"], plan=plan, recipe=entry["recipe"])
    if kind == "attempt":
        return replace(state, attempt=entry["attempt"], attempt_by=entry["by"], stop_requested=False)
    if kind == "checkpoint":
        return replace(state, checkpoint={**entry, "number": number})
    if kind == "finished":
        return replace(state, finished=entry)
    if kind == "control" and entry.get("action") == "stop":
        return replace(state, stop_requested=True)
    return state


class RunLog:
    """The chain of one run, as one process has read it."""

    def __init__(self, store: Store, name: str, *, clock: Callable[[], datetime] | None = None) -> None:
        """Reads what is there."""
        self.name = name
        self.store = store
        self._chain = Chain(store, f"runs/{name}/log")
        self._clock = clock or (lambda: datetime.now(UTC))
        self.state = RunState()
        self.refresh()

    def refresh(self) -> RunState:
        """Read on."""
        for number, entry in self._chain.entries(after=self.state.number):
            self.state = fold(self.state, number, entry)
        return self.state

    def state_at(self, number: int) -> RunState:
        """The state after entry `number`: what every rank of an attempt goes by, whatever was added since."""
        state = RunState()
        for found, entry in self._chain.entries():
            if found > number:
                break
            state = fold(state, found, entry)
        return state

    def write_plan(self, plan: Plan, recipe: dict[str, Any]) -> None:
        """Revision 1 of a new run; where it exists already, the same one is fine and another is refused."""
        if self.state.plan is None:
            entry = {
                "revision": 1,
                "parent_sha256": None,
                "plan": plan.to_json(),
                "sha256": plan.sha256,
                "recipe": recipe,
            }
            if self._try("plan", entry):
                return
            self.refresh()
        if differences := self.differences(plan, recipe):
            raise ConfigError(
                f"run {self.name!r} has plan revision {self.state.revision} with another "
                + "; another ".join(differences),
                mend="give the run another name (changing a run on its way is not part of this version)",
            )

    def differences(self, plan: Plan, recipe: dict[str, Any]) -> list[str]:
        """What differs from the newest revision, as a person reads it."""
        known = self.state.plan
        if known is None:
            return []
        ours, theirs = plan.to_json(), known.to_json()
        found = [
            f"{key}: {theirs[key]} there, {ours[key]} now"
            for key in ("seed", "end_position", "skips")
            if theirs[key] != ours[key]
        ]
        for before, now in zip(theirs["segments"], ours["segments"], strict=False):
            found += [
                f"{key}: {before[key]} there, {now[key]} now" for key in now if before.get(key) != now[key]
            ]
        for key in sorted(recipe.keys() | self.state.recipe.keys()):
            if recipe.get(key) != self.state.recipe.get(key):
                found.append(f"{key}: {self.state.recipe.get(key)} there, {recipe.get(key)} now")
        return found

    def _try(self, kind: str, entry: dict[str, Any]) -> bool:
        number = self.state.number + 1
        body = {"format": FORMAT, "kind": kind, "at": self._clock().isoformat(timespec="seconds"), **entry}
        if not self._chain.append(number, body, uuid.uuid4().hex):
            return False
        self.state = fold(self.state, number, self._chain.read(number))
        return True


class Attempt:
    """A writer of the run: every entry it adds proves that no newer attempt has been opened."""

    def __init__(self, log: RunLog, by: dict[str, Any]) -> None:
        """Open the next attempt; `by` says who (host, pid, world size, ZeRO stage)."""
        if log.state.plan is None:
            raise InputError(
                f"run {log.name!r} has no plan in {log.store.location}", mend="start it with `pretrain`"
            )
        self.log = log
        while not log._try("attempt", {"attempt": log.state.attempt + 1, "by": by}):
            log.refresh()
        self.number = log.state.attempt

    @property
    def folder(self) -> str:
        """This attempt's name in keys."""
        return f"attempt-{self.number:04d}"

    def add(self, kind: str, entry: dict[str, Any]) -> int:
        """Append an entry, its number; ConflictError where a newer attempt has the run."""
        self.require_newest()
        while not self.log._try(kind, {**entry, "attempt": self.number}):
            self.log.refresh()
            self.require_newest()
        return self.log.state.number

    def require_newest(self) -> None:
        """ConflictError where the entries read so far hold a newer attempt."""
        if self.log.state.attempt != self.number:
            by = ", ".join(f"{key} {value}" for key, value in self.log.state.attempt_by.items())
            raise ConflictError(
                f"run {self.log.name!r}: attempt {self.log.state.attempt} ({by}) was opened after attempt "
                f"{self.number}, which may write nothing more",
                mend="let the newer attempt train; nothing was lost",
            )


def request_stop(store: Store, name: str) -> bool:
    """Ask the running attempt to save and stop; False where the run is finished or was never started."""
    log = RunLog(store, name)
    while log.state.attempt and log.state.finished is None:
        if log._try("control", {"action": "stop"}):
            return True
        log.refresh()
    return False
