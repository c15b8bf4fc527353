import numpy as np
import pyarrow as pa
import pytest

from pipelines.errors import ConfigError
from pipelines.quality.ensemble import combine, equal_mass_edges, histogram


def test_buckets_hold_the_same_share_of_a_corpus_whatever_the_scores():
    rng = np.random.default_rng(1)
    scores = pa.array(np.round(rng.beta(8, 1, 20_000), 4))
    edges = equal_mass_edges(histogram(scores), 20)
    ranks = np.asarray(combine([scores], [edges], "max"))
    counts = np.bincount(np.rint(ranks * 19).astype(int), minlength=20)
    assert len(edges) == 19 and counts.min() > 850 and counts.max() < 1150


def test_many_equal_scores_leave_buckets_empty_and_stay_together():
    scores = pa.array([0.0] * 90 + [0.5] * 10)
    edges = equal_mass_edges(histogram(scores), 10)
    ranks = np.asarray(combine([scores], [edges], "max"))
    assert set(ranks[:90]) == {0.0} and set(ranks[90:]) == {1.0}


def test_largest_and_mean_of_those_that_have_a_score():
    a, b = pa.array([0.9, 0.1, None, None]), pa.array([0.1, None, 0.9, None])
    edges = [[0.5], [0.5]]
    assert combine([a, b], edges, "max").to_pylist() == [1.0, 0.0, 1.0, None]
    assert combine([a, b], edges, "mean").to_pylist() == [0.5, 0.0, 1.0, None]
    with pytest.raises(ConfigError):
        combine([a, b], edges, "least")
    with pytest.raises(ConfigError):
        equal_mass_edges(histogram(pa.array([None], pa.float64())), 4)
