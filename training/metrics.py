"""Metrics of a run: JSON lines in content-named parts, one small live object for progress bars, TensorBoard by wish.

A part is written before the checkpoint that covers its steps. An attempt that goes on from a checkpoint
writes those steps again that the lost one had beyond it: readers take each step from the newest attempt.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any

from pipelines.datasets.store import Store
from pipelines.errors import MissingObjectError, SetupError


class MetricsWriter:
    """Rank 0's metrics of one attempt."""

    def __init__(self, store: Store, run: str, folder: str) -> None:
        """Nothing is written before the first flush."""
        self._store, self._folder = store, f"runs/{run}/metrics/{folder}"
        self._live = f"runs/{run}/metrics/live.json"
        self._lines: list[dict[str, Any]] = []

    def add(self, line: dict[str, Any]) -> None:
        """Keep one step's metrics for the next part."""
        self._lines.append(line)

    def flush(self) -> None:
        """Write what was added since the last part."""
        if self._lines:
            body = "".join(json.dumps(line) + "\n" for line in self._lines).encode()
            first = self._lines[0]["step"]
            self._store.put(
                f"{self._folder}/step-{first:08d}-{hashlib.sha256(body).hexdigest()[:16]}.jsonl", body
            )
            self._lines = []

    def show(self, line: dict[str, Any]) -> None:
        """Overwrite the live object."""
        self._store.put(self._live, json.dumps(line).encode())


class TensorBoardWriter:
    """Event files of a run for TensorBoard, below a folder (or an s3:// address) of rank 0's machine."""

    def __init__(self, folder: str, run: str, step: int) -> None:
        """`step` is the one that is gone on from: TensorBoard drops what an attempt before had beyond it.

        SetupError where there is no writer.
        """
        try:
            from tensorboardX import SummaryWriter
        except ImportError as error:
            raise SetupError(
                f"tensorboard is {folder!r}, and there is no writer of event files ({error})",
                mend="pip install tensorboardX (it comes with 'gristmill[train]'), or leave the setting out",
            ) from error
        self._writer = SummaryWriter(f"{folder.rstrip('/')}/{run}", purge_step=step + 1, flush_secs=30)

    def add(self, line: dict[str, Any]) -> None:
        """Every number of a step's metrics; those by cell as NAME/CELL."""
        for name, value in line.items():
            if isinstance(value, dict):
                for key, part in value.items():
                    self._writer.add_scalar(f"{name}/{key}", part, line["step"])
            elif isinstance(value, int | float) and name != "step":
                self._writer.add_scalar(name, value, line["step"])

    def close(self) -> None:
        """Write what is held."""
        self._writer.close()


def read_metrics(store: Store, run: str) -> list[dict[str, Any]]:
    """All steps in order, each from the newest attempt that trained it."""
    steps: dict[int, dict[str, Any]] = {}
    for info in store.list(f"runs/{run}/metrics/attempt-"):
        for line in store.get(info.key).decode().splitlines():
            metrics = json.loads(line)
            steps[metrics["step"]] = metrics
    return [steps[step] for step in sorted(steps)]


def read_live(store: Store, run: str) -> dict[str, Any] | None:
    """The newest step as its writer showed it, or None."""
    try:
        return json.loads(store.get(f"runs/{run}/metrics/live.json"))
    except (MissingObjectError, ValueError):
        return None
