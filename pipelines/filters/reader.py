"""From an Arrow array of texts to facts: one compiled loop, no Python object a text."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from pipelines.filters.characters import table
from pipelines.filters.facts import CHARACTERS_A_WORD, FACT, FACTS, UNSPACED_SHARE, Facts
from pipelines.filters.lexicon import BASE, MOST_UNITS, NO_LISTS, Lexicon, default_lexicon, match
from pipelines.filters.lines import BOILERPLATE_BOUND, BOUND, COUNTED_ONLY, judge_lines
from pipelines.filters.repetition import SIZES, count_grams, count_pieces, set_sizes
from pipelines.filters.scan import (
    BULLETED,
    CAPITAL,
    CAPITALS,
    CURLY,
    ELLIPSIS,
    ENDED,
    HAS_DIGIT,
    HAS_LETTER,
    IDEOGRAM,
    L_BYTE,
    L_BYTE_END,
    L_FLAGS,
    L_FROM,
    L_PIECES,
    L_RAW,
    L_SENTENCES,
    L_TO,
    L_UNIT,
    L_UNITS,
    L_WORDS,
    LINE_COLUMNS,
    LONG_WORD,
    NUMERIC,
    PLAINLY_ENDED,
    SPARE,
    TERMINATED,
    WORD,
    cut_units,
    decode,
)
from pipelines.kernels import kernel, subkernel

LOOKED_AT_CHARACTERS = 200_000  # a longer text is measured by its first part; `visible` counts all
_SHARE = UNSPACED_SHARE
_CAPITAL_MARK = np.uint64(0x94D049BB133111EB)
_C4_BARRED = ("javascript", "policy")  # lists: lines with a hit are no lines of C4
(_LENGTH, _VISIBLE, _ALNUM, _UNSPACED, _NEWLINES, _LINES, _LINE_CHARS, _BULLETS, _ENDED, _TERMINAL, _ELLIPSIS, _SHORT30,
 _SHORT10, _LONGEST, _PROSE, _CAPITALS, _NUMERIC, _UNITS, _UNIT_CHARS, _WORDS, _WORD_CHARS, _LETTER_WORDS, _DIGIT_WORDS,
 _IDEOGRAMS, _C4_LINES, _C4_SENTENCES, _C4_CURLY, _SENTENCES, _FLAGGED, _FLAGGED_LINES, _BOILERPLATE,
 _BOILERPLATE_LINES) = (FACT[name] for name in (
    "length", "visible", "alphanumeric", "unspaced", "newlines", "lines", "line_characters", "bullet_lines",
    "ended_lines", "terminal_lines", "ellipsis_lines", "short_lines_30", "short_lines_10", "longest_line",
    "prose_characters", "capital_lines", "numeric_lines", "units", "unit_characters", "words", "word_characters",
    "letter_words", "digit_words", "ideograms", "c4_lines", "c4_sentences", "c4_curly_lines", "sentences",
    "flagged_words", "flagged_lines", "boilerplate_words", "boilerplate_lines"))  # fmt: skip


@subkernel
def _count(lines, line_count, units, lengths, kinds, ends, line_bits, barred, unspaced, fact):
    """Facts of lines and units."""
    at = 0
    for unit in range(units):
        kind = kinds[unit]
        ends[unit] = at
        at += lengths[unit]
        if kind & WORD:
            fact[_WORDS] += 1
            fact[_WORD_CHARS] += lengths[unit]
            if kind & HAS_LETTER:
                fact[_LETTER_WORDS] += 1
            if kind & HAS_DIGIT:
                fact[_DIGIT_WORDS] += 1
            if kind & IDEOGRAM:
                fact[_IDEOGRAMS] += 1
    ends[units] = at
    fact[_UNITS], fact[_UNIT_CHARS] = units, at
    fact[_NEWLINES] = line_count - 1
    for line in range(line_count):
        length = lines[line, L_TO] - lines[line, L_FROM]
        if length == 0:
            continue
        flags = lines[line, L_FLAGS]
        fact[_LINES] += 1
        fact[_LINE_CHARS] += length
        fact[_SENTENCES] += lines[line, L_SENTENCES]
        fact[_LONGEST] = max(fact[_LONGEST], length)
        fact[_SHORT30] += lines[line, L_RAW] <= 30
        fact[_SHORT10] += lines[line, L_RAW] <= 10
        fact[_BULLETS] += flags & BULLETED != 0
        fact[_ENDED] += flags & ENDED != 0
        fact[_TERMINAL] += flags & TERMINATED != 0
        fact[_ELLIPSIS] += flags & ELLIPSIS != 0
        fact[_CAPITALS] += flags & CAPITALS != 0
        fact[_NUMERIC] += flags & NUMERIC != 0
        if (flags & ENDED or lines[line, L_SENTENCES] > 1) and length > (10 if unspaced else 30):
            fact[_PROSE] += length
        closed = flags & PLAINLY_ENDED or (flags & (TERMINATED | ENDED) and unspaced)
        enough = lines[line, L_PIECES] >= 3 or (unspaced and lines[line, L_WORDS] >= 6)
        if closed and enough and not flags & LONG_WORD and line_bits[line] & barred == np.uint64(0):
            fact[_C4_LINES] += 1
            fact[_C4_SENTENCES] += lines[line, L_SENTENCES]
            fact[_C4_CURLY] += flags & CURLY != 0


@kernel
def _read(
    data, offsets, table, first, keys, entries, bits, places, longest, is_line, is_lower, bounded, barred, colon,
    a_word, scratch, count_all, hashes, lines, facts, hits, spans,
):  # fmt: skip
    """Facts and hits of every text; rows (text, rule, from byte, to byte, from character, to character, words) of
    flagged lines go to `spans`, of the last text units to `hashes` and lines to `lines`. Returns how many rows
    there are: more than `spans` holds means to call again."""
    (codes, cuts, prefix, lengths, ends, kinds, line_hashes, line_bits, why, slots, again, sizes, table_keys, stamps,
     counts, firsts, seen, powers, covered, words_hit) = scratch  # fmt: skip
    stamp = 1
    found = 0
    for row in range(offsets.shape[0] - 1):
        fact = facts[row]
        _, line_count = decode(data, offsets[row], offsets[row + 1], table, codes, lines, fact)
        units = cut_units(codes, lines, line_count, cuts, hashes, lengths, kinds, line_hashes)
        prefix[0] = np.uint64(0)
        for unit in range(units):
            prefix[unit + 1] = prefix[unit] * BASE + hashes[unit]
        unspaced = fact[_UNSPACED] >= _SHARE * fact[_ALNUM] and fact[_UNSPACED] > 0
        match(
            lines, line_count, hashes, kinds, prefix, first, keys, entries, bits, places, longest, is_line, is_lower,
            powers, colon, seen, covered, words_hit, row, line_bits, hits[row],
        )  # fmt: skip
        words, flagged, flagged_lines, boilerplate, boilerplate_lines = judge_lines(
            lines, line_count, kinds, line_bits, is_line, bounded, unspaced, why
        )
        fact[_FLAGGED], fact[_FLAGGED_LINES] = flagged, flagged_lines
        fact[_BOILERPLATE], fact[_BOILERPLATE_LINES] = boilerplate, boilerplate_lines
        take_flagged = flagged <= BOUND * words
        take_boilerplate = boilerplate <= BOILERPLATE_BOUND * words
        for line in range(line_count):
            rule = why[line]
            if (rule < -COUNTED_ONLY and take_flagged) or (rule > 0 and take_boilerplate):
                if found < spans.shape[0]:
                    spans[found, 0], spans[found, 1] = row, abs(rule)
                    spans[found, 2], spans[found, 3] = lines[line, L_BYTE], lines[line, L_BYTE_END]
                    spans[found, 4], spans[found, 5] = lines[line, L_FROM], lines[line, L_TO]
                    spans[found, 6] = lines[line, L_WORDS]
                found += 1
        if count_all:
            _count(lines, line_count, units, lengths, kinds, ends, line_bits, barred, unspaced, fact)
            stamp = count_pieces(
                lines, line_count, line_hashes, units, hashes, kinds, stamp, table_keys, stamps, counts, fact
            )
            for unit in range(units):  # n-grams keep capitals apart, as published; word lists do not
                capital = _CAPITAL_MARK if kinds[unit] & CAPITAL else np.uint64(0)
                prefix[unit + 1] = prefix[unit] * BASE + (hashes[unit] ^ capital)
            set_sizes(units, fact[_IDEOGRAMS] if unspaced else 0, a_word, sizes)
            stamp = count_grams(
                prefix, ends, units, sizes, stamp, table_keys, stamps, counts,
                firsts, slots, again, fact,
            )  # fmt: skip
    return found


def read_facts(texts: pa.Array | pa.ChunkedArray, lexicon: Lexicon | None = None) -> Facts:
    """(n,) texts -> Facts, same order, whatever the chunks; a null text counts as empty."""
    return read_facts_and_lines(texts, lexicon)[0]


def read_facts_and_lines(texts: pa.Array | pa.ChunkedArray, lexicon: Lexicon | None = None) -> tuple[Facts, np.ndarray]:
    """`read_facts` and `flagged_lines` in one pass."""
    counts, hits, spans, *_ = _run(texts, lexicon or default_lexicon(), count_all=True)
    return Facts(counts=counts, hits=hits, lists=(lexicon or default_lexicon()).names, raw=texts), spans


def flagged_lines(texts: pa.Array | pa.ChunkedArray, lexicon: Lexicon | None = None) -> np.ndarray:
    """(k, 7) int64: text, rule, bytes from and to, characters from and to, words of every line to take out, in order.

    Bytes and characters count from the start of the text; a rule is an index into `line_reasons`.
    """
    return _run(texts, lexicon or default_lexicon(), count_all=False)[2]


def line_reasons(lexicon: Lexicon | None = None) -> tuple[str, ...]:
    """Reasons by rule number; number 0 is none."""
    from pipelines.filters.lines import BUILT_IN

    return ("", *BUILT_IN, *(lexicon or default_lexicon()).names)


def units_of_lines(phrases: Sequence[str]) -> list[list[int]]:
    """Hashes of the units of each phrase, as texts are cut."""
    joined = pa.array(["\n".join(phrases)], pa.large_string())
    *_, hashes, lines = _run(joined, NO_LISTS, count_all=False)
    cuts = [(int(lines[row, L_UNIT]), int(lines[row, L_UNITS])) for row in range(len(phrases))]
    return [[int(h) for h in hashes[at : at + units]] for at, units in cuts]


def _run(texts: pa.Array | pa.ChunkedArray, lexicon: Lexicon, *, count_all: bool) -> tuple[np.ndarray, ...]:
    """(facts, hits, flagged lines, units' hashes and lines of the last text)."""
    data, offsets = utf8_of(texts)
    rows = len(offsets) - 1
    bounded = np.array([each.bounded for each in lexicon.lists], np.bool_)
    barred = sum(1 << n for n, name in enumerate(lexicon.names) if name in _C4_BARRED)
    most = min(int(np.diff(offsets).max(initial=1)), LOOKED_AT_CHARACTERS)
    hashes, lines = np.empty(most + 1, np.uint64), np.empty((most + 2, LINE_COLUMNS), np.int64)
    room = max(64, 4 * rows)
    while True:
        facts = np.zeros((rows, len(FACTS)), np.int64)
        hits = np.zeros((rows, len(lexicon.lists), 3), np.int64)
        spans = np.empty((room, 7), np.int64)
        found = _read(
            data, offsets, table(), lexicon.first, lexicon.keys, lexicon.entries, lexicon.bits, lexicon.places,
            lexicon.longest, lexicon.is_line, lexicon.is_lower, bounded, np.uint64(barred), np.uint64(lexicon.colon),
            CHARACTERS_A_WORD, _scratch(most, lexicon), count_all, hashes, lines, facts, hits, spans,
        )  # fmt: skip
        if found <= room:
            break
        room = found
    spans = spans[: min(found, room)]
    if len(spans):
        spans[:, 2:4] -= offsets[spans[:, 0]][:, None]
    return facts, hits, spans, hashes, lines


def _scratch(room: int, lexicon: Lexicon) -> tuple[np.ndarray, ...]:
    """Arrays that the kernel uses again for every text, for texts of up to `room` characters.

    Made here: numba takes long to compile what allocates.
    """
    size = 1024
    while size < 2 * room + 16:
        size *= 2
    powers = np.multiply.accumulate(np.r_[np.uint64(1), np.full(MOST_UNITS, BASE)])
    units, lists = room + 2, len(lexicon.lists)
    return (
        np.zeros(room + SPARE, np.uint32), np.empty(units, np.int32),  # codes, cuts
        np.empty(units, np.uint64), np.empty(units, np.int32),  # prefix, lengths
        np.empty(units, np.int64), np.empty(units, np.uint8),  # ends, kinds
        np.empty(units, np.uint64), np.empty(units, np.uint64), np.empty(units, np.int32),  # line hashes, bits, why
        np.empty(units, np.int32), np.empty(units, np.bool_), np.empty(len(SIZES), np.int64),  # slots, again, sizes
        np.empty(size, np.uint64), np.zeros(size, np.int32),  # keys, stamps
        np.empty(size, np.int32), np.empty(size, np.int32),  # counts, firsts
        np.full(len(lexicon.bits), -1, np.int64), powers,  # seen, powers
        np.empty(lists, np.int64), np.empty(lists, np.int64),  # covered, words hit
    )  # fmt: skip


def utf8_of(texts: pa.Array | pa.ChunkedArray) -> tuple[np.ndarray, np.ndarray]:
    """(bytes, (n + 1,) int64 offsets) of texts; nulls are empty."""
    array = texts.combine_chunks() if isinstance(texts, pa.ChunkedArray) else texts
    if isinstance(array, pa.ChunkedArray):
        array = pa.concat_arrays(array.chunks) if array.num_chunks else pa.array([], pa.large_string())
    if array.type != pa.large_string():
        array = array.cast(pa.large_string())
    if array.null_count:
        array = array.fill_null("")
    _, offsets, data = array.buffers()
    where = (
        np.frombuffer(offsets, np.int64)[array.offset : array.offset + len(array) + 1]
        if len(array)
        else np.zeros(1, np.int64)
    )
    held = np.frombuffer(data, np.uint8) if data is not None and data.size else np.zeros(0, np.uint8)
    return held, where
