"""n-grams of units: 13 words, or 30 units where most are characters of scripts without spaces.

A unit is a word, or one character of Han, kana, Thai and the like, in the normal form of deduplication: case, width,
punctuation and spacing hide nothing. GPT-3 and what followed look for 13 words; 30 Chinese characters say about as
much. Both are looked for along the whole text, so an English question on a Chinese page is found, too. A window of
words holds at most MOST_SINGLES single characters, one of characters at least half of them: else every window would
count twice.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from pipelines.dedup.normalize import VANISH, _fold_astral, fold_raw, fold_table, utf8_of
from pipelines.kernels import kernel, subkernel

WORDS, SINGLES = 13, 30
MOST_SINGLES = 3
_BASE = np.uint64(0x9E3779B97F4A7C15)
_MIX = np.uint64(0xFF51AFD7ED558CCD)
_SEED = np.uint64(0x2545F4914F6CDD1D)
_33 = np.uint64(33)
FILTER_BITS = 24


@subkernel
def _mixed(value):
    value = (value ^ (value >> _33)) * _MIX
    return value ^ (value >> _33)


@subkernel
def _units(codes, length, table, hashes, singles):
    """Hash and kind (1: a single character) of each unit of raw folded text. Returns how many."""
    n = 0
    word = np.uint64(0)
    open_ = False
    for j in range(length + 1):
        code = codes[j] if j < length else np.uint32(0)
        single = False
        if code >= 0x10000:
            single = code >= 0x20000 and code < 0x40000
        elif code != 0:
            single = table[code] >> np.uint32(31) != 0
        if open_ and (code == 0 or single):
            hashes[n], singles[n] = _mixed(word), 0
            n += 1
            open_ = False
            word = np.uint64(0)
        if single:
            hashes[n], singles[n] = _mixed(np.uint64(code) * _BASE + _SEED), 1
            n += 1
        elif code != 0:
            word = word * _BASE + np.uint64(code) + _SEED
            open_ = True
    return n


@subkernel
def _power(size):
    made = np.uint64(1)
    for _ in range(size):
        made = made * _BASE
    return made


@kernel
def _windows(utf8, offsets, table, index, sieve, rows, places, sizes, found, counts):  # noqa: C901
    """Windows of each text: all of them where `index` is empty, else those whose digest it holds.

    Writes text, place and size of each, and its digest or its row of the index. `counts`: units by text. Returns how
    many there are, also where there is no more room for them.
    """
    longest = 0
    for d in range(offsets.shape[0] - 1):
        longest = max(longest, offsets[d + 1] - offsets[d])
    codes = np.empty(longest + 1, np.uint32)
    hashes = np.empty(longest + 1, np.uint64)
    singles = np.empty(longest + 1, np.int64)
    at = 0
    for d in range(offsets.shape[0] - 1):
        length, _ = fold_raw(utf8, offsets[d], offsets[d + 1], table, codes)
        n = _units(codes, length, table, hashes, singles)
        counts[d] = n
        for which in range(2):
            size = WORDS if which == 0 else SINGLES
            leaving = _power(size)
            rolled = np.uint64(0)
            alone = 0
            for j in range(n):
                rolled = rolled * _BASE + hashes[j]
                alone += singles[j]
                if j >= size:
                    rolled -= leaving * hashes[j - size]
                    alone -= singles[j - size]
                if j < size - 1 or (alone > MOST_SINGLES if which == 0 else 2 * alone < size):
                    continue
                digest = _mixed(rolled + np.uint64(size))
                value = digest
                if index.shape[0]:
                    bit = digest >> np.uint64(64 - FILTER_BITS)
                    if sieve[np.int64(bit >> np.uint64(3))] >> np.uint8(bit & np.uint64(7)) & 1 == 0:
                        continue
                    row = np.searchsorted(index, digest)
                    if row == index.shape[0] or index[row] != digest:
                        continue
                    value = np.uint64(row)
                if at < rows.shape[0]:
                    rows[at], places[at], sizes[at], found[at] = d, j - size + 1, size, value
                at += 1
    return at


@dataclass(frozen=True, slots=True, kw_only=True)
class Windows:
    """Arrays of one length: text, first unit, units, digest (or row of the index); and the units of each text."""

    row: np.ndarray
    place: np.ndarray
    size: np.ndarray
    value: np.ndarray
    units: np.ndarray


def windows(texts: pa.Array | pa.ChunkedArray, index: np.ndarray | None = None) -> Windows:
    """All windows of the texts with their digests, or those that are in `index` (sorted uint64) with its rows."""
    utf8, offsets = utf8_of(texts)
    index = np.zeros(0, np.uint64) if index is None else index
    sieve = _sieve(index)
    units = np.zeros(len(offsets) - 1, np.int64)
    room = 4096 if len(index) else 2 * int(offsets[-1] - offsets[0]) + 1
    while True:
        row, place, size = (np.empty(room, np.int32) for _ in range(3))
        value = np.empty(room, np.uint64)
        count = _windows(utf8, offsets, fold_table(), index, sieve, row, place, size, value, units)
        if count <= room:
            return Windows(row=row[:count], place=place[:count], size=size[:count], value=value[:count], units=units)
        room = count


def _sieve(index: np.ndarray) -> np.ndarray:
    """A bit for each leading part of a digest that the index holds: most windows go no further."""
    sieve = np.zeros(1 << (FILTER_BITS - 3), np.uint8)
    bits = index >> np.uint64(64 - FILTER_BITS)
    marks = np.uint8(1) << (bits & np.uint64(7)).astype(np.uint8)
    np.bitwise_or.at(sieve, (bits >> np.uint64(3)).astype(np.int64), marks)
    return sieve


def units_of(text: str) -> list[str]:
    """The units of a text, by the same definition without a kernel: what a hit is compared by, letter by letter."""
    table = fold_table()
    units: list[str] = []
    word: list[str] = []
    for character in text:
        code = ord(character)
        value = int(_fold_astral(np.uint32(code)) if code >= 0x10000 else table[code])
        if value == int(VANISH):
            continue
        folded = value & ((1 << 21) - 1)
        single = value >> 31 != 0
        if word and (folded == 0 or single):
            units.append("".join(word))
            word = []
        if single:
            units.append(chr(folded))
        elif folded:
            word.append(chr(folded))
    return [*units, *(["".join(word)] if word else [])]
