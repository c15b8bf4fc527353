"""Where personal data may lie: one compiled pass over bytes, so that a text without costs next to nothing."""

from __future__ import annotations

import numpy as np

from pipelines.kernels import kernel, subkernel

# what the pass over the bytes has seen: an @; a run of 7 digits; groups of digits; four numbers with dots; hex with
# colons; a capital after a Han character; the name of a messenger
AT, LONG, GROUPED, DOTTED, COLONS, PLATE, MESSENGER = 1, 2, 4, 8, 16, 32, 64
_START, _DIGIT, _HEX, _UPPER, _WORD = 1, 2, 4, 8, 16


def _classes() -> np.ndarray:
    """(256,) uint8: classes of bytes; _START is where a find may begin."""
    made = np.zeros(256, np.uint8)
    for characters, bit in (
        ("@0123456789:QqVvWwABCDEFGHIJKLMNOPQRSTUVWXYZ", _START),
        ("0123456789", _DIGIT | _HEX | _WORD),
        ("abcdefABCDEF:", _HEX),
        ("ABCDEFGHIJKLMNOPQRSTUVWXYZ", _UPPER | _WORD),
        ("abcdefghijklmnopqrstuvwxyz_", _WORD),
    ):
        for character in characters:
            made[ord(character)] |= np.uint8(bit)
    made[[0xEF, 0xE5, 0xE6]] |= np.uint8(_START)  # full-width forms; the first bytes of the messengers' names
    return made


_CLASS = _classes()


@subkernel
def _digit(data, i, end):
    """Bytes of the digit at i, plain or full-width; 0 for none."""
    if _CLASS[data[i]] & _DIGIT:
        return 1
    if data[i] == 0xEF and i + 2 < end and data[i + 1] == 0xBC and data[i + 2] >= 0x90 and data[i + 2] <= 0x99:
        return 3
    return 0


@subkernel
def _separator(data, j, end):
    """(kind, bytes) of what may part groups of digits at j: 1 dot, 2 dash or parenthesis, 3 blank, 0 none."""
    c = data[j]
    if c == 0x2E:
        return 1, 1
    if c == 0x2D or c == 0x28 or c == 0x29:
        return 2, 1
    if c == 0x20:
        return 3, 1
    if c == 0xE2 and j + 2 < end and data[j + 1] == 0x80 and data[j + 2] >= 0x90 and data[j + 2] <= 0x95:
        return 2, 3
    return 0, 0


@subkernel
def _number(data, start, i, end):  # noqa: C901
    """(end, what) of the digits that begin at i, with their separators; what is 0 for a number that is none of ours."""
    j = last = i
    digits = run = longest = first = second = pieces = 0
    dots = bars = spaces = 0
    wide = False
    while j < end and digits <= 40:
        width = _digit(data, j, end)
        if width:
            digits += 1
            run += 1
            wide |= width == 3
            j += width
            last = j
            if j < end:
                continue
        if run:
            pieces += 1
            longest = max(longest, run)
            first = run if pieces == 1 else first
            second = run if pieces == 2 else second
            run = 0
        elif data[j] != 0x28 and data[j] != 0x20:
            break
        if j >= end:
            break
        kind, width = _separator(data, j, end)
        if kind == 0:
            break
        dots += kind == 1
        bars += kind == 2
        spaces += kind == 3
        j += width
    century = i + 1 < end and ((data[i] == 0x32 and data[i + 1] == 0x30) or (data[i] == 0x31 and data[i + 1] == 0x39))
    is_date = first == 4 and century and second <= 2 and digits <= 16 and longest <= 4
    capital = i > start and (_CLASS[data[i - 1]] & _UPPER != 0 or data[i - 1] == 0x2B)
    capital |= last < end and _CLASS[data[last]] & _UPPER != 0
    decimal = dots > 0 and bars + spaces == 0
    what = 0
    if (longest >= 9 and not decimal) or (longest >= 7 and (capital or (pieces > 1 and not decimal))):
        what = LONG
    if dots >= 3 and digits >= 4:
        what |= DOTTED
    if not is_date and pieces > 1 and digits >= 7 and longest >= 3 and (bars + spaces > 0 or dots == 2):
        what |= GROUPED
    if wide and digits >= 7:
        what |= LONG | GROUPED
    return max(last, i + 1), what


@subkernel
def _colons(data, start, i, end):
    """(from, to) of hex digits and colons around the colon at i, (-1, -1) where they make no IPv6 address."""
    left = right = i
    while left > start and i - left < 40 and _CLASS[data[left - 1]] & _HEX:
        left -= 1
    while right < end and right - i < 40 and _CLASS[data[right]] & _HEX:
        right += 1
    colons = numbers = 0
    double = False
    for k in range(left, right):
        if data[k] == 0x3A:
            colons += 1
            double |= k + 1 < right and data[k + 1] == 0x3A
        elif data[k] <= 0x39:
            numbers += 1
    if colons >= 2 and numbers > 0 and (double or colons == 7):
        return left, right
    return -1, -1


@subkernel
def _plate(data, i, end):
    """Where the plate ends whose letter is at i, -1 for none."""
    numbers = seen = 0
    k = i + 1
    while k < end and seen < 7 and k - i < 12:
        kind = _CLASS[data[k]]
        if kind & (_DIGIT | _UPPER):
            seen += 1
            numbers += kind & _DIGIT
        elif not (data[k] == 0x20 or data[k] == 0x2D or data[k] >= 0x80):
            break
        k += 1
    return k if numbers and seen >= 5 else -1


@subkernel
def _messenger(data, i, end):
    """Where five letters or digits end that stand soon after the name of a messenger at i; -1 for none."""
    b, n = data[i] | 0x20, data[i + 1] | 0x20
    named = (b == 0x71 and n == 0x71) or (b == 0x76 and n == 0x78)  # qq, vx
    if i + 5 < end:
        third = data[i + 2]
        named |= b == 0x77 and n == 0x65 and (third | 0x20 == 0x63 or third | 0x20 == 0x69)  # wec, wei
        if data[i] == 0xE5:  # 微信
            named = data[i + 1] == 0xBE and third == 0xAE and data[i + 3] == 0xE4 and data[i + 5] == 0xA1
        elif data[i] == 0xE6:  # 扣扣
            named = data[i + 1] == 0x89 and third == 0xA3 and data[i + 3] == 0xE6 and data[i + 5] == 0xA3
    if not named:
        return -1
    k, letters = i + 2, 0
    while k < end and k - i < 40 and data[k] != 0x0A:
        letters = letters + 1 if _CLASS[data[k]] & _WORD else 0
        if letters >= 5:
            return k
        k += 1
    return -1


@subkernel
def _is_at(data, start, i, end):
    """Is the byte at i an @, plain or full-width, with something before and after it?"""
    width = 1
    if data[i] != 0x40:
        if not (data[i] == 0xEF and i + 2 < end and data[i + 1] == 0xBC and data[i + 2] == 0xA0):
            return False
        width = 3
    if i == start or i + width >= end:
        return False
    before, after = data[i - 1], data[i + width]
    return before > 0x2C and before != 0x2F and after > 0x2F and after != 0x40


@kernel
def _scan(data, offsets, counts, found):  # noqa: C901
    """Rows (from, to, what), in order of the texts, to `found`; how many a text has to `counts`, all told or not."""
    told = 0
    for row in range(offsets.shape[0] - 1):
        start, end = offsets[row], offsets[row + 1]
        i = start
        while i < end:
            kind = _CLASS[data[i]]
            if not kind & _START:
                i += 1
                continue
            low, high, what, after = i, i, 0, i + 1
            if _digit(data, i, end):
                after, what = _number(data, start, i, end)
                high = after
            elif _is_at(data, start, i, end):
                high, what = i + 1, AT
            elif data[i] == 0x3A:
                left, right = _colons(data, start, i, end)
                if left >= 0:
                    low, high, what, after = left, right, COLONS, right
            else:
                if kind & _UPPER and i > start and data[i - 1] >= 0x80:
                    high = _plate(data, i, end)
                    what = PLATE if high > 0 else 0
                if what == 0 and i + 1 < end:
                    high = _messenger(data, i, end)
                    what = MESSENGER if high > 0 else 0
            if what:
                if told < found.shape[0]:
                    found[told, 0], found[told, 1], found[told, 2] = low - start, high - start, what
                told += 1
                counts[row] += 1
            i = after


def find_places(data: np.ndarray, offsets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(n,) how many places of each text some kind may lie at; (k, 3) from, to, what of each, bytes of its text.

    A text with no place is clean.
    """
    room = 256
    while True:
        counts, found = np.zeros(len(offsets) - 1, np.int64), np.empty((room, 3), np.int64)
        _scan(data, offsets, counts, found)
        total = int(counts.sum())
        if total <= room:
            return counts, found[:total]
        room = total
