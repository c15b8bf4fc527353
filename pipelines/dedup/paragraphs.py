"""The units of a text that may recur over a corpus: its paragraphs (lines) and their sentences, with digests.

One pass over the UTF-8 of an Arrow array. A unit is known by a 64-bit hash of its normal form (`normalize.fold`), so
that case, width, punctuation and spacing hide no copy: among 10^11 units and 10^8 that recur, half a unit is expected
to be taken for another. Short units are left out: "Yes." recurs everywhere and is nobody's copy.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from pipelines.dedup.normalize import fold, fold_table, utf8_of
from pipelines.errors import ConfigError
from pipelines.kernels import kernel, subkernel

PARAGRAPH, SENTENCE = 0, 1

_M0 = np.uint64(0x9E3779B97F4A7C15)
_MIX = np.uint64(0xFF51AFD7ED558CCD)

# After these a full stop ends no sentence; single letters (initials) and words with a stop inside never do.
_ABBREVIATIONS = (
    "mr mrs ms dr prof st mt rev hon gen col sgt capt lt sen rep gov pres jr sr vs cf al etc approx dept est fig figs"
    " no nos vol vols ed eds pp ch sec art op inc ltd co corp jan feb mar apr jun jul aug sep sept oct nov dec"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class UnitRules:
    """Which units count. `min_bytes`: length of the normal form in UTF-8, so 30 is 30 Latin letters or 10 Han."""

    paragraphs: bool = True
    sentences: bool = True
    min_bytes: int = 30

    def __post_init__(self) -> None:
        """ConfigError where nothing would count."""
        if not (self.paragraphs or self.sentences):
            raise ConfigError("neither paragraphs nor sentences are to be compared", mend="choose one, or both")
        if self.min_bytes < 1:
            raise ConfigError(f"min_bytes is {self.min_bytes}", mend="at least 1: an empty unit is no copy")


@dataclass(frozen=True, slots=True, kw_only=True)
class Units:
    """Units by text, then place, a paragraph before its sentences; arrays of one length.

    `start` and `end` are bytes from the text's beginning; a paragraph ends before its line end, a sentence after the
    spaces that follow it, so that sentences tile a line. `level` is PARAGRAPH or SENTENCE; a paragraph of one
    sentence is one unit, at the level that counts.
    """

    text: np.ndarray
    start: np.ndarray
    end: np.ndarray
    level: np.ndarray
    digest: np.ndarray

    def __len__(self) -> int:
        """How many units."""
        return len(self.text)


def find_units(texts: pa.Array | pa.ChunkedArray, rules: UnitRules) -> Units:
    """All units of the texts that are long enough; a null text has none."""
    utf8, offsets = utf8_of(texts)
    room = max(1024, (int(offsets[-1] - offsets[0])) // 24 + 2 * len(offsets))
    while True:
        places = np.empty((room, 4), np.int32)
        digests = np.empty(room, np.uint64)
        count = _units(
            utf8, offsets, fold_table(), _abbreviations(), rules.paragraphs, rules.sentences, rules.min_bytes, places,
            digests,
        )  # fmt: skip
        if count >= 0:
            text, start, end, level = (np.ascontiguousarray(places[:count, at]) for at in range(4))
            return Units(text=text, start=start, end=end, level=level, digest=digests[:count].copy())
        room *= 4


def _abbreviations() -> np.ndarray:
    """Lower-case letters of each, packed in 8 bytes."""
    return np.array([int.from_bytes(word.encode()) for word in _ABBREVIATIONS.split()], np.uint64)


@subkernel
def _ender(utf8, i, end):
    """Bytes of the mark at i that ends a sentence wherever it stands; 0 for none."""
    a = utf8[i]
    if a == 0x21 or a == 0x3F:
        return 1
    if a < 0xC0 or i + 2 > end:
        return 0
    b = utf8[i + 1]
    if (a == 0xD8 and b == 0x9F) or (a == 0xDB and b == 0x94):  # Arabic question mark, Urdu full stop
        return 2
    if a < 0xE0 or i + 3 > end:
        return 0
    c = utf8[i + 2]
    if a == 0xE3 and b == 0x80 and c == 0x82:  # 。
        return 3
    if a == 0xEF and ((b == 0xBC and (c == 0x81 or c == 0x9F or c == 0x8E)) or (b == 0xBD and c == 0xA1)):  # ！？．｡
        return 3
    if a == 0xE2 and b == 0x80 and (c == 0xA6 or c == 0xA5):  # … ‥
        return 3
    if a == 0xE0 and b == 0xA5 and (c == 0xA4 or c == 0xA5):  # danda, double danda
        return 3
    return 0


@subkernel
def _closer(utf8, i, end):
    """Bytes of the quote or bracket at i that belongs to the sentence before it; 0 for none."""
    a = utf8[i]
    if a == 0x22 or a == 0x27 or a == 0x29 or a == 0x5D or a == 0x7D:
        return 1
    if i + 3 > end:
        return 0
    b = utf8[i + 1]
    c = utf8[i + 2]
    if a == 0xE2 and b == 0x80 and (c == 0x9D or c == 0x99):  # ” ’
        return 3
    if a == 0xE3 and b == 0x80 and (c == 0x8D or c == 0x8F or c == 0x8B or c == 0x89 or c == 0x91):  # 」』》〉】
        return 3
    if a == 0xEF and b == 0xBC and c == 0x89:  # ）
        return 3
    return 0


@subkernel
def _space(utf8, i, end):
    """Bytes of the white space at i; 0 for none."""
    a = utf8[i]
    if a == 0x20 or a == 0x09 or a == 0x0D:
        return 1
    if a == 0xC2 and i + 2 <= end and utf8[i + 1] == 0xA0:
        return 2
    if a == 0xE3 and i + 3 <= end and utf8[i + 1] == 0x80 and utf8[i + 2] == 0x80:
        return 3
    return 0


@subkernel
def _is_abbreviated(utf8, start, dot, known):
    """Whether the word before the full stop at `dot` is an initial, an abbreviation, or has a stop inside."""
    packed = np.uint64(0)
    letters = 0
    j = dot - 1
    while j >= start and dot - j <= 12:
        byte = utf8[j]
        if byte == 0x2E:
            return letters > 0
        low = byte | 0x20
        if low < 0x61 or low > 0x7A:
            break
        if letters < 8:
            packed |= np.uint64(low) << np.uint64(8 * letters)
        letters += 1
        j -= 1
    if letters == 1:
        return utf8[dot - 1] < 0x61  # a capital: an initial
    if letters == 0 or letters > 8:
        return False
    for word in known:  # noqa: SIM110 - numba takes no generator
        if word == packed:
            return True
    return False


@subkernel
def _sentence_end(utf8, start, end, known):  # noqa: C901
    """Where the sentence that begins at `start` ends, within the line that ends at `end`; spaces after it included."""
    i = start
    while i < end:
        mark = _ender(utf8, i, end)
        is_stop = mark == 0 and utf8[i] == 0x2E
        if mark == 0 and not is_stop:
            i += 1
            continue
        first = i
        i += max(mark, 1)
        is_wide = mark > 1
        while i < end:  # ?!, ..., and what closes
            more = _ender(utf8, i, end)
            if more == 0 and utf8[i] == 0x2E:
                more = 1
            if more == 0:
                more = _closer(utf8, i, end)
            if more == 0:
                break
            is_wide = is_wide or more > 1
            i += more
        after = i
        while i < end:
            gap = _space(utf8, i, end)
            if gap == 0:
                break
            i += gap
        if i >= end:
            return end
        if is_wide:
            return i
        if after == i:  # no space: a URL, a number, a file's name; or Chinese with narrow marks
            if not is_stop and utf8[i] >= 0xE0:
                return i
            continue
        if not is_stop:
            return i
        if utf8[i] >= 0x61 and utf8[i] <= 0x7A:
            continue
        if not _is_abbreviated(utf8, start, first, known):
            return i
    return end


@subkernel
def _digest(codes, length):
    """(hash, bytes in UTF-8) of folded text."""
    h = np.uint64(length)
    size = 0
    for j in range(length):
        code = codes[j]
        h = (h ^ np.uint64(code)) * _M0
        h ^= h >> np.uint64(29)
        size += 1 + (code >= 0x80) + (code >= 0x800) + (code >= 0x10000)
    h ^= h >> np.uint64(32)
    h *= _MIX
    h ^= h >> np.uint64(31)
    return h, size


@kernel
def _units(utf8, offsets, table, known, paragraphs, sentences, min_bytes, places, digests):  # noqa: C901
    """Fills `places` (text, start, end, level) and `digests`; how many, or -1 where there is no room."""
    longest = 0
    for d in range(len(offsets) - 1):
        longest = max(longest, offsets[d + 1] - offsets[d])
    codes = np.empty(longest + 1, np.uint32)
    k = 0
    for d in range(len(offsets) - 1):
        base, stop = offsets[d], offsets[d + 1]
        line = base
        while line < stop:
            end = line
            while end < stop and utf8[end] != 0x0A:
                end += 1
            if end - line >= min_bytes:
                if k >= len(digests):
                    return -1
                first = _sentence_end(utf8, line, end, known) if sentences else end
                if paragraphs or first == end:
                    length, _ = fold(utf8, line, end, table, codes)
                    digest, size = _digest(codes, length)
                    if size >= min_bytes:
                        places[k, 0], places[k, 1], places[k, 2] = d, line - base, end - base
                        places[k, 3] = PARAGRAPH if paragraphs else SENTENCE
                        digests[k] = digest
                        k += 1
                start = line
                while first < end or start > line:
                    if k >= len(digests):
                        return -1
                    if first - start >= min_bytes:
                        length, _ = fold(utf8, start, first, table, codes)
                        digest, size = _digest(codes, length)
                        if size >= min_bytes:
                            places[k, 0], places[k, 1], places[k, 2] = d, start - base, first - base
                            places[k, 3] = SENTENCE
                            digests[k] = digest
                            k += 1
                    if first >= end:
                        break
                    start = first
                    first = _sentence_end(utf8, start, end, known)
            line = end + 1
    return k
