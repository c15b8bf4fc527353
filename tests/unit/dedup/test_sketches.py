import math
import random

import numpy as np
import pyarrow as pa

from pipelines.dedup.bands import BandPlan
from pipelines.dedup.signature import band_digests
from pipelines.dedup.sketches import estimates, rejection_bound
from pipelines.dedup.verify import jaccards


def test_the_estimate_from_one_byte_has_no_bias_and_little_more_spread():
    rng = random.Random(1)
    left, right = [], []
    for _ in range(600):
        words = [f"{rng.randrange(10**6)}" for _ in range(120)]
        copy = list(words)
        at = rng.randrange(100)
        copy[at : at + rng.randrange(1, 80)] = [f"x{rng.random()}" for _ in range(rng.randrange(1, 40))]
        left.append(" ".join(words))
        right.append(" ".join(copy))
    _, sketches, _ = band_digests(pa.array(left + right), BandPlan())
    exact = jaccards(pa.array(left + right), np.arange(600), np.arange(600) + 600)
    error = estimates(sketches[:600], sketches[600:]) - exact
    theory = math.sqrt((exact * (1 - exact)).mean() / 256)
    assert abs(error.mean()) < 4 * theory / math.sqrt(600)
    assert 0.85 * theory < error.std() < 1.2 * theory


def test_only_what_is_four_deviations_below_is_rejected():
    bound = rejection_bound(0.7, 256)
    assert 0.7 - 4.1 * math.sqrt(0.21 / 256) < bound < 0.7 - 3.9 * math.sqrt(0.21 / 256)
    assert rejection_bound(0.7, 64) < bound < rejection_bound(0.7, 1024)
    same = np.arange(256, dtype=np.uint8)[None]
    assert estimates(same, same)[0] == 1.0
    assert estimates(same[:0], same[:0]).shape == (0,)
