"""The run's chain (F): who trains, by which plan, what is committed; and the fence that keeps stale writers
out.

One create-only chain under runs/NAME/log. A writer may create only the number after the last one it has
read. Opening an attempt takes a number, so a rank 0 that wakes late is refused, reads on, sees the newer
attempt and stops with a ConflictError (exit 7); entries that others may add (a control request) are read
and written past. The state of a run is a fold over its entries.
"""

from __future__ import annotations

import threading
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
KINDS = ("plan", "attempt", "checkpoint", "retired", "finished", "stopped", "control")


@dataclass(frozen=True, slots=True, kw_only=True)
class RunState:
    """What the entries up to `number` say; plan and recipe (model, schedule, optimizer) are the newest.

    `first_plan` and `first_recipe` are those that the run began with, `amended_from` the first position at which the
    newest revision differs from the one before. `identity` is of this chain and of no other with its name. `kept` are
    the committed checkpoints that were not retired, oldest first, `checkpoint` the newest of them.
    """

    number: int = 0
    identity: str = ""
    revision: int = 0
    plan: Plan | None = None
    recipe: dict[str, Any] = field(default_factory=dict)
    first_plan: Plan | None = None
    first_recipe: dict[str, Any] = field(default_factory=dict)
    amended_from: int = 0
    attempt: int = 0
    attempt_by: dict[str, Any] = field(default_factory=dict)
    checkpoint: dict[str, Any] | None = None
    kept: tuple[dict[str, Any], ...] = ()
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
    state = replace(state, number=number, identity=state.identity or entry.get("writer", ""))
    if kind == "plan":
        plan = read_plan(entry["plan"], sha256=entry["sha256"])
        state = replace(state, revision=entry["revision"], plan=plan, recipe=entry["recipe"], finished=None)
        if entry["revision"] == 1:
            return replace(state, first_plan=plan, first_recipe=entry["recipe"])
        return replace(state, amended_from=entry["from_position"])
    if kind == "attempt":
        return replace(state, attempt=entry["attempt"], attempt_by=entry["by"], stop_requested=False)
    if kind == "checkpoint":
        entry = {**entry, "number": number}
        return replace(state, checkpoint=entry, kept=(*state.kept, entry))
    if kind == "retired":
        return replace(state, kept=tuple(c for c in state.kept if c["key"] not in entry["keys"]))
    if kind == "finished":
        return replace(state, finished=entry)
    if kind == "control" and entry.get("action") == "stop":
        return replace(state, stop_requested=True)
    return state


class RunLog:
    """The chain of one run, as one process has read it; its threads may read on and add."""

    def __init__(self, store: Store, name: str, *, clock: Callable[[], datetime] | None = None) -> None:
        """Reads what is there."""
        self.name = name
        self.store = store
        self._chain = Chain(store, f"runs/{name}/log")
        self._clock = clock or (lambda: datetime.now(UTC))
        self._lock = threading.Lock()
        self.state = RunState()
        self.refresh()

    def refresh(self) -> RunState:
        """Read on."""
        with self._lock:
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

    def entries(self, kind: str) -> list[tuple[int, dict[str, Any]]]:
        """(number, entry) of every entry of a kind."""
        return [(number, entry) for number, entry in self._chain.entries() if entry["kind"] == kind]

    def checkpoint_of(self, step: int | None) -> dict[str, Any]:
        """The entry of the checkpoint of a step, with its number; the newest where `step` is None.

        InputError that names those there are; one that was retired is none.
        """
        found = {entry["step"]: entry for entry in self.state.kept}
        if step is None and self.state.checkpoint is not None:
            return self.state.checkpoint
        if step not in found:
            raise InputError(
                f"run {self.name!r} has no checkpoint" + ("" if step is None else f" of step {step}"),
                mend=f"there are checkpoints of steps {sorted(found)[-20:]}",
            )
        return found[step]

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
                f"run {self.name!r} was planned with another " + "; another ".join(differences),
                mend=f"give the run another name, or change it on its way: `gristmill runs amend {self.name}`",
            )

    def revise(self, plan: Plan, recipe: dict[str, Any], *, from_position: int, note: dict[str, Any]) -> int:
        """Add the next revision, its number; `note` says what was asked.  The rows before `from_position` stay.

        ConfigError where the newest checkpoint lies beyond it.
        """
        while True:
            state = self.state
            if state.plan is None:
                raise InputError(f"run {self.name!r} has no plan in {self.store.location}")
            reached = (state.checkpoint or {}).get("position", 0)
            if reached > from_position:
                raise ConfigError(
                    f"run {self.name!r} has a checkpoint at position {reached}, after {from_position}",
                    mend=f"amend from position {reached} on, or `gristmill runs branch {self.name}@STEP` for a new run",
                )
            entry = {
                "revision": state.revision + 1,
                "parent_sha256": state.plan.sha256,
                "from_position": from_position,
                "plan": plan.to_json(),
                "sha256": plan.sha256,
                "recipe": recipe,
                "note": note,
            }
            if self._try("plan", entry):
                return entry["revision"]
            revision = state.revision
            if self.refresh().revision != revision:
                raise ConflictError(f"run {self.name!r} was amended by somebody else at this moment", mend="look again")

    def begin_branch(
        self, plan: Plan, recipe: dict[str, Any], checkpoint: dict[str, Any], note: dict[str, Any]
    ) -> None:
        """The chain of a new run that goes on from another's checkpoint; ConflictError where the name is taken."""
        first = {"revision": 1, "parent_sha256": None, "plan": plan.to_json(), "sha256": plan.sha256, "recipe": recipe}
        if self.state.number or not self._try("plan", {**first, "note": note}):
            raise ConflictError(f"there is a run {self.name!r} already", mend="give the branch another name (--name)")
        self._try("checkpoint", {**checkpoint, "branched_from": note})

    def differences(self, plan: Plan, recipe: dict[str, Any]) -> list[str]:
        """What differs from the plan that the run began with, as a person reads it."""
        known = self.state.first_plan
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
        before = self.state.first_recipe
        for key in sorted(recipe.keys() | before.keys()):
            if recipe.get(key) != before.get(key):
                found.append(f"{key}: {before.get(key)} there, {recipe.get(key)} now")
        return found

    def _try(self, kind: str, entry: dict[str, Any]) -> bool:
        with self._lock:
            number = self.state.number + 1
            body = {"format": FORMAT, "kind": kind, "at": self._clock().isoformat(timespec="seconds"), **entry}
            if not self._chain.append(number, body, uuid.uuid4().hex):
                return False
            self.state = fold(self.state, number, self._chain.read(number))
            return True


def begin_branch(
    parent: RunLog, name: str, plan: Plan, recipe: dict[str, Any], checkpoint: dict[str, Any], note: dict[str, Any]
) -> RunLog:
    """Run `name`, which goes on from a checkpoint of `parent`; `note` says which, and what was asked.

    ConflictError where the name is taken, or the parent gave the checkpoint up at this moment.
    """
    log = RunLog(parent.store, name)
    place = ("number", "format", "kind", "at", "attempt")  # in the parent's chain
    log.begin_branch(plan, recipe, {key: value for key, value in checkpoint.items() if key not in place}, note)
    if checkpoint["key"] not in {kept["key"] for kept in parent.refresh().kept}:
        raise ConflictError(
            f"run {parent.name!r} gave up its checkpoint of step {checkpoint['step']} at this moment",
            mend="branch from a newer one, under another name",
        )
    return log


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
        self.number, self.revision = log.state.attempt, log.state.revision

    @property
    def folder(self) -> str:
        """This attempt's name in keys."""
        return f"attempt-{self.number:04d}"

    def add(self, kind: str, entry: dict[str, Any]) -> int:
        """Append an entry, its number; ConflictError where a newer attempt has the run, or a newer plan these rows."""
        while True:
            self.require_newest()
            self.require_plan(entry.get("position", 0))
            if self.log._try(kind, {**entry, "attempt": self.number}):
                return self.log.state.number
            self.log.refresh()

    def require_plan(self, position: int) -> None:
        """ConflictError where the run was amended from a position on that lies before this one."""
        state = self.log.state
        if state.revision != self.revision and position > state.amended_from:
            raise ConflictError(
                f"run {self.log.name!r} was amended from position {state.amended_from} on; attempt {self.number} has "
                f"trained to {position} by the plan before, which is dropped",
                mend="the same command goes on from the newest checkpoint, by the new plan",
            )

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
