"""The keyed permutation of n items: what shuffles a lap without a table.

A generalised Feistel network on the rectangle a x b that covers n, walked in cycles until the value falls
below n (Black and Rogaway, "Ciphers with arbitrary finite domains", 2002). Sixteen rounds: with fewer the
orders of very small cells are visibly uneven. Everything is integer arithmetic, so any machine, any world
size and any numpy version give the same order; the inverse is what answers "which step saw this document".
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from pipelines.errors import ConfigError
from pipelines.kernels import kernel, subkernel

ROUNDS = 16
FORMAT = b"gristmill.order/1\0"
_MASK = (1 << 64) - 1
_MAX_ITEMS = 1 << 63


def round_keys(*, seed: int, lap: int, growth: int, cell: str) -> npt.NDArray[np.uint64]:
    """The (16,) keys of one order of one cell; `growth` counts how often the cell has grown in this lap."""
    for name, value in (("seed", seed), ("lap", lap), ("growth", growth)):
        if not 0 <= value <= _MASK:
            raise ConfigError(f"{name} is {value}; the order needs an integer in 0..2^64-1")
    message = FORMAT + b"".join(value.to_bytes(8, "little") for value in (seed, lap, growth)) + cell.encode()
    digest = hashlib.blake2b(message + b"\x00").digest() + hashlib.blake2b(message + b"\x01").digest()
    return np.frombuffer(digest, "<u8").astype(np.uint64)


@dataclass(frozen=True, slots=True, eq=False)
class Permutation:
    """A bijection of 0..n-1 and its inverse.  `sides`: the rectangle, a = ceil(sqrt n), b = ceil(n / a)."""

    n: int
    keys: npt.NDArray[np.uint64]
    sides: tuple[int, int] = field(init=False)

    def __post_init__(self) -> None:
        """Refuse what the arithmetic does not cover."""
        if not 0 <= self.n < _MAX_ITEMS or len(self.keys) != ROUNDS:
            raise ConfigError(
                f"a permutation needs 0 <= n < 2^63 and {ROUNDS} keys, got {self.n}, {len(self.keys)}"
            )
        object.__setattr__(self, "sides", sides_of(self.n))

    def forward(self, x: int) -> int:
        """The item at place x."""
        self._check(x)
        return _forward_one(x, self.n, *self.sides, self.keys)

    def inverse(self, y: int) -> int:
        """The place of item y."""
        self._check(y)
        return _inverse_one(y, self.n, *self.sides, self.keys)

    def _check(self, value: int) -> None:
        if not 0 <= value < self.n:
            raise IndexError(f"{value} is outside 0..{self.n - 1}")


def sides_of(n: int) -> tuple[int, int]:
    """The rectangle that covers n items: a = ceil(sqrt n), b = ceil(n / a)."""
    a = math.isqrt(n - 1) + 1 if n > 0 else 1
    return a, -(-n // a)


@subkernel
def _round(value, key, modulus):
    """SplitMix64's finalizer of value xor key, scaled to 0..modulus-1."""
    z = value ^ key
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    z = z ^ (z >> np.uint64(31))
    return ((z >> np.uint64(32)) * modulus) >> np.uint64(32)


@subkernel
def forward(x, n, side_a, side_b, keys):
    """The item at place x, for kernels: int64 numbers, (16,) uint64 keys; nothing is checked."""
    a, b, items = np.uint64(side_a), np.uint64(side_b), np.uint64(n)
    y = np.uint64(x)
    while True:
        left = y // b
        right = y - left * b
        for i in range(0, ROUNDS, 2):
            left += _round(right, keys[i], a)
            if left >= a:
                left -= a
            right += _round(left, keys[i + 1], b)
            if right >= b:
                right -= b
        y = left * b + right
        if y < items:
            return np.int64(y)


@subkernel
def inverse(x, n, side_a, side_b, keys):
    """The place of item x, for kernels: int64 numbers, (16,) uint64 keys; nothing is checked."""
    a, b, items = np.uint64(side_a), np.uint64(side_b), np.uint64(n)
    y = np.uint64(x)
    while True:
        left = y // b
        right = y - left * b
        for i in range(ROUNDS - 2, -1, -2):
            right += b - _round(left, keys[i + 1], b)
            if right >= b:
                right -= b
            left += a - _round(right, keys[i], a)
            if left >= a:
                left -= a
        y = left * b + right
        if y < items:
            return np.int64(y)


@kernel
def _forward_one(x, n, side_a, side_b, keys):
    return forward(x, n, side_a, side_b, keys)


@kernel
def _inverse_one(x, n, side_a, side_b, keys):
    return inverse(x, n, side_a, side_b, keys)
