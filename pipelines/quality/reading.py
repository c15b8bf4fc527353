"""From the UTF-8 of an Arrow array to what the scorers use: one compiled pass, no Python object a text.

The tokens are those of `words.words`, their hashes fastText's (FNV-1a over the UTF-8, bytes as signed), and the sums
are those of its supervised models: the mean over words, the end of the line and the hashed runs of words. A linear
model collapses: what a row of the input matrix adds to the outputs is a number a label, so a row of 16 or 100
floats is read as one.
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from pipelines.dedup.normalize import utf8_of
from pipelines.kernels import kernel, subkernel
from pipelines.quality.glue import STEP
from pipelines.quality.order import BIGRAMS, LEVELS, UNIGRAMS, OrderModel, levels
from pipelines.quality.vocabulary import LineModel
from pipelines.quality.words import (
    CAPITAL,
    CODES,
    DIGIT,
    ENDS,
    LETTER,
    MARK,
    MAX_CHARACTERS,
    MAX_WORD,
    SINGLE,
    SPACE,
    tables,
)

# columns of the facts of a text
FACTS = (
    "tokens", "letters", "singles", "marks", "digits", "capitals", "ends", "word_characters", "lines", "short_lines",
    "longest_gap", "windows", "window_tokens", "window_repeats", "pair_repeats", "pairs", "known", "seen", "gain",
    "surprise", "characters", "ended_lines", "far_gain", "far_pairs", "common_gain", "common_pairs",
    "glue_pairs", "glue_gain", "glue_odd",
)  # fmt: skip
(_TOKENS, _LETTERS, _SINGLES, _MARKS, _DIGITS, _CAPITALS, _ENDS, _WORD_CHARS, _LINES, _SHORT, _GAP, _WINDOWS,
 _WINDOW_TOKENS, _REPEATS, _PAIR_REPEATS, _PAIRS, _KNOWN, _SEEN, _GAIN, _SURPRISE, _CHARACTERS, _ENDED, _FAR_GAIN,
 _FAR_PAIRS, _COMMON_GAIN, _COMMON_PAIRS, _GLUE_PAIRS, _GLUE_GAIN, _GLUE_ODD) = (
    range(len(FACTS))
)  # fmt: skip
WINDOW = 256  # tokens in which repeats are counted, so that a long text does not look repetitive
SHORT_LINE = 8  # tokens
FAR = 11  # tokens back: no neighbour any more, and still the same paragraph
ODD = -STEP  # a pair of glue that is half as frequent as chance has it, or less
COMMON = 8000  # a token is common that makes up one in so many or more
_STAMPS = 1 << 14
_BASIS, _PRIME = np.uint32(2166136261), np.uint32(16777619)
_NGRAM = np.uint64(116049371)
_MIX = np.uint64(0x9E3779B97F4A7C15)
_HIGH = np.uint32(0xFFFFFF00)


@subkernel
def _hash_byte(h, byte):
    value = np.uint32(byte)
    if value >= 0x80:  # a signed byte, as fastText's
        value |= _HIGH
    return np.uint32((h ^ value) * _PRIME)


@subkernel
def _put(code, spelt, n):
    """UTF-8 of a code point into spelt[n:]; returns the new n."""
    if code < 0x80:
        spelt[n] = code
        return n + 1
    if code < 0x800:
        spelt[n] = 0xC0 | code >> 6
        spelt[n + 1] = 0x80 | code & 63
        return n + 2
    if code < 0x10000:
        spelt[n] = 0xE0 | code >> 12
        spelt[n + 1] = 0x80 | code >> 6 & 63
        spelt[n + 2] = 0x80 | code & 63
        return n + 3
    spelt[n] = 0xF0 | code >> 18
    spelt[n + 1] = 0x80 | code >> 12 & 63
    spelt[n + 2] = 0x80 | code >> 6 & 63
    spelt[n + 3] = 0x80 | code & 63
    return n + 4


@subkernel
def _find(h, spelt, n, slots, hashes, starts, spellings):
    """Number of the word in the vocabulary, -1 where it has none: its spelling is compared, not its hash alone."""
    mask = np.uint32(slots.shape[0] - 1)
    at = h & mask
    while slots[at] >= 0:
        word = slots[at]
        if hashes[word] == h and starts[word + 1] - starts[word] == n:
            first = starts[word]
            same = True
            for j in range(n):
                if spellings[first + j] != spelt[j]:
                    same = False
                    break
            if same:
                return word
        at = np.uint32(at + np.uint32(1)) & mask
    return np.int32(-1)


@subkernel
def _decode(data, i, end):
    """(code point, next place); what is no UTF-8 is U+FFFD."""
    b = np.int64(data[i])
    if b < 0x80:
        return b, i + 1
    if b >= 0xF0:
        if i + 3 < end:
            return (
                (b & 7) << 18
                | np.int64(data[i + 1] & 63) << 12
                | np.int64(data[i + 2] & 63) << 6
                | np.int64(data[i + 3] & 63)
            ), i + 4
    elif b >= 0xE0:
        if i + 2 < end:
            return (b & 15) << 12 | np.int64(data[i + 1] & 63) << 6 | np.int64(data[i + 2] & 63), i + 3
    elif b >= 0xC0 and i + 1 < end:
        return (b & 31) << 6 | np.int64(data[i + 1] & 63), i + 2
    return np.int64(0xFFFD), i + 1


@subkernel
def _tokens(data, start, end, kinds, lower, vocabulary, hashes, ids, spelt, fact):  # noqa: C901
    """Hash and word number of each token of data[start:end]; counts go to `fact`. Returns how many."""
    slots, word_hashes, starts, spellings = vocabulary
    n, seen, i = 0, 0, start
    h, spelt_bytes, length, word_kind = _BASIS, 0, 0, 0
    line_first, gap, last_mark = 0, 0, 0
    while True:
        if i < end and seen < MAX_CHARACTERS:
            code, i = _decode(data, i, end)
            seen += 1
            if code < CODES:
                kind, folded = kinds[code], np.int64(lower[code])
            elif code < 0x40000:
                kind, folded = np.uint8(SINGLE), code
            else:
                kind, folded = np.uint8(MARK), code
        else:
            code, kind, folded = 10, np.uint8(SPACE), 10
        what = kind & 3
        if length and (what != LETTER or length == MAX_WORD):  # the word before ends here
            hashes[n] = h
            ids[n] = _find(h, spelt, spelt_bytes, slots, word_hashes, starts, spellings)
            fact[_LETTERS] += 1
            fact[_WORD_CHARS] += length
            fact[_DIGITS] += word_kind & DIGIT != 0
            fact[_CAPITALS] += word_kind & CAPITAL != 0
            n += 1
            gap += 1
            last_mark = 0
            length = 0
        if what == LETTER:
            if length == 0:
                h, spelt_bytes, word_kind = _BASIS, 0, np.int64(kind)
            before = spelt_bytes
            spelt_bytes = _put(folded, spelt, spelt_bytes)
            for j in range(before, spelt_bytes):
                h = _hash_byte(h, spelt[j])
            length += 1
        elif what != SPACE:
            spelt_bytes = _put(folded, spelt, 0)
            h = _BASIS
            for j in range(spelt_bytes):
                h = _hash_byte(h, spelt[j])
            hashes[n] = h
            ids[n] = _find(h, spelt, spelt_bytes, slots, word_hashes, starts, spellings)
            n += 1
            if what == SINGLE:
                fact[_SINGLES] += 1
                gap += 1
                last_mark = 0
            else:
                fact[_MARKS] += 1
                last_mark = 1
                if kind & ENDS:
                    fact[_ENDS] += 1
                    last_mark = 2
                    gap = 0
        fact[_GAP] = max(fact[_GAP], gap)
        if code == 10 and n > line_first:
            fact[_LINES] += 1
            fact[_SHORT] += n - line_first if n - line_first < SHORT_LINE else 0
            fact[_ENDED] += last_mark == 2
            line_first = n
        if code == 10 and (i >= end or seen >= MAX_CHARACTERS) and kind == SPACE and length == 0:
            break
    fact[_CHARACTERS] = seen
    fact[_TOKENS] = n
    return n


@subkernel
def _linear(hashes, ids, n, rows, words, ngrams, end_hash, end_id, out):
    """fastText's mean over the rows of words, the line's end and the runs of up to `ngrams` tokens, into out[:]."""
    labels = rows.shape[1]
    buckets = np.uint64(rows.shape[0] - words)
    added = 0
    for at in range(n + 1):
        word = ids[at] if at < n else end_id
        if word >= 0:
            added += 1
            for k in range(labels):
                out[k] += rows[word, k]
        if buckets == 0:
            continue
        h = np.uint64(np.int64(np.int32(hashes[at] if at < n else end_hash)))
        for following in range(at + 1, min(at + ngrams, n + 1)):
            other = hashes[following] if following < n else end_hash
            h = h * _NGRAM + np.uint64(np.int64(np.int32(other)))
            row = words + np.int64(h % buckets)
            added += 1
            for k in range(labels):
                out[k] += rows[row, k]
    if added:
        for k in range(labels):
            out[k] /= added


@subkernel
def _bits(first, one, second, other, bigrams, level, followers, given, alone):
    """Bits that the token `first` saves of `second`, by the order model (Witten and Bell 1991)."""
    pair = np.int64((first * _MIX + second) * _MIX >> np.uint64(64 - BIGRAMS))
    together = min(level[bigrams[pair]], given)
    kinds = max(1.0, level[followers[one]])
    return np.log2((together + kinds * alone) / ((given + kinds) * alone)), together > 0


@subkernel
def _order(hashes, n, places, counts, unigrams, followers, bigrams, level, total, fact):
    """How much the token before tells of the next one, and how much one that stands FAR before.

    The second is what order would tell if there were none: the same tokens, the same subject, no neighbours. A pair
    that was never seen speaks against a text only where both of its tokens are common; elsewhere it is a new subject.
    """
    common = total / COMMON
    for at in range(n):
        h = np.uint64(hashes[at])
        one = np.int64(h * _MIX >> np.uint64(64 - UNIGRAMS))
        places[at] = one
        counts[at] = level[unigrams[one]]
        fact[_KNOWN] += counts[at] > 0
        fact[_SURPRISE] -= np.log2((counts[at] + 0.5) / total)
    for at in range(1, n):
        fact[_PAIRS] += 1
        if counts[at] == 0:
            continue
        alone = (counts[at] + 0.5) / total
        h = np.uint64(hashes[at])
        if counts[at - 1] > 0:
            bits, seen = _bits(
                np.uint64(hashes[at - 1]), places[at - 1], h, places[at], bigrams, level, followers, counts[at - 1],
                alone,
            )  # fmt: skip
            fact[_SEEN] += seen
            fact[_GAIN] += max(0.0, bits)
            if counts[at] >= common and counts[at - 1] >= common:
                fact[_COMMON_PAIRS] += 1
                fact[_COMMON_GAIN] += bits
        far = at - FAR if at >= FAR else at - FAR + n
        if far >= 0 and far != at - 1 and counts[far] > 0:
            bits, _ = _bits(
                np.uint64(hashes[far]), places[far], h, places[at], bigrams, level, followers, counts[far], alone
            )
            fact[_FAR_PAIRS] += 1
            fact[_FAR_GAIN] += max(0.0, bits)


@subkernel
def _glue(hashes, n, slots, held, gains, fact):
    """What neighbours tell of each other that are both of the words of `glue`."""
    mask = np.uint32(slots.shape[0] - 1)
    before = -1
    for at in range(n):
        place = hashes[at] & mask
        while slots[place] >= 0 and held[slots[place]] != hashes[at]:
            place = np.uint32(place + np.uint32(1)) & mask
        now = slots[place]
        if now >= 0 and before >= 0:
            gain = gains[before, now]
            fact[_GLUE_PAIRS] += 1
            fact[_GLUE_GAIN] += gain / STEP
            fact[_GLUE_ODD] += gain < ODD
        before = now


@subkernel
def _repeats(hashes, n, stamps, stamp, fact):
    """Tokens and pairs that came before in the same window of WINDOW tokens. Returns the last stamp used."""
    for first in range(0, n, WINDOW):
        stop = min(n, first + WINDOW)
        if stop - first < 32 and first:
            break  # a rest of a few tokens would repeat nothing
        stamp += 1
        fact[_WINDOWS] += 1
        fact[_WINDOW_TOKENS] += stop - first
        for at in range(first, stop):
            h = np.uint64(hashes[at]) * _MIX
            place = np.int64(h >> np.uint64(50))
            fact[_REPEATS] += stamps[0, place] == stamp
            stamps[0, place] = stamp
            if at > first:
                place = np.int64((np.uint64(hashes[at - 1]) * _MIX + np.uint64(hashes[at])) * _MIX >> np.uint64(50))
                fact[_PAIR_REPEATS] += stamps[1, place] == stamp
                stamps[1, place] = stamp
    return stamp


@kernel
def _read(data, offsets, kinds, lower, vocabulary, rows, words, ngrams, end_hash, end_id, order, sums, facts):
    unigrams, followers, bigrams, level, total, slots, held, gains = order
    hashes = np.empty(MAX_CHARACTERS + 2, np.uint32)
    ids = np.empty(MAX_CHARACTERS + 2, np.int32)
    spelt = np.empty(4 * MAX_WORD + 8, np.uint8)
    places = np.empty(MAX_CHARACTERS + 2, np.int64)
    counts = np.empty(MAX_CHARACTERS + 2, np.float64)
    stamps = np.zeros((2, _STAMPS), np.int64)
    stamp = np.int64(0)
    for d in range(offsets.shape[0] - 1):
        fact = facts[d]
        n = _tokens(data, offsets[d], offsets[d + 1], kinds, lower, vocabulary, hashes, ids, spelt, fact)
        if n == 0:
            continue
        if rows.shape[0]:
            _linear(hashes, ids, n, rows, words, ngrams, end_hash, end_id, sums[d])
        if total > 0:
            _order(hashes, n, places, counts, unigrams, followers, bigrams, level, total, fact)
            _glue(hashes, n, slots, held, gains, fact)
        stamp = _repeats(hashes, n, stamps, stamp, fact)


@kernel
def _hash_all(data, offsets, kinds, lower, vocabulary, hashes, bounds):
    ids = np.empty(MAX_CHARACTERS + 2, np.int32)
    spelt = np.empty(4 * MAX_WORD + 8, np.uint8)
    fact = np.zeros(32, np.float64)
    held = np.empty(MAX_CHARACTERS + 2, np.uint32)
    at = 0
    for d in range(offsets.shape[0] - 1):
        n = _tokens(data, offsets[d], offsets[d + 1], kinds, lower, vocabulary, held, ids, spelt, fact)
        for j in range(n):
            hashes[at + j] = held[j]
        at += n
        bounds[d + 1] = at


def read_texts(
    texts: pa.Array | pa.ChunkedArray, line: LineModel, order: OrderModel | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """((n, labels) float64 outputs of the linear model before softmax, (n, len(FACTS)) float64 facts)."""
    data, offsets = utf8_of(texts)
    count = len(offsets) - 1
    sums = np.zeros((count, line.rows.shape[1]), np.float64)
    facts = np.zeros((count, len(FACTS)), np.float64)
    kinds, lower = tables()
    order_arrays = order.arrays() if order is not None else _NO_ORDER
    _read(
        data, offsets, kinds, lower, line.vocabulary, line.rows, line.words, line.ngrams, line.end_hash, line.end_id,
        order_arrays, sums, facts,
    )  # fmt: skip
    return sums, facts


def token_hashes(texts: pa.Array | pa.ChunkedArray) -> tuple[np.ndarray, np.ndarray]:
    """(uint32 hashes of the tokens of all texts, (n + 1,) int64 bounds)."""
    data, offsets = utf8_of(texts)
    lengths = np.minimum(np.diff(offsets), 4 * MAX_CHARACTERS)
    hashes = np.empty(int(lengths.sum()), np.uint32)
    bounds = np.zeros(len(offsets), np.int64)
    kinds, lower = tables()
    _hash_all(data, offsets, kinds, lower, LineModel.empty().vocabulary, hashes, bounds)
    return hashes[: bounds[-1]].copy(), bounds


_NO_GLUE = (np.full(1, -1, np.int16), np.zeros(1, np.uint32), np.zeros((1, 1), np.int8))
_NO_ORDER = (np.zeros(1, np.uint8), np.zeros(1, np.uint8), np.zeros(1, np.uint8), levels(), 0.0, *_NO_GLUE)
assert len(levels()) == LEVELS
