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
_APOSTROPHE, _CURLY_APOSTROPHE, _DOT = 0x27, 0x2019, 0x2E
(_LENGTH, _VISIBLE, _HEAD_VISIBLE, _LETTERS, _ALNUM, _UNSPACED, _DIGITS, _UPPERS, _HASHES, _ELLIPSES, _STOPS,
 _BROKEN) = (
    FACT[name] for name in ("length", "visible", "head_visible", "letters", "alphanumeric", "unspaced", "digits",
                            "capitals", "hashes", "ellipses", "stops", "replacement_characters")
)  # fmt: skip


@subkernel
def decode(data, start, end, table, codes, lines, fact):  # noqa: C901
    """Text data[start:end] -> (characters of the head in `codes`, lines); counts of characters go to `fact`.

    `codes` holds table values; at most len(codes) characters are decoded, the rest only counted. Bytes that are no
    UTF-8 decode to U+FFFD, never beyond `end`.
    """
    most = codes.shape[0]
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
def _cut(codes, a, b, at, cuts):  # noqa: C901
    """Ends of the units of codes[a:b], which holds neither white space nor ideograms, to cuts[at] on; the new `at`."""
    while a < b:  # the front
        value = codes[a]
        folded = value & FOLD
        if not value & PEEL and folded != 0x2014 and folded != 0x2013:
            if not (folded == _DOT and a + 1 < b and codes[a + 1] & FOLD == _DOT):
                break
            run = a
            while run < b and codes[run] & FOLD == _DOT:
                run += 1
            cuts[at] = run
            at += 1
            a = run
            continue
        cuts[at] = a + 1
        at += 1
        a += 1
    if a == b:
        return at
    address = False
    for j in range(a, b - 3):
        if codes[j] & FOLD == 0x3A and codes[j + 1] & FOLD == 0x2F and codes[j + 2] & FOLD == 0x2F:
            address = True
            break
    stop = b  # the back: units from `stop` on are single marks, or a run of dots
    while stop > a:
        value = codes[stop - 1]
        folded = value & FOLD
        if folded == _DOT:
            run = stop
            while run > a and codes[run - 1] & FOLD == _DOT:
                run -= 1
            if stop - run == 1:
                if stop - 1 == a:
                    break
                before = codes[stop - 2]
                lone = before & UPPER and (stop - 2 == a or not codes[stop - 3] & UPPER)
                dotted = before & LETTER and stop - 2 > a and codes[stop - 3] & FOLD == _DOT
                if lone or dotted:
                    break
            stop = run
        elif value & PEEL or folded == 0x2014 or folded == 0x2013:
            stop -= 1
        else:
            break
    piece = a
    if not address:
        j = a + 1
        while j < stop - 1:
            value = codes[j]
            if value & LETTER or value & DIGIT:
                j += 1
                continue
            folded = value & FOLD
            before, after = codes[j - 1], codes[j + 1]
            letter_after = after & LETTER
            alnum_before = before & LETTER or before & DIGIT
            width = 0
            if value & PEEL_DASH or folded == 0x2F or folded == 0x3A or (folded >= 0x3C and folded <= 0x3E):
                if (alnum_before and letter_after) or (before & DIGIT and after & DIGIT and folded == 0x2D):
                    width = 1
                elif folded == 0x2D and after & FOLD == 0x2D and alnum_before and codes[j + 2] & LETTER:
                    width = 2
            elif folded == 0x2C:
                if before & LETTER and letter_after:
                    width = 1
            elif folded == _DOT:
                if after & FOLD == _DOT:
                    width = 2
                    while j + width < stop and codes[j + width] & FOLD == _DOT:
                        width += 1
                elif before & LOWER and after & UPPER:
                    width = 1
            elif folded == 0x2026 or (
                (folded == 0x2A or folded == 0x2B or folded == 0x5E) and before & DIGIT and after & DIGIT
            ):
                width = 1
            if width:
                cuts[at] = j
                at += 1
                cuts[at] = j + width
                at += 1
                piece = j + width
                j = piece
            j += 1
    if piece < stop:  # contractions: don't -> do n't, it's -> it 's
        split = stop
        size = stop - piece
        if size > 2 and not address:
            for back in range(2, min(size, 4)):
                folded = codes[stop - back] & FOLD
                if folded in (_APOSTROPHE, _CURLY_APOSTROPHE):
                    split = stop - back
                    if back == 2 and codes[stop - 1] & FOLD == 0x74 and codes[split - 1] & FOLD == 0x6E:
                        split -= 1
                    break
        if split > piece and split < stop:
            cuts[at] = split
            at += 1
            piece = split
        cuts[at] = stop
        at += 1
    while stop < b:
        run = stop + 1
        if codes[stop] & FOLD == _DOT:
            while run < b and codes[run] & FOLD == _DOT:
                run += 1
        cuts[at] = run
        at += 1
        stop = run
    return at


@subkernel
def cut_units(codes, lines, count, cuts, hashes, lengths, kinds, line_hashes):  # noqa: C901
    """Units of each line, and what the lines look like; returns the number of units.

    Lines in `lines` are stripped (L_FROM, L_TO move inwards); empty ones keep L_FROM == L_TO and part paragraphs.
    """
    at = 0
    paragraph = 0
    open_paragraph = False
    for line in range(count):
        a, b = lines[line, L_FROM], lines[line, L_TO]
        while a < b and codes[a] & SPACE:
            a += 1
        while b > a and codes[b - 1] & SPACE:
            b -= 1
        lines[line, L_RAW] = lines[line, L_TO] - lines[line, L_FROM]
        lines[line, L_FROM], lines[line, L_TO] = a, b
        lines[line, L_UNIT] = at
        for column in range(L_UNITS, L_PARAGRAPH):
            lines[line, column] = 0
        if a == b:
            if open_paragraph:
                paragraph += 1
                open_paragraph = False
            lines[line, L_PARAGRAPH] = -1
            continue
        open_paragraph = True
        lines[line, L_PARAGRAPH] = paragraph
        flags = 0
        first, last = codes[a], codes[b - 1]
        if first & BULLET:
            flags |= BULLETED
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
        if (
            folded == 0x23
            or folded == 0x7C
            or folded == 0x60
            or folded == 0x3E
            or flags & BULLETED
            or lines[line, L_BYTE_END] - lines[line, L_BYTE] < 1
        ):
            flags |= MARKED_UP
        h = np.uint64(b - a)
        letters = 0
        capitals = 0
        others = 0
        pieces = 0
        j = a
        while j < b:
            if codes[j] & SPACE:
                h = (h ^ np.uint64(32)) * _MULTIPLIER
                j += 1
                continue
            pieces += 1
            chunk = j
            run = j
            while j < b and not codes[j] & SPACE:
                value = codes[j]
                h = (h ^ np.uint64(value)) * _MULTIPLIER
                h ^= h >> _SHIFT
                if value & LETTER:
                    letters += 1
                    if value & UPPER:
                        capitals += 1
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
        line_hashes[line] = h ^ (h >> _SHIFT)
        if letters == 0 and b - a > others:
            flags |= NUMERIC
        if letters >= 4 and 2 * capitals > letters:
            flags |= CAPITALS
        sentences = 1
        stopped = False
        words = 0
        j = a
        for unit in range(lines[line, L_UNIT], at):
            while codes[j] & SPACE:
                j += 1
            until = cuts[unit]
            length = until - j
            h = np.uint64(length)
            kind = CAPITAL if codes[j] & UPPER else 0
            if length == 1:
                value = codes[j]
                if value & UNSPACED:
                    kind |= IDEOGRAM | WORD
                elif value & TERMINAL:
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
            hashes[unit] = h ^ (h >> _SHIFT)
            lengths[unit] = length
            kinds[unit] = kind
            if kind & WORD:
                words += 1
            if kind & STOP:
                stopped = True
            elif stopped and not kind & MARK:
                sentences += 1
                stopped = False
        lines[line, L_UNITS] = at - lines[line, L_UNIT]
        lines[line, L_WORDS] = words
        lines[line, L_FLAGS] = flags
        lines[line, L_SENTENCES] = sentences
        lines[line, L_PIECES] = pieces
    return at
