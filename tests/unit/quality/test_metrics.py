import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.quality.metrics import auc, cut_for_precision, length_matched_auc, platt, rates, reliability


@given(st.lists(st.tuples(st.integers(0, 5), st.booleans()), min_size=1, max_size=30))
def test_auc_is_the_share_of_pairs_in_order(rows):
    scores, good = np.array([s for s, _ in rows], float), np.array([g for _, g in rows])
    pairs = [(a > b) + (a == b) / 2 for a in scores[good] for b in scores[~good]]
    found = auc(scores, good)
    assert (found is None) == (not pairs)
    if pairs:
        assert found == pytest.approx(sum(pairs) / len(pairs))


def test_a_scorer_of_length_alone_is_worth_nothing_among_pages_of_like_length():
    rng = np.random.default_rng(1)
    good = rng.random(4000) < 0.5
    length = np.exp(rng.normal(6 + good, 1))
    assert auc(length, good) > 0.7
    assert abs(length_matched_auc(length, good, length, bins=100) - 0.5) < 0.08
    assert length_matched_auc(good * 1.0, good, length) == 1.0


def test_the_cut_reaches_the_precision_with_most_recall_and_lets_no_bad_page_in_for_nothing():
    scores = np.array([0.9, 0.8, 0.7, 0.6, 0.5, 0.4])
    good = np.array([1, 1, 0, 1, 0, 0], bool)
    assert cut_for_precision(scores, good, 1.0) == 0.8
    assert cut_for_precision(scores, good, 0.75) == 0.6
    assert cut_for_precision(scores, good, 0.6) == 0.6  # 0.5 would do as well, and add a bad page only
    assert cut_for_precision(scores, ~good, 0.9) == 1.0
    assert cut_for_precision(np.array([0.5, 0.5]), np.array([True, False]), 0.9) == 1.0  # equal scores stay together
    assert rates(scores, good, 0.6) == {"pages": 6, "precision": 0.75, "recall": 1.0}


def test_calibration_mends_a_scorer_that_exaggerates():
    rng = np.random.default_rng(2)
    truth = rng.normal(0, 1.5, 20_000)
    good = rng.random(20_000) < 1 / (1 + np.exp(-truth))
    shouted = 4 * truth + 1
    slope, offset = platt(shouted, good, np.ones(len(good)))
    assert slope == pytest.approx(0.25, rel=0.1) and offset == pytest.approx(-0.25, abs=0.1)
    raw = reliability(1 / (1 + np.exp(-shouted)), good)["ece"]
    assert reliability(1 / (1 + np.exp(-(slope * shouted + offset))), good)["ece"] < 0.02 < 0.1 < raw
