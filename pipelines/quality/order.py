"""What follows what in good text: counts of hashed tokens and pairs, as a model of word order.

A bag of words cannot tell a text from its words in another order. The gain of a text is how many bits, on average, the
token before saves of the next one (Witten and Bell 1991 for pairs never seen): above 1 in prose of any subject, about
0 and below in shuffled text, because only the order differs. Counts are kept as 8-bit levels of their logarithm, so
the tables are 4.5 MiB whatever the corpus.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache

import numpy as np

from pipelines.errors import IntegrityError
from pipelines.quality.glue import Glue

UNIGRAMS, BIGRAMS = 18, 22  # bits
LEVELS = 256
_STEP = 8.0
_MIX = 0x9E3779B97F4A7C15


@cache
def levels() -> np.ndarray:
    """(256,) float64: the count that a level stands for; 0 for level 0."""
    made = np.exp2(np.arange(LEVELS) / _STEP) - 1.0
    made[:9] = [0, *([1] * 8)]  # counts below 2 are 0 or 1
    made.setflags(write=False)
    return made


def _quantised(counts: np.ndarray) -> np.ndarray:
    return np.minimum(np.round(_STEP * np.log2(1.0 + counts)), LEVELS - 1).astype(np.uint8)


@dataclass(frozen=True, slots=True, kw_only=True)
class OrderModel:
    """Levels of the counts: of tokens, of the distinct tokens that follow one, of pairs; and the sum of tokens."""

    unigrams: np.ndarray
    followers: np.ndarray
    bigrams: np.ndarray
    total: float
    glue: Glue

    def arrays(self) -> tuple[np.ndarray, ...]:
        """As the compiled reader takes them."""
        glue = (self.glue.slots, self.glue.hashes, self.glue.gains)
        return self.unigrams, self.followers, self.bigrams, levels(), self.total, *glue

    def to_bytes(self) -> bytes:
        """The file `order.bin`: total (f64), the three tables, and what `Glue.to_bytes` gives."""
        head = np.array([self.total], "<f8").tobytes()
        tables = self.unigrams.tobytes() + self.followers.tobytes() + self.bigrams.tobytes()
        return head + tables + self.glue.to_bytes()

    @staticmethod
    def from_bytes(body: bytes) -> OrderModel:
        """The model of a file; IntegrityError where it has another size."""
        one, two = 1 << UNIGRAMS, 1 << BIGRAMS
        size = 8 + 2 * one + two
        if len(body) < size:
            raise IntegrityError(f"an order model has {size} bytes and more, this one {len(body)}")
        total = float(np.frombuffer(body, "<f8", 1)[0])
        if not (np.isfinite(total) and total > 0):
            raise IntegrityError(f"an order model of {total} tokens")
        tables = np.frombuffer(body, np.uint8, 2 * one + two, 8)
        ones, follow, twos = tables[:one], tables[one : 2 * one], tables[2 * one :]
        glue = Glue.from_bytes(body[size:])
        return OrderModel(unigrams=ones, followers=follow, bigrams=twos, total=total, glue=glue)


def count_order(lines: Iterable[np.ndarray], glue: Glue) -> OrderModel:
    """The model of texts, each an array of token hashes (uint32)."""
    ones = np.zeros(1 << UNIGRAMS, np.int64)
    twos = np.zeros(1 << BIGRAMS, np.int64)
    follow = np.zeros(1 << UNIGRAMS, np.int64)
    mix = np.uint64(_MIX)
    for hashes in lines:
        wide = hashes.astype(np.uint64)
        single = (wide * mix) >> np.uint64(64 - UNIGRAMS)
        np.add.at(ones, single.astype(np.int64), 1)
        if len(wide) < 2:
            continue
        pairs = (((wide[:-1] * mix + wide[1:]) * mix) >> np.uint64(64 - BIGRAMS)).astype(np.int64)
        distinct, first = np.unique(pairs, return_index=True)
        fresh = twos[distinct] == 0
        np.add.at(follow, single[:-1][first[fresh]].astype(np.int64), 1)
        np.add.at(twos, pairs, 1)
    total = float(max(1, ones.sum()))
    return OrderModel(
        unigrams=_quantised(ones), followers=_quantised(follow), bigrams=_quantised(twos), total=total, glue=glue
    )
