"""Which of the words that hold sentences together follow which: grammar without a subject.

Articles, prepositions, particles and marks stand in every text of a language, whatever it is about. In prose only some
of them follow each other ("of the", never "the of"), and where words are missing or mixed those do that never should. A
gain is how many bits the one before tells of the next (Witten and Bell 1991), so it is the same in a novel and in a
manual that no page of which was learned from.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from pipelines.errors import IntegrityError
from pipelines.quality.vocabulary import fnv
from pipelines.quality.words import is_single

EACH = 150  # words of scripts with spaces, and as many of those without
STEP = 8.0  # levels a bit
_SLOTS = 1024


@dataclass(frozen=True)
class Glue:
    """The words by their hashes, and what one tells of the next in 1/8 bits: (n,) uint32, (n, n) int8."""

    hashes: np.ndarray
    gains: np.ndarray

    @cached_property
    def slots(self) -> np.ndarray:
        """(1024,) int16: number of the word whose hash leads here, or before; -1: none."""
        slots = np.full(_SLOTS, -1, np.int16)
        for number, found in enumerate(self.hashes.tolist()):
            at = found % _SLOTS
            while slots[at] >= 0:
                at = (at + 1) % _SLOTS
            slots[at] = number
        return slots

    def to_bytes(self) -> bytes:
        """Number of words (u32), hashes, gains."""
        return (
            np.array([len(self.hashes)], "<u4").tobytes() + self.hashes.astype("<u4").tobytes() + self.gains.tobytes()
        )

    @staticmethod
    def from_bytes(body: bytes) -> Glue:
        """What `to_bytes` gave; IntegrityError where the size is another."""
        count = int(np.frombuffer(body, "<u4", 1)[0]) if len(body) >= 4 else -1
        if not 0 <= count <= 2 * EACH or len(body) != 4 + 4 * count + count * count:
            raise IntegrityError(f"{len(body)} bytes are no table of {count} words")
        hashes = np.frombuffer(body, "<u4", count, 4).astype(np.uint32)
        return Glue(hashes, np.frombuffer(body, np.int8, count * count, 4 + 4 * count).reshape(count, count))


def count_glue(pages: Iterable[tuple[str, str]]) -> Glue:
    """The table of good pages, each as (group, line of `words`).

    A word belongs to it that is frequent in many groups: each group counts by the logarithm of the word's number in it,
    so that the word of one site's subject does not.
    """
    lines = [(group, line.split()) for group, line in pages]
    by_group: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for group, line in lines:
        by_group[group].update(line)
    weight: defaultdict[str, float] = defaultdict(float)
    for group in sorted(by_group):
        for word, count in by_group[group].items():
            weight[word] += float(np.log1p(count))
    ranked = sorted((word for word in weight if not any(map(str.isdigit, word))), key=lambda w: (-weight[w], w))
    chosen = [word for kind in (False, True) for word in [w for w in ranked if is_single(w) == kind][:EACH]]
    number = {word: at for at, word in enumerate(chosen)}
    size = len(chosen)
    together = np.zeros((size + 1, size + 1))  # the last: any other word
    for _, line in lines:
        at = np.fromiter((number.get(word, size) for word in line), np.int64, len(line))
        np.add.at(together, (at[:-1], at[1:]), 1)
    alone = together.sum(axis=0) + 0.5
    kinds = (together > 0).sum(axis=1, keepdims=True) + 1e-9
    share = alone / max(1.0, together.sum())
    told = (together + kinds * share) / (together.sum(axis=1, keepdims=True) + kinds)
    gains = np.clip(np.round(STEP * np.log2(told / share)), -128, 127).astype(np.int8)
    return Glue(np.array([fnv(word.encode()) for word in chosen], np.uint32), gains[:size, :size].copy())
