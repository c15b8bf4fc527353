"""One pass over the UTF-8 of a text: characters, lines, units and their hashes, shared by every measure.

A *unit* is a word, a Han or kana character, or a mark of punctuation. Words are cut much as spaCy cuts English:
punctuation is peeled off both ends, `n't` and `'s` are units, words joined by hyphens or slashes come apart, addresses
stay whole; so thresholds published on such words hold. The kernels take scratch arrays that are used again for every
text: memory is bounded by the part of a text that is looked at, never by the corpus.
"""

from __future__ import annotations

import numpy as np

from pipelines.filters.characters import (
    BULLET,
    DIGIT,
    END,
    FOLD,
    LETTER,
    LOWER,
    PEEL,
    PEEL_DASH,
    PLAIN_END,
    SPACE,
    SYMBOL,
    TERMINAL,
    UNSPACED,
    UPPER,
)
from pipelines.filters.facts import FACT
from pipelines.kernels import subkernel

# a unit's kind
WORD, HAS_LETTER, IDEOGRAM, STOP, MARK, HAS_DIGIT, CAPITAL = 1, 2, 4, 8, 16, 32, 64
# a line's flags
BULLETED, ENDED, TERMINATED, ELLIPSIS, PLAINLY_ENDED, CURLY, LONG_WORD, MARKED_UP, NUMERIC, CAPITALS = (
    1, 2, 4, 8, 16, 32, 64, 128, 256, 512,
)  # fmt: skip
# columns of the table of lines
(L_FROM, L_TO, L_BYTE, L_BYTE_END, L_UNIT, L_UNITS, L_WORDS, L_FLAGS, L_SENTENCES, L_PIECES, L_PARAGRAPH, L_RAW) = (
    range(12)
)
LINE_COLUMNS = 12
_MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)
_MIX = np.uint64(0xFF51AFD7ED558CCD)
_SHIFT = np.uint64(32)
SPARE = 4  # characters that `codes` holds beyond the last one decoded
_APOSTROPHE, _CURLY_APOSTROPHE, _DOT = 0x27, 0x2019, 0x2E
(_LENGTH, _VISIBLE, _HEAD_VISIBLE, _LETTERS, _ALNUM, _UNSPACED, _DIGITS, _UPPERS, _HASHES, _ELLIPSES, _STOPS,
 _BROKEN) = (
    FACT[name] for name in ("length", "visible", "head_visible", "letters", "alphanumeric", "unspaced", "digits",
                            "capitals", "hashes", "ellipses", "stops", "replacement_characters")
)  # fmt: skip


@subkernel
def decode(data, start, end, table, codes, lines, fact):  # noqa: C901
    """Text data[start:end] -> (characters of the head in `codes`, lines); counts of characters go to `fact`.

    `codes` holds table values; at most len(codes) - SPARE characters are decoded, the rest only counted. Bytes that
    are no UTF-8 decode to U+FFFD, never beyond `end`.
    """
    most = codes.shape[0] - SPARE
    most_lines = lines.shape[0] - 1
    n = 0
    line = 0
    i = start
    dots = 0
    ideograms = 0  # of the block that most Han characters lie in: no look-up
    lines[0, L_FROM] = 0
    lines[0, L_BYTE] = start
    while i < end and n < most:
        b = np.int64(data[i])
        step = 1
        code = b
        if b >= 0x80:
            code = 0xFFFD
            if b >= 0xF0:
                if i + 3 < end:
                    code = (
                        (b & 7) << 18
                        | np.int64(data[i + 1] & 63) << 12
                        | np.int64(data[i + 2] & 63) << 6
                        | np.int64(data[i + 3] & 63)
                    )
                    step = 4
            elif b >= 0xE0:
                if i + 2 < end:
                    code = (b & 15) << 12 | np.int64(data[i + 1] & 63) << 6 | np.int64(data[i + 2] & 63)
                    step = 3
            elif b >= 0xC0 and i + 1 < end:
                code = (b & 31) << 6 | np.int64(data[i + 1] & 63)
                step = 2
        value = table[code] if code < table.shape[0] else SYMBOL
        codes[n] = value
        n += 1
        i += step
        if value & SPACE:
            dots = 0
            if code == 10 and line < most_lines:
                lines[line, L_TO] = n - 1
                lines[line, L_BYTE_END] = i - 1
                line += 1
                lines[line, L_FROM] = n
                lines[line, L_BYTE] = i
            continue
        fact[_HEAD_VISIBLE] += 1
        if value & LETTER:
            fact[_LETTERS] += 1
            fact[_ALNUM] += 1
            if value & UNSPACED:
                fact[_UNSPACED] += 1
            elif value & UPPER:
                fact[_UPPERS] += 1
            dots = 0
        elif value & DIGIT:
            fact[_ALNUM] += 1
            fact[_DIGITS] += 1
            dots = 0
        else:
            if value & UNSPACED:  # the iteration mark, the closing mark
                fact[_UNSPACED] += 1
                fact[_ALNUM] += 1
            if code == 0x2E:
                dots += 1
                if dots == 3:
                    fact[_ELLIPSES] += 1
                    dots = 0
            else:
                dots = 0
                if code == 0x23:
                    fact[_HASHES] += 1
                elif code == 0x2026:
                    fact[_ELLIPSES] += 1
                elif code == 0xFFFD:
                    fact[_BROKEN] += 1
            if value & TERMINAL:
                fact[_STOPS] += 1
    lines[line, L_TO] = n
    lines[line, L_BYTE_END] = i
    fact[_LENGTH] = n
    fact[_HEAD_VISIBLE] += ideograms
    fact[_LETTERS] += ideograms
    fact[_ALNUM] += ideograms
    fact[_UNSPACED] += ideograms
    visible = fact[_HEAD_VISIBLE]
    while i < end:  # the tail is only counted; its white space of one byte is told from letters
        b = data[i]
        if (b & 0xC0) != 0x80 and not (b == 32 or (b >= 9 and b <= 13)):
            visible += 1
        i += 1
    fact[_VISIBLE] = visible
    return n, line + 1


@subkernel
def _peels(value):
    """Is the character a unit of its own at the edge of a word?"""
    folded = value & FOLD
    return value & PEEL != 0 or folded == 0x2014 or folded == 0x2013


@subkernel
def _dots(codes, j, b):
    """How many full stops stand from j on."""
    run = j
    while run < b and codes[run] & FOLD == _DOT:
        run += 1
    return run - j


@subkernel
def _word_end(codes, a, b):
    """Where the marks at the end of the word codes[a:b] begin; the dot of `U.S.` or `J.` is no such mark."""
    stop = b
    while stop > a:
        if codes[stop - 1] & FOLD == _DOT:
            run = stop
            while run > a and codes[run - 1] & FOLD == _DOT:
                run -= 1
            if stop - run == 1:
                if run == a:
                    break
                before = codes[run - 1]
                lone = before & UPPER and (run - 1 == a or not codes[run - 2] & UPPER)
                if lone or (before & LETTER and run - 1 > a and codes[run - 2] & FOLD == _DOT):
                    break
            stop = run
        elif _peels(codes[stop - 1]):
            stop -= 1
        else:
            break
    return stop


@subkernel
def _infix(codes, j, stop):
    """Width of the mark at j that parts a word in two, 0 for none: well-known, and/or, end.Begin, one...two, 3-4."""
    value = codes[j]
    folded = value & FOLD
    before, after = codes[j - 1], codes[j + 1]
    numbers = before & DIGIT and after & DIGIT
    letter_after = after & LETTER
    joined = (before & LETTER or before & DIGIT) and letter_after
    if value & PEEL_DASH or folded == 0x2F or folded == 0x3A or (folded >= 0x3C and folded <= 0x3E):
        if joined or (numbers and folded == 0x2D):
            return 1
        is_double = folded == 0x2D and after & FOLD == 0x2D and (before & LETTER or before & DIGIT)
        return 2 if is_double and j + 2 < stop and codes[j + 2] & LETTER else 0
    if folded == 0x2C:
        return 1 if before & LETTER and letter_after else 0
    if folded == _DOT:
        run = _dots(codes, j, stop)
        return run if run > 1 else (1 if before & LOWER and after & UPPER else 0)
    return 1 if folded == 0x2026 or (numbers and (folded == 0x2A or folded == 0x2B or folded == 0x5E)) else 0


@subkernel
def _contraction(codes, piece, stop):
    """Where `n't` of don't or `'s` of it's begins in the word codes[piece:stop]; stop for none."""
    for back in range(2, min(stop - piece, 4)):
        folded = codes[stop - back] & FOLD
        if folded in (_APOSTROPHE, _CURLY_APOSTROPHE):
            split = stop - back
            if back == 2 and codes[stop - 1] & FOLD == 0x74 and codes[split - 1] & FOLD == 0x6E:
                split -= 1
            return split if split > piece else stop
    return stop


@subkernel
def _is_address(codes, a, b):
    for j in range(a, b - 3):
        if codes[j] & FOLD == 0x3A and codes[j + 1] & FOLD == 0x2F and codes[j + 2] & FOLD == 0x2F:
            return True
    return False


@subkernel
def _cut(codes, a, b, at, cuts):
    """Ends of the units of codes[a:b], which holds neither white space nor ideograms, to cuts[at] on; the new `at`."""
    stop = a
    while a < b:  # the front
        width = _dots(codes, a, b)
        width = width if width > 1 else (1 if _peels(codes[a]) else 0)
        if width == 0:
            stop = _word_end(codes, a, b)
            break
        a += width
        stop = a
        cuts[at] = a
        at += 1
    if a < stop:
        piece = a
        if not _is_address(codes, a, b):
            j = a + 1
            while j < stop - 1:
                width = 0 if codes[j] & (LETTER | DIGIT) else _infix(codes, j, stop)
                if width:
                    cuts[at] = j
                    cuts[at + 1] = j + width
                    at += 2
                    piece = j + width
                    j = piece
                j += 1
            split = _contraction(codes, piece, stop) if stop > piece else stop
            if split < stop:
                cuts[at] = split
                at += 1
                piece = split
        if piece < stop:
            cuts[at] = stop
            at += 1
    while stop < b:
        stop += max(1, _dots(codes, stop, b))
        cuts[at] = stop
        at += 1
    return at


@subkernel
def _edges(codes, a, b):
    """Flags of a line by its first and last characters."""
    flags = 0
    first, last = codes[a], codes[b - 1]
    if first & BULLET:
        flags |= BULLETED | MARKED_UP
    if last & END:
        flags |= ENDED
    if last & TERMINAL:
        flags |= TERMINATED
    folded = last & FOLD
    dots = folded == _DOT and b - a >= 3 and codes[b - 2] & FOLD == _DOT and codes[b - 3] & FOLD == _DOT
    if folded == 0x2026 or dots:
        flags |= ELLIPSIS
    if last & PLAIN_END and not dots:
        flags |= PLAINLY_ENDED
    folded = first & FOLD
    if folded == 0x23 or folded == 0x7C or folded == 0x60 or folded == 0x3E:
        flags |= MARKED_UP
    return flags


@subkernel
def _hash_unit(codes, j, until):
    """(hash, kind) of the unit codes[j:until]; the hash of the folded characters."""
    h = np.uint64(until - j)
    kind = CAPITAL if codes[j] & UPPER else 0
    if until - j == 1:
        if codes[j] & UNSPACED:
            kind |= IDEOGRAM | WORD
        elif codes[j] & TERMINAL:
            kind |= STOP
    while j < until:
        value = codes[j]
        h = (h ^ np.uint64(value & FOLD)) * _MULTIPLIER
        h ^= h >> _SHIFT
        if value & LETTER:
            kind |= WORD | HAS_LETTER
        elif value & DIGIT:
            kind |= WORD | HAS_DIGIT
        elif not value & SYMBOL:
            kind |= WORD
        j += 1
    if not kind & WORD:
        kind |= MARK
    h *= _MIX
    return h ^ (h >> _SHIFT), kind


@subkernel
def _hash_units(codes, a, unit, end, cuts, hashes, lengths, kinds):
    """Hash, length and kind of units [unit, end) of the line that begins at a; (sentences, words)."""
    sentences = 1
    stopped = False
    words = 0
    j = a
    while unit < end:
        while codes[j] & SPACE:
            j += 1
        until = cuts[unit]
        h, kind = _hash_unit(codes, j, until)
        hashes[unit] = h
        lengths[unit] = until - j
        kinds[unit] = kind
        if kind & WORD:
            words += 1
        if kind & STOP:
            stopped = True
        elif stopped and not kind & MARK:
            sentences += 1
            stopped = False
        j = until
        unit += 1
    return sentences, words


@subkernel
def _cut_line(codes, a, b, at, cuts):  # noqa: C901
    """Ends of the units of a line; (new `at`, hash of the line, chunks between blanks, flags by its characters)."""
    h = np.uint64(b - a)
    letters = capitals = others = pieces = 0
    flags = 0
    j = a
    while j < b:
        if codes[j] & SPACE:
            h = (h ^ np.uint64(32)) * _MULTIPLIER
            j += 1
            continue
        pieces += 1
        chunk = run = j
        while j < b and not codes[j] & SPACE:
            value = codes[j]
            h = (h ^ np.uint64(value)) * _MULTIPLIER
            h ^= h >> _SHIFT
            if value & LETTER:
                letters += 1
                capitals += value & UPPER != 0
            elif not value & DIGIT:
                others += 1
                if value & FOLD == 0x7B:
                    flags |= CURLY
            if value & UNSPACED:
                if run < j:
                    at = _cut(codes, run, j, at, cuts)
                cuts[at] = j + 1
                at += 1
                run = j + 1
            j += 1
        if run < j:
            at = _cut(codes, run, j, at, cuts)
        if j - chunk > 1000:
            flags |= LONG_WORD
    h *= _MIX
    if letters == 0 and b - a > others:
        flags |= NUMERIC
    if letters >= 4 and 2 * capitals > letters:
        flags |= CAPITALS
    return at, h ^ (h >> _SHIFT), pieces, flags


@subkernel
def cut_units(codes, lines, count, cuts, hashes, lengths, kinds, line_hashes):
    """Units of each line, and what the lines look like; returns the number of units.

    Lines in `lines` are stripped (L_FROM, L_TO move inwards); empty ones keep L_FROM == L_TO and part paragraphs.
    """
    at = 0
    paragraph = 0
    open_paragraph = False
    for line in range(count):
        a, b = lines[line, L_FROM], lines[line, L_TO]
        lines[line, L_RAW] = b - a
        while a < b and codes[a] & SPACE:
            a += 1
        while b > a and codes[b - 1] & SPACE:
            b -= 1
        lines[line, L_FROM], lines[line, L_TO] = a, b
        lines[line, L_UNIT] = at
        for column in range(L_UNITS, L_PARAGRAPH):
            lines[line, column] = 0
        if a == b:
            paragraph += open_paragraph
            open_paragraph = False
            lines[line, L_PARAGRAPH] = -1
            continue
        open_paragraph = True
        lines[line, L_PARAGRAPH] = paragraph
        begin = at
        at, line_hashes[line], lines[line, L_PIECES], flags = _cut_line(codes, a, b, at, cuts)
        lines[line, L_SENTENCES], lines[line, L_WORDS] = _hash_units(codes, a, begin, at, cuts, hashes, lengths, kinds)
        lines[line, L_UNITS] = at - begin
        lines[line, L_FLAGS] = flags | _edges(codes, a, b)
    return at
