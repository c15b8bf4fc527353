"""The near tier of checkpoints: the newest ones of a run in a folder of every node, more often than in the store.

A local checkpoint is in no chain. It counts where it goes on from the checkpoint that the chain names as the newest, by
the plan that holds now, and where every rank finds in its own node's folder all that it holds, whole: on one node any
layout, on several the layout that wrote it. Of several attempts the newest one's count first, so that what an overtaken
rank writes late is not used. Two are kept: while ranks put the newest one's JSON, the one before is the one that all
have.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator
from typing import NamedTuple

import torch

from pipelines.datasets.store import FolderStore
from pipelines.errors import ConfigError
from training.run_log import RunState

KEPT = 2
_PLACE = re.compile(r"step-(\d+)/attempt-(\d+)/")


class LocalCheckpoint(NamedTuple):
    """One that every rank sees; the greatest is the nearest."""

    attempt: int
    step: int
    key: str
    sha256: str


class LocalTier:
    """One rank's view of its node's folder."""

    def __init__(self, folder: str, run: str) -> None:
        """ConfigError where it is no folder of this machine; it is made by the first save."""
        if "://" in folder:
            raise ConfigError(f"local_folder is {folder!r}", mend="give a folder on the node's own disk")
        self.store = FolderStore(folder)
        self._prefix = f"runs/{run}/checkpoints/"

    def agreed(self, state: RunState, *, world_size: int) -> list[LocalCheckpoint]:
        """Those that all ranks see and that go on from `state`, the nearest first.  Collective."""
        seen: list[set[LocalCheckpoint]] = [set() for _ in range(world_size)]
        torch.distributed.all_gather_object(seen, set(self._usable(state)))
        return sorted(set.intersection(*seen), reverse=True)

    def remove_old(self) -> None:
        """What lies here and is none of the newest KEPT; for a moment at which no rank is saving here."""
        found = {info.key: _place(info.key, len(self._prefix)) for info in self.store.list(self._prefix)}
        kept = sorted({place for key, place in found.items() if _is_checkpoint(key)})[-KEPT:]
        for key, place in found.items():
            if place not in kept:
                self.store.delete(key)

    def clear(self) -> None:
        """Remove all of the run, which needs none any more."""
        for info in list(self.store.list(self._prefix)):
            self.store.delete(info.key)

    def _usable(self, state: RunState) -> Iterator[LocalCheckpoint]:
        newest = state.checkpoint or {}
        for info in list(self.store.list(self._prefix)):
            if not _is_checkpoint(info.key):
                continue
            attempt, step = _place(info.key, len(self._prefix))
            encoded = self.store.get(info.key)
            body = json.loads(encoded)
            is_on_top = (body["parent"] or {}).get("sha256") == newest.get("sha256") or attempt == newest.get("attempt")
            is_ours = body["identity"] == state.identity and body["plan"]["revision"] == state.revision
            if is_on_top and is_ours and step > newest.get("step", -1):
                yield LocalCheckpoint(attempt, step, info.key, hashlib.sha256(encoded).hexdigest())


def _place(key: str, start: int) -> tuple[int, int]:
    """(attempt, step) of an object of a checkpoint."""
    found = _PLACE.match(key, start)
    return (int(found[2]), int(found[1])) if found else (-1, -1)


def _is_checkpoint(key: str) -> bool:
    return "/checkpoint-" in key
