"""Reading a committed checkpoint: any run of any parameter, from whichever ranks wrote it.

Slices are read whole, by ranged GETs, and checked against their crc before a byte is used. Nothing here
knows world sizes or ZeRO stages; numpy in and out, so that evaluation and export need no DeepSpeed.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Sequence
from typing import Any

import crc32c
import numpy as np

from pipelines.datasets.store import Store
from pipelines.errors import IntegrityError, MissingObjectError
from training.checkpoint.slices import STATES, Slice, check_tiling, read_table

FORMAT = "gristmill.checkpoint/1"


class CheckpointReader:
    """One checkpoint; `body` is its JSON."""

    def __init__(self, store: Store, key: str, sha256: str) -> None:
        """Read and check the checkpoint and its slice tables: every parameter is covered exactly once."""
        self._store = store
        self.key = key
        try:
            encoded = store.get(key)
        except MissingObjectError as e:
            raise IntegrityError(f"the run names checkpoint {key}, which is gone", key=key) from e
        if hashlib.sha256(encoded).hexdigest() != sha256:
            raise IntegrityError(f"{key} differs from its sha256 in the run's chain", key=key)
        self.body: dict[str, Any] = json.loads(encoded)
        if self.body.get("format") != FORMAT:
            raise IntegrityError(
                f"{key} has format {self.body.get('format')!r}, expected {FORMAT!r}", key=key
            )
        self.shapes = {p["name"]: tuple(p["shape"]) for p in self.body["parameters"]}
        tables = [read_table(store, table["key"], table["sha256"]) for table in self.body["slice_tables"]]
        self._slices = check_tiling(self.shapes, (part for table in tables for part in table))

    def read(
        self, parameter: str, offset: int, length: int, states: Sequence[str] = STATES
    ) -> dict[str, np.ndarray]:
        """Elements [offset, offset + length) of a parameter, flat float32, by state."""
        runs = {state: np.empty(length, dtype="<f4") for state in states}
        for part in self._slices[parameter]:
            first, last = max(offset, part.offset), min(offset + length, part.offset + part.length)
            if first < last:
                for state, whole in self._read_slice(part, states).items():
                    runs[state][first - offset : last - offset] = whole[
                        first - part.offset : last - part.offset
                    ]
        return runs

    def parameter(self, name: str) -> np.ndarray:
        """The master weights of a whole parameter, in its shape."""
        shape = self.shapes[name]
        return self.read(name, 0, math.prod(shape), ("master",))["master"].reshape(shape)

    def _read_slice(self, part: Slice, states: Sequence[str]) -> dict[str, np.ndarray]:
        bodies = self._store.get_ranges(part.key, [part.byte_range(state) for state in states])
        for state, body in zip(states, bodies, strict=True):
            if crc32c.crc32c(body) != part.crc32c[STATES.index(state)]:
                raise IntegrityError(
                    f"{part.key}: {state} of {part.parameter}, elements {part.offset}.."
                    f"{part.offset + part.length - 1}, does not match its crc32c",
                    key=part.key,
                    mend="go on from an earlier checkpoint of the run",
                )
        return {state: np.frombuffer(body, dtype="<f4") for state, body in zip(states, bodies, strict=True)}
