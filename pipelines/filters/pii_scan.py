"""Where personal data may lie: one compiled pass over bytes, so that a text without costs next to nothing."""

from __future__ import annotations

import numpy as np

from pipelines.kernels import kernel

# what the pass over the bytes has seen: an @; a run of 7 digits; groups of digits; four numbers with dots; hex with
# colons; a capital after a Han character; the name of a messenger
AT, LONG, GROUPED, DOTTED, COLONS, PLATE, MESSENGER = 1, 2, 4, 8, 16, 32, 64
_INTERESTING = np.zeros(256, np.bool_)
_INTERESTING[[ord(c) for c in "@0123456789:QqVvWw"]] = True
_INTERESTING[ord("A") : ord("Z") + 1] = True
_INTERESTING[[0xEF, 0xE5, 0xE6]] = True  # full-width forms; the first bytes of the messengers' names


@kernel
def find_candidates(data, start, end, found):  # noqa: C901
    """Rows (from, to, what) of data[start:end] where some kind may lie; returns how many, which may be more than
    `found` holds."""
    count = 0
    i = start
    while i < end:
        b = data[i]
        if not _INTERESTING[b]:
            i += 1
            continue
        low, high, what = -1, -1, 0
        if b == 0x40 or (b == 0xEF and i + 2 < end and data[i + 1] == 0xBC and data[i + 2] == 0xA0):
            before = data[i - 1] if i > start else np.uint8(0x20)
            after = data[i + (1 if b == 0x40 else 3)] if i + 3 < end else np.uint8(0x20)
            if (before > 0x2C and before != 0x2F) and (after > 0x2F and after != 0x40):
                low, high, what = i, i + 1, AT
            else:
                i += 1
                continue
        elif (b >= 0x30 and b <= 0x39) or (
            b == 0xEF and i + 2 < end and data[i + 1] == 0xBC and data[i + 2] >= 0x90 and data[i + 2] <= 0x99
        ):
            j = i
            digits = run = longest = first = second = pieces = dots = bars = spaces = last = 0
            wide = False
            while j < end:
                c = data[j]
                if c >= 0x30 and c <= 0x39:
                    digits += 1
                    run += 1
                    j += 1
                    last = j
                    continue
                if c == 0xEF and j + 2 < end and data[j + 1] == 0xBC and data[j + 2] >= 0x90 and data[j + 2] <= 0x99:
                    digits += 1
                    run += 1
                    j += 3
                    last = j
                    wide = True
                    continue
                if run:
                    pieces += 1
                    if pieces == 1:
                        first = run
                    elif pieces == 2:
                        second = run
                    longest = max(longest, run)
                    run = 0
                elif j > i and c != 0x28 and c != 0x20:
                    break
                if c == 0x2E:
                    dots += 1
                elif c == 0x2D or c == 0x28 or c == 0x29:
                    bars += 1
                elif c == 0x20:
                    spaces += 1
                elif c == 0xE2 and j + 2 < end and data[j + 1] == 0x80 and data[j + 2] >= 0x90 and data[j + 2] <= 0x95:
                    bars += 1
                    j += 2
                else:
                    break
                j += 1
                if digits > 40:
                    break
            if run:
                pieces += 1
                longest = max(longest, run)
                if pieces == 1:
                    first = run
                elif pieces == 2:
                    second = run
            century = (data[i] == 0x32 and i + 1 < end and data[i + 1] == 0x30) or (
                data[i] == 0x31 and i + 1 < end and data[i + 1] == 0x39
            )
            is_date = first == 4 and century and second <= 2 and digits <= 16 and longest <= 4
            low, high = i, last
            capital = i > start and ((data[i - 1] >= 0x41 and data[i - 1] <= 0x5A) or data[i - 1] == 0x2B)
            capital |= last < end and data[last] >= 0x41 and data[last] <= 0x5A
            decimal = dots and not bars and not spaces
            if (longest >= 9 and not decimal) or (longest >= 7 and (capital or (pieces > 1 and not decimal))):
                what = LONG
            if dots >= 3 and digits >= 4:
                what |= DOTTED
            if not is_date and pieces > 1 and digits >= 7 and longest >= 3 and (bars or spaces or dots == 2):
                what |= GROUPED
            if wide and digits >= 7:
                what |= LONG | GROUPED
            if what == 0:
                low = -1
            if low < 0:
                i = max(last, i + 1)
                continue
        elif b == 0x3A and i > start and i + 1 < end:
            left, right, colons, double, numbers = i, i, 0, False, 0
            while left > start and i - left < 40:
                c = data[left - 1]
                if not ((c >= 0x30 and c <= 0x3A) or (c >= 0x61 and c <= 0x66) or (c >= 0x41 and c <= 0x46)):
                    break
                left -= 1
            while right < end and right - i < 40:
                c = data[right]
                if not ((c >= 0x30 and c <= 0x3A) or (c >= 0x61 and c <= 0x66) or (c >= 0x41 and c <= 0x46)):
                    break
                right += 1
            for k in range(left, right):
                if data[k] == 0x3A:
                    colons += 1
                    if k + 1 < right and data[k + 1] == 0x3A:
                        double = True
                elif data[k] <= 0x39:
                    numbers += 1
            if colons >= 2 and numbers > 0 and (double or colons == 7):
                low, high, what = left, right, COLONS
                i = max(i, right - 1)
        elif b >= 0x41 and b <= 0x5A and i > start and data[i - 1] >= 0x80 and i + 5 < end:
            numbers, k, seen = 0, i + 1, 0
            while k < end and seen < 7 and k - i < 12:
                c = data[k]
                if c >= 0x30 and c <= 0x39:
                    numbers += 1
                    seen += 1
                elif c >= 0x41 and c <= 0x5A:
                    seen += 1
                elif not (c == 0x20 or c == 0x2D or c >= 0x80):
                    break
                k += 1
            if numbers >= 1 and seen >= 5:
                low, high, what = i, k, PLATE
        if low < 0 and i + 1 < end:
            n = data[i + 1]
            is_qq = (b == 0x51 or b == 0x71) and (n == 0x51 or n == 0x71)
            is_vx = (b == 0x56 or b == 0x76) and (n == 0x58 or n == 0x78)
            is_we = (
                (b == 0x57 or b == 0x77)
                and (n == 0x45 or n == 0x65)
                and i + 5 < end
                and (data[i + 2] | 0x20 == 0x63 or data[i + 2] | 0x20 == 0x69)
            )
            is_han = (
                b == 0xE5
                and n == 0xBE
                and i + 5 < end
                and data[i + 2] == 0xAE
                and data[i + 3] == 0xE4
                and data[i + 4] == 0xBF
                and data[i + 5] == 0xA1
            )
            is_kou = (
                b == 0xE6
                and n == 0x89
                and i + 5 < end
                and data[i + 2] == 0xA3
                and data[i + 3] == 0xE6
                and data[i + 4] == 0x89
            )
            if is_qq or is_vx or is_we or is_han or is_kou:
                k = i + 2
                letters = 0
                while k < end and k - i < 40 and data[k] != 0x0A:
                    c = data[k]
                    if (c >= 0x30 and c <= 0x39) or (c | 0x20 >= 0x61 and c | 0x20 <= 0x7A) or c == 0x5F:
                        letters += 1
                    else:
                        letters = 0
                    if letters >= 5:
                        low, high, what = i, k, MESSENGER
                        break
                    k += 1
        if low >= 0:
            if count < found.shape[0]:
                found[count, 0], found[count, 1], found[count, 2] = low, high, what
            count += 1
            i = i + 1 if what >= PLATE else max(i + 1, high)
        else:
            i += 1
    return count


@kernel
def _flag(data, offsets, counts):
    nothing = np.empty((0, 3), np.int64)
    for row in range(offsets.shape[0] - 1):
        counts[row] = find_candidates(data, offsets[row], offsets[row + 1], nothing)


def candidate_counts(data: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    """(n,) how many places of each text some kind may lie at; 0 means that the text is clean."""
    counts = np.zeros(len(offsets) - 1, np.int64)
    _flag(data, offsets, counts)
    return counts
