"""Which checkpoints of a run stay, and the removal of the others.

The newest few stay, and the milestones, and what another run was branched from or begins with. The chain says first
what the run no longer keeps (`retired`); objects go after that, so that a death at any moment leaves checkpoints that
are whole or retired, and what it left lying is removed by the next pass. Two runs meet without a lock: a branch is
written before the chain that it stands on is looked at once more, a removal looks at other runs after the chain says
`retired`: one of the two sees the other.
"""

from __future__ import annotations

import contextlib
import re
import threading
from collections.abc import Iterator

from pipelines.datasets.store import Store
from pipelines.errors import ConflictError, StoreError
from training.run_log import Attempt, RunLog, RunState

_FOLDER = re.compile(r"step-\d+/attempt-(\d+)")


def is_milestone(before: tuple[int, int], after: tuple[int, int], *, every_steps: int, every_tokens: int) -> bool:
    """Whether a run that went from `before` to `after` (step, trained tokens) passed a milestone; 0: there are none."""
    pairs = zip(before, after, (every_steps, every_tokens), strict=True)
    return any(every and now // every > then // every for then, now, every in pairs)


class Retention:
    """An attempt's removal of old checkpoints, in a thread beside the training; nothing waits for it but the end."""

    def __init__(self, attempt: Attempt, keep_last: int) -> None:
        """`keep_last` checkpoints stay, and more as above; 0: all."""
        self._attempt, self._keep_last = attempt, keep_last
        self._others: dict[str, RunLog] = {}
        self._retired: set[str] = set()
        self._thread: threading.Thread | None = None

    def begin(self) -> None:
        """A pass, where none is under way; what a pass leaves is for the next."""
        if self._keep_last and not (self._thread and self._thread.is_alive()):
            self._thread = threading.Thread(target=self._try_pass, name="retention", daemon=True)
            self._thread.start()

    def finish(self) -> None:
        """Wait for the pass under way, then one more: the run ends with nothing lying about."""
        if self._thread is not None:
            self._thread.join()
            self._try_pass()

    def _try_pass(self) -> None:
        # The next pass, or the attempt that has the run now, does what is left: nothing depends on it.
        with contextlib.suppress(StoreError, ConflictError):
            self.run_pass()

    def run_pass(self) -> None:
        """Retire what is too old, then remove every object of the run's that no kept checkpoint and no run names."""
        store, run = self._attempt.log.store, self._attempt.log.name
        self._retire(self._named_by_others(store, run))
        named = {_folder(checkpoint["key"]) for checkpoint in self._attempt.log.refresh().kept}
        named |= {_folder(key) for key in self._named_by_others(store, run)}
        mine = self._attempt.number
        for info in list(store.list(_prefix(run))):
            folder, found = _folder(info.key), _FOLDER.match(info.key, len(_prefix(run)))
            # What older attempts left uncommitted is nobody's; this attempt's own may be on its way to the chain.
            if found and folder not in named and (int(found[1]) < mine or folder in self._retired):
                store.delete(info.key)

    def _retire(self, pinned: set[str]) -> None:
        log = self._attempt.log
        mine = [c for c in log.refresh().kept if c["key"].startswith(_prefix(log.name))]
        old = [c for c in mine[: -self._keep_last] if not c.get("milestone") and c["key"] not in pinned]
        if old:
            self._attempt.add("retired", {"steps": [c["step"] for c in old], "keys": [c["key"] for c in old]})
            self._retired |= {_folder(c["key"]) for c in old}

    def _named_by_others(self, store: Store, run: str) -> set[str]:
        """Keys of the checkpoints that other runs stand on."""
        names = {info.key.split("/")[1] for info in store.list("runs/") if "/log/" in info.key} - {run}
        for name in names - self._others.keys():
            self._others[name] = RunLog(store, name)
        return {key for log in self._others.values() for key in names_of(log.refresh())}


def names_of(state: RunState) -> Iterator[str]:
    """Keys of the checkpoints that a run names: its own, the one it was branched from, the one it begins with."""
    yield from (checkpoint["key"] for checkpoint in state.kept)
    yield from (r["start"]["key"] for r in (state.first_recipe, state.recipe) if "key" in (r.get("start") or {}))


def _prefix(run: str) -> str:
    return f"runs/{run}/checkpoints/"


def _folder(key: str) -> str:
    return key.rpartition("/")[0]
