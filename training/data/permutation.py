"""The keyed permutation of n items: what shuffles a lap without a table.

A generalised Feistel network on the rectangle a x b that covers n, walked in cycles until the value falls
below n (Black and Rogaway, "Ciphers with arbitrary finite domains", 2002). Sixteen rounds: with fewer the
orders of very small cells are visibly uneven. Everything is integer arithmetic, so any machine, any world
size and any numpy version give the same order; the inverse is what answers "which step saw this document".
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pipelines.errors import ConfigError

ROUNDS = 16
FORMAT = b"gristmill.order/1\0"
_MASK = (1 << 64) - 1
_MAX_ITEMS = 1 << 63


def round_keys(*, seed: int, lap: int, growth: int, cell: str) -> tuple[int, ...]:
    """The 16 keys of one order of one cell; `growth` counts how often the cell has grown in this lap."""
    for name, value in (("seed", seed), ("lap", lap), ("growth", growth)):
        if not 0 <= value <= _MASK:
            raise ConfigError(f"{name} is {value}; the order needs an integer in 0..2^64-1")
    message = FORMAT + b"".join(value.to_bytes(8, "little") for value in (seed, lap, growth)) + cell.encode()
    digest = hashlib.blake2b(message + b"\x00").digest() + hashlib.blake2b(message + b"\x01").digest()
    return tuple(int.from_bytes(digest[i : i + 8], "little") for i in range(0, 8 * ROUNDS, 8))


@dataclass(frozen=True, slots=True)
class Permutation:
    """A bijection of 0..n-1, its inverse, and both on whole arrays."""

    n: int
    keys: tuple[int, ...]

    def __post_init__(self) -> None:
        """Refuse what the arithmetic does not cover."""
        if not 0 <= self.n < _MAX_ITEMS or len(self.keys) != ROUNDS:
            raise ConfigError(
                f"a permutation needs 0 <= n < 2^63 and {ROUNDS} keys, got {self.n}, {len(self.keys)}"
            )

    @property
    def sides(self) -> tuple[int, int]:
        """The rectangle: a = ceil(sqrt n), b = ceil(n / a)."""
        a = math.isqrt(self.n - 1) + 1 if self.n > 0 else 1
        return a, -(-self.n // a)

    def forward(self, x: int) -> int:
        """The item at place x."""
        self._check(x)
        a, b = self.sides
        while True:
            left, right = divmod(x, b)
            for i in range(0, ROUNDS, 2):
                left = (left + _round(right, self.keys[i], a)) % a
                right = (right + _round(left, self.keys[i + 1], b)) % b
            x = left * b + right
            if x < self.n:
                return x

    def inverse(self, y: int) -> int:
        """The place of item y."""
        self._check(y)
        a, b = self.sides
        while True:
            left, right = divmod(y, b)
            for i in range(ROUNDS - 2, -1, -2):
                right = (right - _round(left, self.keys[i + 1], b)) % b
                left = (left - _round(right, self.keys[i], a)) % a
            y = left * b + right
            if y < self.n:
                return y

    def forward_many(self, places: npt.NDArray[np.integer]) -> npt.NDArray[np.int64]:
        """`forward` of every element; shape (m,) -> (m,)."""
        return self._walk(places, forward=True)

    def inverse_many(self, items: npt.NDArray[np.integer]) -> npt.NDArray[np.int64]:
        """`inverse` of every element; shape (m,) -> (m,)."""
        return self._walk(items, forward=False)

    def _walk(self, values: npt.NDArray[np.integer], *, forward: bool) -> npt.NDArray[np.int64]:
        result = np.array(values, dtype=np.int64)
        if result.size and (result.min() < 0 or result.max() >= self.n):
            self._check(int(result.min()))
            self._check(int(result.max()))
        todo = np.arange(result.size)
        flat = result.reshape(-1)
        while todo.size:
            moved = self._rounds(flat[todo].astype(np.uint64), forward=forward)
            flat[todo] = moved.astype(np.int64)
            todo = todo[moved >= np.uint64(self.n)]
        return result

    def _rounds(self, x: npt.NDArray[np.uint64], *, forward: bool) -> npt.NDArray[np.uint64]:
        a, b = (np.uint64(side) for side in self.sides)
        left, right = x // b, x % b
        if forward:
            for i in range(0, ROUNDS, 2):
                left = (left + _round_many(right, self.keys[i], a)) % a
                right = (right + _round_many(left, self.keys[i + 1], b)) % b
        else:
            for i in range(ROUNDS - 2, -1, -2):
                right = (right + (b - _round_many(left, self.keys[i + 1], b))) % b
                left = (left + (a - _round_many(right, self.keys[i], a))) % a
        return left * b + right

    def _check(self, value: int) -> None:
        if not 0 <= value < self.n:
            raise IndexError(f"{value} is outside 0..{self.n - 1}")


def _round(value: int, key: int, modulus: int) -> int:
    return ((_mix(value ^ key) >> 32) * modulus) >> 32


def _mix(z: int) -> int:
    """SplitMix64's finalizer."""
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & _MASK
    return z ^ (z >> 31)


def _round_many(value: npt.NDArray[np.uint64], key: int, modulus: np.uint64) -> npt.NDArray[np.uint64]:
    z = value ^ np.uint64(key)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    z = z ^ (z >> np.uint64(31))
    return ((z >> np.uint64(32)) * modulus) >> np.uint64(32)
