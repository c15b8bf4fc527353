from __future__ import annotations

import json
import pickle
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.errors import ConfigError
from training.data.permutation import Permutation, round_keys

VECTORS = json.loads((Path(__file__).parent / "order_vectors.json").read_text())
U64 = st.integers(0, 2**64 - 1)


def keys_of(vector: dict) -> tuple[int, ...]:
    return round_keys(seed=vector["seed"], lap=vector["lap"], growth=vector["growth"], cell=vector["cell"])


@pytest.mark.parametrize("vector", VECTORS["keys"], ids=lambda v: f"{v['cell']}-{v['lap']}-{v['growth']}")
def test_the_golden_keys_are_reproduced(vector):
    assert [str(key) for key in keys_of(vector)] == vector["keys"]


@pytest.mark.parametrize("vector", VECTORS["permutation"], ids=lambda v: f"{v['cell']}-{v['lap']}-{v['n']}")
def test_the_golden_permutations_are_reproduced_both_ways(vector):
    permutation = Permutation(vector["n"], keys_of(vector))
    assert [permutation.forward(x) for x in vector["x"]] == vector["y"]
    assert [permutation.inverse(y) for y in vector["y"]] == vector["x"]


@pytest.mark.parametrize("seed", [0, 7, 2**64 - 1])
def test_every_small_n_is_a_bijection(seed):
    for n in range(1, 70):
        permutation = Permutation(n, round_keys(seed=seed, lap=1, growth=0, cell="zh.web"))
        forward = [permutation.forward(x) for x in range(n)]
        assert sorted(forward) == list(range(n))
        assert [permutation.inverse(y) for y in forward] == list(range(n))


@pytest.mark.parametrize("n", [1000, 4096, 4097, 65_535, 65_537])
def test_a_larger_n_is_a_bijection(n):
    permutation = Permutation(n, round_keys(seed=3, lap=0, growth=2, cell="en.code"))
    forward = [permutation.forward(x) for x in range(n)]
    assert sorted(forward) == list(range(n))
    assert [permutation.inverse(y) for y in forward] == list(range(n))


@settings(deadline=None)
@given(n=st.integers(1, 2**62), seed=U64, lap=U64, growth=U64, cell=st.text(), choice=st.integers(0, 2**62))
def test_forward_then_inverse_is_the_identity_for_any_key(n, seed, lap, growth, cell, choice):
    permutation = Permutation(n, round_keys(seed=seed, lap=lap, growth=growth, cell=cell))
    x = choice % n
    y = permutation.forward(x)
    assert 0 <= y < n
    assert permutation.inverse(y) == x


def test_orders_of_six_items_are_even():
    # chi2 per degree of freedom over the 720 orders; 8 rounds gave 8.1, sixteen about 1.
    counts: dict[tuple[int, ...], int] = {}
    orders = 7_200
    for seed in range(orders):
        permutation = Permutation(6, round_keys(seed=seed, lap=0, growth=0, cell="c"))
        order = tuple(permutation.forward(x) for x in range(6))
        counts[order] = counts.get(order, 0) + 1
    expected = orders / 720
    chi2 = sum((n - expected) ** 2 / expected for n in counts.values()) + (720 - len(counts)) * expected
    assert chi2 / 719 < 1.3


def test_a_place_outside_is_an_index_error_and_a_negative_seed_is_refused():
    permutation = Permutation(5, round_keys(seed=0, lap=0, growth=0, cell=""))
    for bad in (-1, 5):
        with pytest.raises(IndexError):
            permutation.forward(bad)
        with pytest.raises(IndexError):
            permutation.inverse(bad)
    with pytest.raises(ConfigError, match="seed is -1"):
        round_keys(seed=-1, lap=0, growth=0, cell="")
    again = pickle.loads(pickle.dumps(permutation))
    assert [again.forward(x) for x in range(5)] == [permutation.forward(x) for x in range(5)]
