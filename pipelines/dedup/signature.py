"""MinHash signatures and band digests, straight from the UTF-8 of an Arrow array (Broder 1997).

Shingles are 5 characters where the text is written without spaces and 5 words elsewhere (see `normalize`).
One kernel goes from bytes to band digests: no Python object a shingle. Permutations run outside and shingles
inside, so that the running minimum stays in a register and the inner loop vectorises; shingle hashes are
independent multiply-adds, not a rolling polynomial, for the same reason. 32-bit arithmetic is cast at every
step: numba promotes uint32 * uint32 to uint64, and the minimum of unwrapped products is no permutation.
"""

from __future__ import annotations

import hashlib
import itertools
from functools import cache

import numpy as np
import pyarrow as pa

from pipelines.dedup.bands import BandPlan
from pipelines.dedup.normalize import fold, fold_table, normal_forms, utf8_of
from pipelines.kernels import kernel

SHINGLE = 5
_M0, _M1, _M2, _M3, _M4 = (
    np.uint64(0x9E3779B97F4A7C15),
    np.uint64(0xC2B2AE3D27D4EB4F),
    np.uint64(0x165667B19E3779F9),
    np.uint64(0xD6E8FEB86659FD93),
    np.uint64(0xA0761D6478BD642F),
)
_MIX = np.uint64(0xFF51AFD7ED558CCD)
_SEED = 0x6772697374  # "grist": the permutations are part of the format of a signatures dataset


@cache
def permutations(count: int) -> tuple[np.ndarray, np.ndarray]:
    """Odd multipliers and addends of `count` permutations of the 32-bit integers (SplitMix64, fixed seed)."""
    state, drawn = _SEED, []
    for _ in range(2 * count):
        state = (state + 0x9E3779B97F4A7C15) & (2**64 - 1)
        z = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & (2**64 - 1)
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & (2**64 - 1)
        drawn.append((z ^ (z >> 31)) >> 32)
    values = np.array(drawn, np.uint32)
    return values[0::2] | np.uint32(1), values[1::2].copy()


@kernel
def shingle_hashes(codes, length, unspaced, words, out):
    """64-bit hashes of the shingles of folded text codes[:length], repeats included; returns how many.

    `words` is scratch and `out` takes the hashes; both must hold `length` values. A text of fewer than 5
    characters (or words) has no shingle.
    """
    if unspaced:
        count = length
        for j in range(length):
            words[j] = np.uint64(codes[j])
    else:
        count = 0
        word = np.uint64(0)
        inside = False
        for j in range(length):
            if codes[j] == np.uint32(0):
                words[count] = word
                count += 1
                word = np.uint64(0)
                inside = False
            else:
                word = (word ^ np.uint64(codes[j])) * _M0
                word ^= word >> np.uint64(29)
                inside = True
        if inside:
            words[count] = word
            count += 1
    shingles = count - SHINGLE + 1
    if shingles < 1:
        return 0
    for j in range(shingles):
        h = words[j] * _M0 + words[j + 1] * _M1 + words[j + 2] * _M2 + words[j + 3] * _M3 + words[j + 4] * _M4
        h ^= h >> np.uint64(32)
        h *= _MIX
        h ^= h >> np.uint64(29)
        out[j] = h
    return shingles


@kernel
def _minhash(hashes, count, narrow, multipliers, addends, signature):
    for j in range(count):
        narrow[j] = np.uint32(hashes[j] & np.uint64(0xFFFFFFFF))
    for p in range(len(multipliers)):
        a = multipliers[p]
        b = addends[p]
        low = np.uint32(0xFFFFFFFF)
        for j in range(count):
            h = np.uint32(np.uint32(a * narrow[j]) + b)
            low = min(low, h)
        signature[p] = low


@kernel
def _signatures(utf8, offsets, table, multipliers, addends, out, shingle_counts):
    longest = 0
    for d in range(len(offsets) - 1):
        longest = max(longest, offsets[d + 1] - offsets[d])
    codes = np.empty(longest + 1, np.uint32)
    words = np.empty(longest + 1, np.uint64)
    hashes = np.empty(longest + 1, np.uint64)
    narrow = np.empty(longest + 1, np.uint32)
    for d in range(len(offsets) - 1):
        length, unspaced = fold(utf8, offsets[d], offsets[d + 1], table, codes)
        count = shingle_hashes(codes, length, unspaced, words, hashes)
        shingle_counts[d] = count
        _minhash(hashes, count, narrow, multipliers, addends, out[d])


@kernel
def _band_digests(signatures, rows, out):
    for d in range(signatures.shape[0]):
        for band in range(out.shape[0]):
            h = np.uint64(band + 1) * _M1
            for r in range(rows):
                h = (h ^ np.uint64(signatures[d, band * rows + r])) * _M0
                h ^= h >> np.uint64(32)
            h *= _MIX
            h ^= h >> np.uint64(31)
            out[band, d] = h


def signatures(texts: pa.Array | pa.ChunkedArray, num_permutations: int) -> tuple[np.ndarray, np.ndarray]:
    """((n, num_permutations) uint32 minima, (n,) int64 shingle counts); all ones without a shingle."""
    utf8, offsets = utf8_of(texts)
    multipliers, addends = permutations(num_permutations)
    out = np.empty((len(offsets) - 1, num_permutations), np.uint32)
    counts = np.zeros(len(offsets) - 1, np.int64)
    _signatures(utf8, offsets, fold_table(), multipliers, addends, out, counts)
    return out, counts


def band_digests(texts: pa.Array | pa.ChunkedArray, plan: BandPlan) -> list[pa.Array]:
    """One (n,) int64 array a band; null where the document is too short for a shingle."""
    minima, counts = signatures(texts, plan.num_permutations)
    digests = np.empty((plan.num_bands, len(counts)), np.uint64)
    _band_digests(minima, plan.rows_per_band, digests)
    short = counts == 0
    return [pa.array(digests[band].view(np.int64), mask=short) for band in range(plan.num_bands)]


def exact_digests(texts: pa.Array | pa.ChunkedArray) -> tuple[pa.Array, pa.Array]:
    """Two (n,) int64 halves of the BLAKE2b-128 of each normal form; null where that is empty.

    A cryptographic digest: an exact match removes a page without a further look, and a page may come from
    somebody who would like another's page removed.
    """
    utf8, offsets = utf8_of(normal_forms(texts))
    body = utf8.tobytes()
    blake2b = hashlib.blake2b
    bounds = offsets.tolist()
    joined = b"".join(blake2b(body[start:end], digest_size=16).digest() for start, end in itertools.pairwise(bounds))
    halves = np.frombuffer(joined, "<i8").reshape(-1, 2)
    empty = offsets[1:] == offsets[:-1]
    return pa.array(halves[:, 0].copy(), mask=empty), pa.array(halves[:, 1].copy(), mask=empty)
