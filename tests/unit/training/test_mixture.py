from __future__ import annotations

import json
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.errors import ConfigError
from training.data.mixture import BLOCK_SLOTS, Mixture, cell_weights, integer_shares

VECTORS = json.loads((Path(__file__).parent / "order_vectors.json").read_text())


@pytest.mark.parametrize(
    "vector", VECTORS["mixture"], ids=lambda v: f"{len(v['weights'])}-cells-{v['shares'][0]}"
)
def test_the_golden_mixtures_are_reproduced(vector):
    shares = integer_shares(vector["weights"])
    assert list(shares) == vector["shares"]
    mixture = Mixture(shares)
    assert [list(mixture.locate(p)) for p in vector["position"]] == vector["cell_and_k"]
    cells = range(len(shares))
    assert [[mixture.count_before(c, p) for c in cells] for p in vector["position"]] == vector["count_before"]
    assert [mixture.position(c, k) for c, k in vector["cell_and_k"]] == vector["position"]


@settings(deadline=None, max_examples=12)
@given(weights=st.lists(st.one_of(st.integers(0, 1000), st.floats(0.0, 10.0)), min_size=1, max_size=40))
def test_every_prefix_is_within_one_row_of_its_share_and_inverses_are_exact(weights):
    if sum(weights) <= 0:
        with pytest.raises(ConfigError):
            integer_shares(weights)
        return
    mixture = Mixture(integer_shares(weights))
    q = np.arange(BLOCK_SLOTS)
    cells, rows = mixture.locate_many(q)
    worst = 0.0
    for cell, share in enumerate(mixture.shares):
        mine = cells == cell
        count = np.concatenate([[0], np.cumsum(mine)])
        assert count[-1] == share
        worst = max(worst, float(np.abs(count - np.arange(BLOCK_SLOTS + 1) * (share / BLOCK_SLOTS)).max()))
        assert np.array_equal(rows[mine], np.arange(share))
        for at in (0, 1, 77, 40_000, BLOCK_SLOTS, BLOCK_SLOTS + 77):
            assert mixture.count_before(cell, at) == count[at % BLOCK_SLOTS] + (at // BLOCK_SLOTS) * share
    assert worst < 1
    for at in (0, 1, 40_000, BLOCK_SLOTS - 1, 5 * BLOCK_SLOTS + 3, 10**12):
        assert mixture.position(*mixture.locate(at)) == at


def test_shares_follow_the_largest_remainder_and_ties_go_to_the_lower_cell():
    assert integer_shares([1, 1, 1], slots=4) == (2, 1, 1)
    assert integer_shares([Fraction(1, 3), Fraction(2, 3)], slots=4) == (1, 3)
    assert integer_shares([0, 1], slots=4) == (0, 4)


def test_shares_that_do_not_fill_the_block_are_refused():
    with pytest.raises(ConfigError, match="expected 65536"):
        Mixture([1, 2, 3])


def test_weights_by_pattern_are_shared_by_tokens_and_names_go_first():
    tokens = {"en.web.q0": 100, "en.web.q1": 300, "zh.web.q1": 50, "zh.book.qx": 0}
    assert cell_weights({"en.web.*": 4, "zh.web.q1": 1}, tokens) == {"en.web.q0": 1, "en.web.q1": 3, "zh.web.q1": 1}
    assert cell_weights({"en.web.q0": 5, "en.web.*": 3}, tokens) == {"en.web.q0": 5, "en.web.q1": 3}
    assert cell_weights({}, tokens) == {"en.web.q0": 100, "en.web.q1": 300, "zh.web.q1": 50}
    with pytest.raises(ConfigError, match="fits no cell"):
        cell_weights({"zh.book.*": 1}, tokens)
    with pytest.raises(ConfigError, match="fits both"):
        cell_weights({"en.*": 1, "*.web.*": 1}, tokens)
