"""What a byte of each minimum tells of a pair: it may reject, never remove.

Two unlike minima agree in a byte once in 256 times, which the estimate corrects for. A pair is rejected below the
threshold minus four standard deviations, so one in 30,000 that stand at the threshold is lost.
"""

from __future__ import annotations

import math

import numpy as np

_CHANCE = 1.0 / 256
_SIGMAS = 4.0


def estimates(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """(n,) estimated Jaccard similarities of (n, permutations) uint8 sketches."""
    agreed = (left == right).mean(axis=1) if len(left) else np.zeros(0)
    return (agreed - _CHANCE) / (1.0 - _CHANCE)


def rejection_bound(min_similarity: float, permutations: int) -> float:
    """Estimates below this are rejected."""
    agreed = min_similarity + (1.0 - min_similarity) * _CHANCE
    sigma = math.sqrt(agreed * (1.0 - agreed) / permutations) / (1.0 - _CHANCE)
    return min_similarity - _SIGMAS * sigma
