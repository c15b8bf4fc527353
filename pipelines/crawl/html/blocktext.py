"""Numbers of a block's own text: kinds of characters, how it ends, which phrases it holds."""

from __future__ import annotations

import numpy as np

from pipelines.crawl.html.columns import A_PHRASE, PHRASES
from pipelines.kernels import subkernel


@subkernel
def lower(c):
    """ASCII letters in lower case."""
    return c + 32 if 65 <= c <= 90 else c


@subkernel
def contains(text, start, stop, a, b):
    """Whether text[a:b] occurs in text[start:stop], case folded; both are short."""
    size = b - a
    for i in range(start, stop - size + 1):
        equal = True
        for j in range(size):
            if lower(text[i + j]) != lower(text[a + j]):
                equal = False
                break
        if equal:
            return True
    return False


@subkernel
def block_numbers(text, blocks, machine, out, tokens, sentences, same, hashes):
    """The block's own text: counts by character kind, ends, phrases."""
    classes, step, found = machine
    for b in range(len(blocks)):
        at = blocks[b, 0]
        stop = blocks[b, 1]
        letters = 0
        words = 0
        han = 0
        digits = 0
        upper = 0
        commas = 0
        ends = 0
        colons = 0
        bullets = 0
        in_word = False
        last_end = 0
        last = 0
        first = 0
        state = 0
        bits = np.uint32(0)
        hashed = np.uint64(0xCBF29CE484222325)
        i = at
        while i < stop:
            c = np.int64(text[i])
            if c < 128:
                state = step[state, classes[lower(c)]]
                bits |= found[state]
                i += 1
                if c <= 32:
                    in_word = False
                    continue
                hashed = (hashed ^ np.uint64(lower(c))) * np.uint64(0x100000001B3)
                code = c
            else:
                size = 2 if c < 0xE0 else 3 if c < 0xF0 else 4
                code = c & (0x1F if size == 2 else 0x0F if size == 3 else 0x07)
                state = step[state, classes[c]]
                bits |= found[state]
                hashed = (hashed ^ np.uint64(c)) * np.uint64(0x100000001B3)
                for j in range(1, min(size, stop - i)):
                    d = np.int64(text[i + j])
                    state = step[state, classes[d]]
                    bits |= found[state]
                    hashed = (hashed ^ np.uint64(d)) * np.uint64(0x100000001B3)
                    code = (code << 6) | (d & 63)
                i += size
            if first == 0:
                first = code
            letters += 1
            last = code
            last_end = 0
            if code < 128:
                if 97 <= code <= 122:
                    words += not in_word
                    in_word = True
                elif 65 <= code <= 90:
                    upper += 1
                    words += not in_word
                    in_word = True
                elif 48 <= code <= 57:
                    digits += 1
                    words += not in_word
                    in_word = True
                elif code == 39 or code == 45 or code == 95:
                    pass
                else:
                    if code == 44 or code == 59:
                        commas += 1
                    elif code == 33 or code == 63:
                        ends += 1
                        last_end = 1
                    elif code == 46:
                        if in_word and (i >= stop or text[i] <= 32 or text[i] == 34):
                            ends += 1
                            last_end = 1
                    elif code == 58:
                        colons += 1
                    elif code == 124 or code == 62 or code == 47 or code == 42:
                        bullets += 1
                    elif code == 34 or code == 41:
                        last_end = 2
                    in_word = False
            elif 0x3400 <= code <= 0x9FFF or 0x3040 <= code <= 0x30FF or 0xF900 <= code <= 0xFAFF or code >= 0x20000:
                han += 1
                words += 1
                in_word = False
            elif code == 0xFF0C or code == 0x3001 or code == 0xFF1B:
                commas += 1
                in_word = False
            elif code == 0x3002 or code == 0xFF01 or code == 0xFF1F or code == 0x2026:
                ends += 1
                last_end = 1
                in_word = False
            elif code == 0x201D or code == 0x300D or code == 0x2019 or code == 0xFF09:
                last_end = 2
                in_word = False
            elif code == 0xFF1A:
                colons += 1
                in_word = False
            elif (
                code == 0x00BB
                or code == 0x00B7
                or code == 0x2022
                or code == 0xFF5C
                or code == 0x203A
                or code == 0x25A0
                or code == 0x25CF
            ):
                bullets += 1
                in_word = False
            elif (
                (code >= 0x2000 and code <= 0x206F)
                or (code >= 0x3000 and code <= 0x303F)
                or (code >= 0xFF00 and code <= 0xFF0F)
            ):
                in_word = False
            else:
                words += not in_word
                in_word = True
        bytes_ = max(stop - at, 1)
        weight = max(words, 1)
        tokens[b] = words
        sentences[b] = ends + 0.5 * commas if words >= 5 else 0.0
        hashes[b] = hashed | np.uint64(1)
        row = out[b]
        row[0] = words
        row[1] = np.log(1.0 + words)
        row[2] = letters / weight
        row[3] = han / weight
        row[4] = digits / max(letters, 1)
        row[5] = upper / max(letters, 1)
        row[6] = commas / weight
        row[7] = ends / weight
        row[8] = colons / weight
        row[9] = bullets / weight
        row[10] = last_end
        row[11] = (
            1.0
            if last == 58 or last == 0xFF1A
            else 2.0
            if last == 44 or last == 0xFF0C
            else 3.0
            if 48 <= last <= 57
            else 0.0
        )
        row[12] = 97 <= first <= 122
        row[13] = 48 <= first <= 57
        row[14] = blocks[b, 3] / bytes_
        row[15] = blocks[b, 4]
        row[16] = blocks[b, 4] / weight
        row[17] = blocks[b, 5] / bytes_
        flags = blocks[b, 6]
        row[18] = flags & 1
        row[19] = (flags >> 1) & 1
        row[20] = (flags >> 2) & 1
        row[21] = (flags >> 3) & 1
        row[22] = (flags >> 4) & 1
        count = 0
        for p in range(PHRASES):
            hit = (bits >> np.uint32(p)) & np.uint32(1)
            row[A_PHRASE + p] = hit
            if hit and p < PHRASES - 2:
                count += 1
        row[26] = count
