"""Moving documents' tokens about: many runs of one flat array to their places in another."""

from __future__ import annotations

import numpy as np

from pipelines.kernels import kernel


@kernel
def copy_runs(
    source: np.ndarray, starts: np.ndarray, lengths: np.ndarray, target: np.ndarray, places: np.ndarray
) -> None:
    """target[places[i] : places[i] + lengths[i]] = source[starts[i] : starts[i] + lengths[i]], for each i."""
    for i in range(len(lengths)):
        start, place, length = starts[i], places[i], lengths[i]
        if length < 0 or start < 0 or place < 0 or start + length > len(source) or place + length > len(target):
            raise ValueError("a run lies outside its array")
        for k in range(length):
            target[place + k] = source[start + k]
