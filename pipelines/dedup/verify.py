"""The exact Jaccard similarity of candidate pairs: no page leaves on the word of an estimate.

Shingles are those of `signature`, as 64-bit hashes in an open-addressing table that is emptied by raising a
stamp, not by clearing it. Pairs are grouped by their first text, which is decoded once.
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from pipelines.dedup.normalize import fold, fold_table, utf8_of
from pipelines.dedup.signature import shingle_hashes, word_places
from pipelines.kernels import kernel

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


@kernel
def _insert(keys, stamps, shift, stamp, other, value):
    """0: was absent; 1: was there under `other`; 2: was there under `stamp`. Holds `stamp` afterwards."""
    mask = len(keys) - 1
    slot = np.int64((value * _GOLDEN) >> np.uint64(shift))
    while True:
        at = stamps[slot]
        if at != stamp and at != other:
            keys[slot] = value
            stamps[slot] = stamp
            return 0
        if keys[slot] == value:
            if at == stamp:
                return 2
            stamps[slot] = stamp
            return 1
        slot = (slot + 1) & mask


@kernel
def _similarities(utf8, offsets, table, places, left, right, by_containment, out):
    longest = 0
    for d in range(len(offsets) - 1):
        longest = max(longest, offsets[d + 1] - offsets[d])
    codes = np.empty(longest + 1, np.uint32)
    words = np.empty(longest + 1, np.uint64)
    ours = np.empty(longest + 1, np.uint64)
    theirs = np.empty(longest + 1, np.uint64)
    bits = 12
    keys = np.zeros(1 << bits, np.uint64)
    stamps = np.zeros(1 << bits, np.int64)
    stamp = 0
    held = -1
    our_count = 0
    for p in range(len(left)):
        if left[p] != held:
            held = left[p]
            length, unspaced = fold(utf8, offsets[held], offsets[held + 1], table, codes)
            our_count = shingle_hashes(codes, length, unspaced, places, words, ours)
        d = right[p]
        length, unspaced = fold(utf8, offsets[d], offsets[d + 1], table, codes)
        their_count = shingle_hashes(codes, length, unspaced, places, words, theirs)
        if (1 << bits) < 2 * (our_count + their_count):  # at most half full
            while (1 << bits) < 2 * (our_count + their_count):
                bits += 1
            keys = np.zeros(1 << bits, np.uint64)
            stamps = np.zeros(1 << bits, np.int64)
        stamp += 2
        our_different = 0
        for j in range(our_count):
            our_different += _insert(keys, stamps, 64 - bits, stamp, stamp + 1, ours[j]) == 0
        shared = 0
        only_theirs = 0
        for j in range(their_count):
            found = _insert(keys, stamps, 64 - bits, stamp + 1, stamp, theirs[j])
            shared += found == 1
            only_theirs += found == 0
        whole = min(our_different, shared + only_theirs) if by_containment else our_different + only_theirs
        out[p] = shared / whole if whole > 0 else 0.0


def similarities(
    texts: pa.Array | pa.ChunkedArray, left: np.ndarray, right: np.ndarray, *, measure: str = "jaccard"
) -> np.ndarray:
    """(pairs,) float64: exact similarity of texts[left] and texts[right]; 0 without shingles.

    `jaccard`: shared shingles over all; `containment`: over those of the text that has fewer. Cheapest when equal
    values of `left` follow each other. Not rounded: a threshold is met before rounding.
    """
    utf8, offsets = utf8_of(texts)
    out = np.zeros(len(left), np.float64)
    ends = left.astype(np.int64), right.astype(np.int64)
    _similarities(utf8, offsets, fold_table(), word_places(), *ends, measure == "containment", out)
    return out


def jaccards(texts: pa.Array | pa.ChunkedArray, left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """`similarities` by Jaccard."""
    return similarities(texts, left, right)
