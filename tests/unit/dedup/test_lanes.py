"""The vector loops beside the same in plain Python."""

from __future__ import annotations

import numba
import numpy as np
import pytest

from pipelines.dedup.lanes import LETTERS, MULTIPLIERS, ORDERS, fold_ascii, lowest_bit, minima_of_block, running_sums


@numba.njit
def minima(narrow, count, multipliers, addends, out, apart):
    for at in range(0, len(multipliers), MULTIPLIERS):
        minima_of_block(narrow, count, multipliers, addends, out, at, apart)


@numba.njit
def sums_of(codes, blocks, factors, sums, gaps):
    running_sums(codes, blocks, factors, sums, gaps)


@numba.njit
def folded(utf8, i, out, k):
    return fold_ascii(utf8, i, out, k)


@numba.njit
def lowest(bits):
    return lowest_bit(bits)


def drawn(rng, *shape):
    return rng.integers(0, 2**32, shape, dtype=np.uint32)


@pytest.mark.parametrize("count", [1, 2, 31, 32, 33, 500])
def test_minima_are_those_of_four_orders_over_the_first_values_alone(count):
    rng = np.random.default_rng(count)
    size, apart = 2 * MULTIPLIERS, 2 * MULTIPLIERS + 3
    narrow, multipliers, addends = drawn(rng, 512), drawn(rng, size), drawn(rng, size)
    out = np.zeros(ORDERS * apart, np.uint32)
    minima(narrow, count, multipliers, addends, out, apart)
    values = narrow[:count, None] * multipliers + addends
    turned = (values << 16) | (values >> 16)
    for order, expected in enumerate((values, ~values, turned, ~turned)):
        mine = out[order * apart : (order + 1) * apart]
        assert (mine[:size] == expected.min(0)).all() and not mine[size:].any()


@pytest.mark.parametrize("blocks", [1, 2, 7])
def test_sums_run_over_all_blocks_and_zeros_are_marked(blocks):
    rng = np.random.default_rng(blocks)
    codes, factors = drawn(rng, blocks * LETTERS), drawn(rng, blocks * LETTERS)
    codes[rng.random(len(codes)) < 0.3] = 0
    sums, gaps = np.zeros(len(codes), np.uint32), np.zeros(blocks, np.uint32)
    sums_of(codes, blocks, factors, sums, gaps)
    assert (sums == np.cumsum(codes * factors, dtype=np.uint32)).all()
    bits = [[int(gap) >> bit & 1 for bit in range(LETTERS)] for gap in gaps]
    assert (np.array(bits).reshape(-1) == (codes == 0)).all()


@pytest.mark.parametrize("ascii_bytes", [0, 1, 13, 31, 32])
def test_ascii_is_folded_up_to_the_first_byte_that_is_none(ascii_bytes):
    rng = np.random.default_rng(ascii_bytes)
    for first in (0, 3):
        text = rng.integers(0, 128, first + LETTERS).astype(np.uint8)
        text[first + ascii_bytes : first + ascii_bytes + 1] = 0xC3
        out = np.zeros(LETTERS + 2, np.uint32)
        told = folded(text, first, out, 1)
        part = bytes(text[first : first + ascii_bytes]).decode()
        plain = [ord(c.lower()) if c.isalpha() else ord(c) if c.isdigit() else 0 for c in part]
        assert told & 0xFFFFFFFF == ascii_bytes and told >> 32 == sum(c.isalpha() for c in part)
        assert out[1 : 1 + ascii_bytes].tolist() == plain and not out[0] and not out[LETTERS + 1]


def test_the_lowest_bit_is_found():
    assert [lowest(np.uint32(1 << n | 1 << 31)) for n in range(32)] == list(range(32))
