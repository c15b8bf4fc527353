"""Reading a committed checkpoint: any run of any box of any parameter, from whichever ranks wrote it.

A reader fetches by ranged GETs the pages that it needs and checks their crc before a byte is used. Nothing here knows
world sizes, ZeRO stages or tensor parallelism; numpy in and out, so that evaluation and export need no DeepSpeed.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from pipelines.datasets.store import Store
from pipelines.errors import IntegrityError, MissingObjectError
from training.checkpoint.slices import STATES, Intervals, box_intervals, check_tiling, read_table
from training.layout import Shape

FORMAT = "gristmill.checkpoint/1"


class CheckpointReader:
    """One checkpoint; `body` is its JSON.  `bytes_read` counts what was fetched of the slices."""

    def __init__(self, store: Store, key: str, sha256: str, *, in_part: bool = False) -> None:
        """Read and check the checkpoint and its slice tables: every parameter is covered exactly once.

        `in_part`: tables of other nodes may be absent; what they hold cannot be read.
        """
        self._store = store
        self.key = key
        self.bytes_read = 0
        try:
            encoded = store.get(key)
        except MissingObjectError as e:
            raise IntegrityError(f"the run names checkpoint {key}, which is gone", key=key) from e
        if hashlib.sha256(encoded).hexdigest() != sha256:
            raise IntegrityError(f"{key} differs from its sha256 in the run's chain", key=key)
        self.body: dict[str, Any] = json.loads(encoded)
        if self.body.get("format") != FORMAT:
            raise IntegrityError(f"{key} has format {self.body.get('format')!r}, expected {FORMAT!r}", key=key)
        self.shapes: dict[str, Shape] = {p["name"]: tuple(p["shape"]) for p in self.body["parameters"]}
        there = [t for t in self.body["slice_tables"] if not in_part or store.head(t["key"]) is not None]
        tables = [read_table(store, table["key"], table["sha256"]) for table in there]
        slices = [part for table in tables for part in table]
        if len(there) == len(self.body["slice_tables"]):
            self._slices = check_tiling(self.shapes, slices)
        else:
            self._slices = {name: [] for name in self.shapes}
            for part in slices:
                self._slices[part.parameter].append(part)

    def read(
        self,
        parameter: str,
        offset: int,
        length: int,
        states: Sequence[str] = STATES,
        *,
        start: Shape | None = None,
        size: Shape | None = None,
    ) -> dict[str, np.ndarray]:
        """Elements [offset, offset + length) of a box (without one, of the whole parameter), flat float32, by state.

        IntegrityError where the slices that are there do not hold them all.
        """
        shape = self.shapes[parameter]
        wanted = box_intervals(shape, start or (0,) * len(shape), size or shape, offset, length)
        runs = {state: np.empty(length, dtype="<f4") for state in states}
        found = 0
        for part in self._slices[parameter] if length else ():
            source, target, lengths = _common(part.intervals(self.shapes), wanted)
            if not len(lengths):
                continue
            found += int(lengths.sum())
            first, last = int(source[0]), int(source[-1] + lengths[-1])
            ranges = [part.byte_range(state, first, last) for state in states]
            bodies = self._store.get_ranges(part.key, ranges)
            self.bytes_read += sum(map(len, bodies))
            for state, body in zip(states, bodies, strict=True):
                elements = part.elements(body, state, first, last)
                if len(lengths) == 1:
                    runs[state][target[0] : target[0] + lengths[0]] = elements
                else:
                    runs[state][_spread(target, lengths)] = elements[_spread(source - first, lengths)]
        if found != length:
            raise IntegrityError(f"{self.key}: {found} of {length} elements of {parameter} are there", key=self.key)
        return runs

    def parameter(self, name: str) -> np.ndarray:
        """The master weights of a whole parameter, in its shape."""
        shape = self.shapes[name]
        return self.read(name, 0, math.prod(shape), ("master",))["master"].reshape(shape)


def _common(one: Intervals, two: Intervals) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """What both cover: (places in one, places in two, lengths), in rising order."""
    ends_one, ends_two = one.starts + one.lengths, two.starts + two.lengths
    if one.starts[0] >= ends_two[-1] or two.starts[0] >= ends_one[-1]:
        return np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0, np.int64)
    low = np.searchsorted(ends_two, one.starts, side="right")  # the first of two that ends after one begins
    high = np.searchsorted(two.starts, ends_one, side="left")
    counts = np.maximum(high - low, 0)
    i = np.repeat(np.arange(len(one.starts)), counts)
    j = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts) + np.repeat(low, counts)
    first = np.maximum(one.starts[i], two.starts[j])
    lengths = np.minimum(ends_one[i], ends_two[j]) - first
    return one.places[i] + first - one.starts[i], two.places[j] + first - two.starts[j], lengths


def _spread(starts: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """The indices of all elements of the intervals, one after the other."""
    return np.repeat(starts - np.cumsum(lengths) + lengths, lengths) + np.arange(lengths.sum())
