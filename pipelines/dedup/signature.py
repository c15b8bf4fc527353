"""MinHash signatures, bands and sketches, straight from the UTF-8 of an Arrow array (Broder 1997).

Shingles are 5 characters where the document is written without spaces (see `normalize`: unspaced scripts make up a
quarter of its letters) and 5 words elsewhere; a document is one or the other as a whole, so a mixed one has shingles
throughout, and a copy of it the same ones. One kernel goes from bytes to band digests, sketch and normal form: no
Python object a shingle. Multipliers run outside, 16 at a time, and shingles inside, so that the running minima stay in
registers (`lanes`); shingle hashes are independent multiply-adds, not a rolling polynomial, so that they vectorise.

The product is what costs, so each multiplier serves four permutations: y = a x + b, its complement, y with its halves
changed about, and the complement of that. The least in one order and the least in its complement are two shingles, and
the halves of a mixed hash know nothing of each other, so the estimate spreads no more than with products of their own
(measured: `tests.benchmarks.signatures`). No two minima of one multiplier are in one band.
32-bit arithmetic is cast at every step: numba promotes uint32 * uint32 to uint64, and the minimum of
unwrapped products is no permutation.
"""

from __future__ import annotations

import hashlib
import itertools
from dataclasses import dataclass
from functools import cache

import numpy as np
import pyarrow as pa

from pipelines.dedup.bands import BandPlan
from pipelines.dedup.lanes import LETTERS, MULTIPLIERS, ORDERS, lowest_bit, minima_of_block, running_sums
from pipelines.dedup.normalize import encode, fold_raw, fold_table, normal_forms, tighten, utf8_of
from pipelines.kernels import kernel

SHINGLE = 5
_M0, _M1, _M2, _M3, _M4 = (
    np.uint64(0x9E3779B97F4A7C15),
    np.uint64(0xC2B2AE3D27D4EB4F),
    np.uint64(0x165667B19E3779F9),
    np.uint64(0xD6E8FEB86659FD93),
    np.uint64(0xA0761D6478BD642F),
)
_N0, _N1, _N2, _N3, _N4 = (
    np.uint32(0x9E3779B1),
    np.uint32(0x85EBCA77),
    np.uint32(0xC2B2AE3D),
    np.uint32(0x27D4EB2F),
    np.uint32(0x165667B1),
)
_MIX = np.uint64(0xFF51AFD7ED558CCD)
_SKETCH_MIX = np.uint32(0x9E3779B1)
_SEED = 0x6772697374  # "grist": the permutations are part of the format of a signatures dataset
_WORD_PLACES = 256


def _drawn(seed: int, count: int) -> list[int]:
    """64-bit numbers of SplitMix64."""
    values = []
    for _ in range(count):
        seed = (seed + 0x9E3779B97F4A7C15) & (2**64 - 1)
        z = ((seed ^ (seed >> 30)) * 0xBF58476D1CE4E5B9) & (2**64 - 1)
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & (2**64 - 1)
        values.append(z ^ (z >> 31))
    return values


@cache
def permutations(count: int) -> tuple[np.ndarray, np.ndarray]:
    """Odd multipliers and addends of `count` permutations of the 32-bit integers (SplitMix64, fixed seed).

    A quarter as many, since each serves ORDERS of them, and up to a multiple of MULTIPLIERS.
    """
    quarter = -(-count // ORDERS)
    values = np.array([z >> 32 for z in _drawn(_SEED, 2 * -(-quarter // MULTIPLIERS) * MULTIPLIERS)], np.uint32)
    return values[0::2] | np.uint32(1), values[1::2].copy()


@cache
def word_places() -> np.ndarray:
    """(256,) odd uint64: the factor of a letter by its place in a word (multilinear hashing)."""
    places = np.array(_drawn(_SEED + 1, _WORD_PLACES), np.uint64) | np.uint64(1)
    places.flags.writeable = False
    return places


@cache
def _powers(bits: int) -> tuple[np.ndarray, np.ndarray]:
    factor, inverse = int(_N4), pow(int(_N4), -1, 2**32)
    tables = []
    for base in (factor, inverse):
        table = np.ones(1 << bits, np.uint32)
        for bit in range(bits):  # doubling: the powers from 2^bit on are those before it times one factor
            table[1 << bit : 2 << bit] = table[: 1 << bit] * np.uint32(pow(base, 1 << bit, 2**32))
        table.flags.writeable = False
        tables.append(table)
    return tables[0], tables[1]


def powers_of(offsets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Powers of an odd number and of its inverse mod 2^32, enough for the longest text."""
    longest = int(np.diff(offsets).max(initial=0)) + LETTERS + 1
    return _powers(max(12, longest.bit_length()))


@kernel
def _word_hashes(codes, length, places, words):
    """A 64-bit hash of each word of folded text; returns how many.

    The hash is a sum over the letters, so the next letter never waits for a product; the end of a word is a mask and
    no branch, which would miss at every word.
    """
    n = np.uint64(0)
    place = np.uint64(0)
    word = np.uint64(0)
    one = np.uint64(1)
    for j in range(np.uint64(length)):
        code = np.uint64(codes[j])
        ends = np.uint64(code == np.uint64(0))
        inside = ends - one  # all ones in a word, zero at its end
        word += ((code + one) * places[place]) & inside
        words[n] = word
        n += ends
        word &= inside
        place = (place + one) & inside & np.uint64(255)
    return np.int64(n) + (1 if length > 0 else 0)


@kernel
def shingle_hashes(codes, length, unspaced, places, words, out):
    """64-bit hashes of the shingles of folded text codes[:length], repeats included; returns how many.

    `words` is scratch and `out` takes the hashes; both must hold `length` values. A text of fewer than 5
    characters (or words) has no shingle.
    """
    if unspaced:
        count = length
        for j in range(length):
            words[j] = np.uint64(codes[j])
    else:
        count = _word_hashes(codes, length, places, words)
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
def _narrow_words(codes, length, powers, inverses, sums, gaps, words):
    """A 32-bit hash of each word of raw folded text into `words`; returns how many.

    The polynomial of a word's letters is a difference of two running sums, brought to the word's end by an inverse
    power. Sums and gaps are vector code; what is left is one step a word, from one set bit to the next. `codes` and
    `sums` must hold LETTERS more than `length` values, and the powers reach as far.
    """
    if length == 0:
        return 0
    blocks = length // LETTERS + 1
    for j in range(length, blocks * LETTERS):
        codes[j] = np.uint32(0)  # so that the last word ends as all others do
    running_sums(codes, blocks, powers, sums, gaps)
    count = 0
    last = np.uint32(0)
    before = np.uint32(1)  # whether the letter before the block's first is a gap
    for block in range(blocks):
        gap = gaps[block]
        ends = np.uint32(gap & ~np.uint32(np.uint32(gap << np.uint32(1)) | before))
        before = np.uint32(gap >> np.uint32(31))
        while ends != np.uint32(0):
            j = np.uint64(block * LETTERS) + np.uint64(lowest_bit(ends))
            ends &= np.uint32(ends - np.uint32(1))
            now = sums[j]
            words[count] = np.uint32(np.uint32(now - last) * inverses[j + np.uint64(1)])
            last = now
            count += 1
    return count


@kernel
def _narrow_hashes(units, count, out):
    """The shingles' hashes in 32 bits, 8 or 16 at a time; returns how many.

    Enough for an estimate; what is counted exactly has the 64 bits of `shingle_hashes`. `out` must hold `count` values.
    """
    shingles = count - SHINGLE + 1
    if shingles < 1:
        return 0
    for j in range(shingles):
        h = np.uint32(units[j] * _N0)
        h = np.uint32(h + np.uint32(units[j + 1] * _N1))
        h = np.uint32(h + np.uint32(units[j + 2] * _N2))
        h = np.uint32(h + np.uint32(units[j + 3] * _N3))
        h = np.uint32(h + np.uint32(units[j + 4] * _N4))
        h ^= h >> np.uint32(15)
        h = np.uint32(h * _N0)
        h ^= h >> np.uint32(13)
        h = np.uint32(h * _N1)
        h ^= h >> np.uint32(16)
        out[j] = h
    return shingles


@kernel
def _minhash(narrow, count, multipliers, addends, quarter, signature):
    """Minima over narrow[:count], ORDERS of `quarter` each; count is 1 or more.

    `signature` must hold MULTIPLIERS more than those: the last block of an order runs into the next, which comes later.
    """
    for at in range(len(multipliers) - MULTIPLIERS, -1, -MULTIPLIERS):
        minima_of_block(narrow, count, multipliers, addends, signature, at, quarter)


@kernel
def _band_digests(signature, rows, out):
    for band in range(len(out)):
        h = np.uint64(band + 1) * _M1
        for r in range(rows):
            h = (h ^ np.uint64(signature[band * rows + r])) * _M0
            h ^= h >> np.uint64(32)
        h *= _MIX
        h ^= h >> np.uint64(31)
        out[band] = h


@kernel
def _sign(
    utf8, offsets, table, powers, inverses, multipliers, addends, permutations, rows,
    bands, sketches, minima, counts, form, form_ends,
):  # fmt: skip
    """All of `sign`; empty `bands`, `minima` or `form_ends` are not wanted."""
    longest = 0
    for d in range(len(offsets) - 1):
        longest = max(longest, offsets[d + 1] - offsets[d])
    codes = np.empty(longest + LETTERS, np.uint32)
    sums = np.empty(longest + LETTERS, np.uint32)
    gaps = np.empty(longest // LETTERS + 1, np.uint32)
    units = np.empty(longest + 1, np.uint32)
    narrow = np.empty(longest + 1, np.uint32)
    quarter = (permutations + ORDERS - 1) // ORDERS
    signature = np.empty(ORDERS * quarter + MULTIPLIERS, np.uint32)
    k = 0
    for d in range(len(offsets) - 1):
        length, unspaced = fold_raw(utf8, offsets[d], offsets[d + 1], table, codes)
        if unspaced:
            length = tighten(codes, length, unspaced)
            count = _narrow_hashes(codes, length, narrow)
        else:
            words = _narrow_words(codes, length, powers, inverses, sums, gaps, units)
            count = _narrow_hashes(units, words, narrow)
        if len(form_ends) > 0:
            k = encode(codes, length, form, k)
            form_ends[d] = k
        counts[d] = count
        if count == 0:
            continue
        _minhash(narrow, count, multipliers, addends, quarter, signature)
        if len(bands) > 0:
            _band_digests(signature, rows, bands[d])
            for p in range(permutations):
                sketches[d, p] = np.uint32(signature[p] * _SKETCH_MIX) >> np.uint32(24)
        if len(minima) > 0:
            minima[d] = signature[:permutations]


@dataclass(frozen=True, slots=True, kw_only=True)
class Signatures:
    """What is kept of n texts; rows without a shingle have zeros in `bands` and `sketches`."""

    bands: np.ndarray  # (n, num_bands) uint64
    sketches: np.ndarray  # (n, num_permutations) uint8: a byte of each minimum
    shingles: np.ndarray  # (n,) int64, repeats counted
    exact: np.ndarray  # (n, 2) int64: the halves of the BLAKE2b-128 of the normal form
    empty: np.ndarray  # (n,) bool: nothing is left in the normal form


def sign(texts: pa.Array | pa.ChunkedArray, plan: BandPlan) -> Signatures:
    """Band digests, sketches and exact digests in one pass over the bytes."""
    utf8, offsets = utf8_of(texts)
    n = len(offsets) - 1
    form = np.empty(int(offsets[-1] - offsets[0]) * 3 // 2 + 8, np.uint8)  # as `normal_forms` has it
    bands, sketches, shingles, ends = _run(utf8, offsets, plan, form)
    starts = np.zeros(n + 1, np.int64)
    starts[1:] = ends
    return Signatures(
        bands=bands,
        sketches=sketches,
        shingles=shingles,
        exact=_blake2b(form, starts),
        empty=starts[1:] == starts[:-1],
    )


def band_digests(texts: pa.Array | pa.ChunkedArray, plan: BandPlan) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """`bands`, `sketches` and `shingles` of `sign`, without the exact digests."""
    utf8, offsets = utf8_of(texts)
    return _run(utf8, offsets, plan, np.empty(0, np.uint8))[:3]


def _run(
    utf8: np.ndarray, offsets: np.ndarray, plan: BandPlan, form: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    n = len(offsets) - 1
    multipliers, addends = permutations(plan.num_permutations)
    bands = np.zeros((n, plan.num_bands), np.uint64)
    sketches = np.zeros((n, plan.num_permutations), np.uint8)
    minima = np.empty((0, plan.num_permutations), np.uint32)
    counts = np.zeros(n, np.int64)
    ends = np.zeros(n if len(form) else 0, np.int64)
    _sign(
        utf8, offsets, fold_table(), *powers_of(offsets), multipliers, addends, plan.num_permutations,
        plan.rows_per_band, bands, sketches, minima, counts, form, ends,
    )  # fmt: skip
    return bands, sketches, counts, ends


def signatures(texts: pa.Array | pa.ChunkedArray, num_permutations: int) -> tuple[np.ndarray, np.ndarray]:
    """((n, num_permutations) uint32 minima, (n,) int64 shingle counts); all ones without a shingle."""
    utf8, offsets = utf8_of(texts)
    n = len(offsets) - 1
    multipliers, addends = permutations(num_permutations)
    out = np.full((n, num_permutations), 0xFFFFFFFF, np.uint32)
    counts = np.zeros(n, np.int64)
    _sign(
        utf8, offsets, fold_table(), *powers_of(offsets), multipliers, addends, num_permutations, 1,
        np.empty((0, 1), np.uint64), np.empty((0, 1), np.uint8), out, counts,
        np.empty(0, np.uint8), np.empty(0, np.int64),
    )  # fmt: skip
    return out, counts


def exact_digests(texts: pa.Array | pa.ChunkedArray) -> tuple[np.ndarray, np.ndarray]:
    """`exact` and `empty` of `sign` alone.

    A cryptographic digest: an exact match removes a page without a further look, and a page may come from
    somebody who would like another's page removed.
    """
    utf8, offsets = utf8_of(normal_forms(texts))
    return _blake2b(utf8, offsets), offsets[1:] == offsets[:-1]


def _blake2b(body: np.ndarray, bounds: np.ndarray) -> np.ndarray:
    view = memoryview(body)
    blake2b = hashlib.blake2b
    pairs = itertools.pairwise(bounds.tolist())
    joined = b"".join([blake2b(view[start:end], digest_size=16).digest() for start, end in pairs])
    return np.frombuffer(joined, "<i8").reshape(-1, 2)
