"""Repetition within a text: duplicate lines and paragraphs, frequent and repeated n-grams (Gopher, table A1).

Counted as the published thresholds were: a frequent n-gram weighs its length (with the spaces between its words)
times its count; repeated n-grams are those seen earlier in a scan that steps over each repeat. In a script without
spaces n words are taken as so many units as n words of that text have on average, an ideogram being 1/1.6 of a word: so
that the published values hold without segmenting (docs/filters.md has the agreement). N-grams are told apart by a
64-bit hash. A table of open addressing is used again for every text; since an n-gram can repeat only where its first
and last (n-1)-grams repeat, longer sizes look at few places.
"""

from __future__ import annotations

import numpy as np

from pipelines.filters.facts import FACT
from pipelines.filters.scan import L_FROM, L_PARAGRAPH, L_TO, WORD
from pipelines.kernels import subkernel

SIZES = (2, 3, 4, 5, 6, 7, 8, 9, 10)  # words
DISTINCT_OF = 400  # the first words of a text, of which the distinct ones are counted
_BASE = np.uint64(0xD6E8FEB86659FD93)
_HASH = np.uint64(0x9E3779B97F4A7C15)
_SHIFT = np.uint64(20)
_TOP, _REPEATED = FACT["top_2"], FACT["repeated_5"]
_LINES, _LINE_CHARS = FACT["duplicate_lines"], FACT["duplicate_line_characters"]
_PARAGRAPHS, _DUP_PARAGRAPHS = FACT["paragraphs"], FACT["duplicate_paragraphs"]
_DUP_PARAGRAPH_CHARS, _PARAGRAPH_CHARS = FACT["duplicate_paragraph_characters"], FACT["paragraph_characters"]
_DISTINCT, _DISTINCT_OF = FACT["distinct_words"], FACT["distinct_of"]


@subkernel
def set_sizes(units, ideograms, a_word, sizes):
    """Sizes in units of n-grams of 2 to 10 words, for a text with so many units, of which so many are ideograms."""
    words = ideograms / a_word + (units - ideograms)
    for number in range(sizes.shape[0]):
        size = number + 2
        sizes[number] = size if ideograms == 0 else int(size * units / words + 0.5)


@subkernel
def find_slot(key, mask, stamp, keys, stamps, counts):
    """The slot of a key, taken with count 0 if the key is new to this stamp."""
    slot = np.int64((key * _HASH) >> _SHIFT) & mask
    while stamps[slot] == stamp and keys[slot] != key:
        slot = (slot + 1) & mask
    if stamps[slot] != stamp:
        stamps[slot] = stamp
        keys[slot] = key
        counts[slot] = 0
    return slot


@subkernel
def count_pieces(  # noqa: C901
    lines, line_count, line_hashes, unit_count, hashes, kinds, stamp, keys, stamps, counts, fact
):
    """Duplicate lines and paragraphs, distinct words. Uses three stamps, one after the other; returns the next one."""
    mask = np.int64(keys.shape[0] - 1)
    for line in range(line_count):
        if lines[line, L_PARAGRAPH] >= 0:
            slot = find_slot(line_hashes[line], mask, stamp, keys, stamps, counts)
            if counts[slot]:
                fact[_LINES] += 1
                fact[_LINE_CHARS] += lines[line, L_TO] - lines[line, L_FROM]
            counts[slot] = 1
    _paragraph, h, size, last = -1, np.uint64(0), 0, np.int64(-1)
    for line in range(line_count + 1):
        here = lines[line, L_PARAGRAPH] if line < line_count else np.int64(-2)
        if here == -1:
            continue
        if here != last and last >= 0:
            slot = find_slot(h, mask, stamp + 1, keys, stamps, counts)
            fact[_PARAGRAPHS] += 1
            fact[_PARAGRAPH_CHARS] += size
            if counts[slot]:
                fact[_DUP_PARAGRAPHS] += 1
                fact[_DUP_PARAGRAPH_CHARS] += size
            counts[slot] = 1
            h, size = np.uint64(0), 0
        if line == line_count:
            break
        last = here
        h = h * _BASE + line_hashes[line]
        size += lines[line, L_TO] - lines[line, L_FROM]
    of = 0
    for unit in range(unit_count):
        if kinds[unit] & WORD:
            slot = find_slot(hashes[unit], mask, stamp + 2, keys, stamps, counts)
            if counts[slot] == 0:
                fact[_DISTINCT] += 1
            counts[slot] = 1
            of += 1
            if of == DISTINCT_OF:
                break
    fact[_DISTINCT_OF] = of
    return stamp + 3


@subkernel
def count_grams(prefix, ends, units, sizes, stamp, keys, stamps, counts, firsts, slots, again, fact):  # noqa: C901
    """Characters of the most frequent n-gram times its count, and of repeated n-grams; returns the next free stamp.

    prefix: (units + 1,) running hash of the units; ends: (units + 1,) characters before each unit; slots, again:
    (units,) scratch. `again[i]` says that the n-gram at i occurs twice or more.
    """
    for i in range(units):
        again[i] = True
    mask = np.int64(15)
    while mask < 2 * units:
        mask = 2 * mask + 1
    before = 1
    for number in range(sizes.shape[0]):
        size = sizes[number]
        places = units - size + 1
        if places < 1:
            break
        power = np.uint64(1)
        for _ in range(size):
            power *= _BASE
        most, first = 1, 0
        for i in range(places):
            if again[i] and again[i + size - before]:
                slot = find_slot(prefix[i + size] - prefix[i] * power, mask, stamp, keys, stamps, counts)
                if counts[slot] == 0:
                    firsts[slot] = i
                counts[slot] += 1
                slots[i] = slot
                if counts[slot] > most or (counts[slot] == most and most > 1 and firsts[slot] < first):
                    most, first = counts[slot], firsts[slot]
            else:
                slots[i] = -1
        stamp += 1
        words = number + 2
        if most < 2:  # as published: of n-grams that all occur once the first is the most frequent
            if words > 4:
                break
            for later in range(number, 3):
                if sizes[later] <= units:
                    fact[_TOP + later] = ends[sizes[later]] + later + 1
            break
        if words <= 4:
            fact[_TOP + number] = (ends[first + size] - ends[first] + words - 1) * most
        for i in range(places):
            again[i] = slots[i] >= 0 and counts[slots[i]] > 1
        for i in range(places, units):
            again[i] = False
        if words >= 5:
            repeated = 0
            i = 0
            while i < places:
                if again[i]:
                    slot = slots[i]
                    if firsts[slot] < 0:
                        repeated += ends[i + size] - ends[i]
                        i += size
                        continue
                    firsts[slot] = -1  # seen by the scan
                i += 1
            fact[_REPEATED + words - 5] = repeated
        before = size
    return stamp
