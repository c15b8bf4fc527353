"""Words that a block shares with the title: other articles on the page share few."""

from __future__ import annotations

import numpy as np

from pipelines.crawl.html.blocktext import lower
from pipelines.crawl.html.columns import A_TERMS
from pipelines.kernels import subkernel


@subkernel
def _take_term(term, keys, numbers, adding, count):
    """(bit of the term or 0, number of terms)."""
    term |= np.uint64(1)
    slot = np.int64((term ^ (term >> np.uint64(29))) & np.uint64(255))
    while keys[slot] != 0:
        if keys[slot] == term:
            return np.uint64(1) << np.uint64(numbers[slot]), count
        slot = (slot + 1) & 255
    if not adding or count >= 64:
        return np.uint64(0), count
    keys[slot] = term
    numbers[slot] = count
    return np.uint64(1) << np.uint64(count), count + 1


@subkernel
def _terms_of(text, start, stop, keys, numbers, adding, count):
    """Bits of the terms that stand in text[start:stop], and how many terms there are.

    Terms are beginnings of words (six letters, which joins most inflected forms) and pairs of Han characters or kana.
    """
    found = np.uint64(0)
    word = np.uint64(0xCBF29CE484222325)
    letters = 0
    wide = False
    before = 0
    i = start
    while i <= stop:
        code = 32
        size = 1
        if i < stop:
            c = np.int64(text[i])
            if c < 128:
                code = lower(c)
            else:
                size = 2 if c < 0xE0 else 3 if c < 0xF0 else 4
                code = c & (0x1F if size == 2 else 0x0F if size == 3 else 0x07)
                for j in range(1, min(size, stop - i)):
                    code = (code << 6) | (np.int64(text[i + j]) & 63)
                if 0x0410 <= code <= 0x042F or 0x0391 <= code <= 0x03A9 or 0xC0 <= code <= 0xDE:
                    code += 32
        i += size
        if 0x3040 <= code <= 0x30FF or 0x3400 <= code <= 0x9FFF or 0xF900 <= code <= 0xFAFF or code >= 0x20000:
            if before > 0:
                bit, count = _take_term(
                    (np.uint64(before) * np.uint64(0x9E3779B97F4A7C15)) ^ (np.uint64(code) << np.uint64(7)),
                    keys,
                    numbers,
                    adding,
                    count,
                )
                found |= bit
            before = code
        else:
            before = 0
            is_letter = (
                97 <= code <= 122
                or 48 <= code <= 57
                or (code >= 0xC0 and not 0x2000 <= code <= 0x303F and not 0xFF00 <= code <= 0xFF0F)
            )
            if is_letter:
                if letters < 6:
                    word = (word ^ np.uint64(code)) * np.uint64(0x100000001B3)
                letters += 1
                wide = code >= 0xAC00
                continue
        if letters >= 4 or (wide and letters >= 2):
            bit, count = _take_term(word, keys, numbers, adding, count)
            found |= bit
        letters = 0
        wide = False
        word = np.uint64(0xCBF29CE484222325)
    return found, count


@subkernel
def _weight_of(bits, weights):
    total = 0.0
    k = 0
    while bits != 0:
        if bits & np.uint64(1):
            total += weights[k]
        bits >>= np.uint64(1)
        k += 1
    return total


@subkernel
def title_terms(text, title_start, title_end, out, blocks, nodes, groups):
    """How much of the title's words the block and what is around it share: other articles on the page share few."""
    n = len(blocks)
    m = len(nodes)
    keys = np.zeros(256, np.uint64)
    numbers = np.zeros(256, np.int64)
    _, count = _terms_of(text, title_start, title_end, keys, numbers, True, 0)
    if count == 0:
        for b in range(n):
            for k in range(8):
                out[b, A_TERMS + k] = -1.0
        return
    own = np.zeros(n, np.uint64)
    held = np.zeros(m, np.uint64)
    uses = np.zeros(64, np.int64)
    for b in range(n):
        if out[b, 25] > 0:  # a headline shares all of them
            continue
        bits, _ = _terms_of(text, blocks[b, 0], blocks[b, 1], keys, numbers, False, count)
        own[b] = bits
        held[blocks[b, 2]] |= bits
        k = 0
        while bits != 0:
            if bits & np.uint64(1):
                uses[k] += 1
            bits >>= np.uint64(1)
            k += 1
    for v in range(m - 1, 0, -1):
        held[nodes[v, 0]] |= held[v]
    weights = np.zeros(64, np.float64)
    whole = 0.0
    found = 0
    for k in range(count):
        weights[k] = 1.0 / np.sqrt(max(uses[k], 1))  # what stands everywhere is the site's name
        whole += weights[k]
        found += uses[k] > 0
    best = 0.0
    for b in range(n):
        near = np.uint64(0)
        for k in range(max(b - 3, 0), min(b + 4, n)):
            near |= own[k]
        row = out[b]
        row[A_TERMS] = _weight_of(own[b], weights) / whole
        row[A_TERMS + 1] = _weight_of(near, weights) / whole
        best = max(best, row[A_TERMS + 1])
        u = blocks[b, 2]
        for k in range(3):
            row[A_TERMS + 2 + k] = _weight_of(held[u], weights) / whole
            if nodes[u, 0] >= 0:
                u = nodes[u, 0]
        row[A_TERMS + 5] = _weight_of(held[groups[b, 3]], weights) / whole
    for b in range(n):
        out[b, A_TERMS + 6] = best
        out[b, A_TERMS + 7] = found / count
