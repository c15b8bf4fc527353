"""Personal data in text: found with check digits and context, replaced by typed placeholders, told by spans.

A compiled pass over the bytes looks for what any kind needs (an @, a long run of digits, a plate, a messenger's name);
a text without is never decoded. Around each find the patterns run on a window of a few hundred characters, full-width
forms narrowed one to one, so cost is linear and offsets hold. Look-arounds are ASCII ones: `\\b` has no border between
Han and Latin characters. What fails its checksum, its date or its context stays.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np

from pipelines.filters import pii_checks as checks
from pipelines.kernels import kernel

PLACEHOLDERS = {
    "email": "[email]", "ipv4": "[ip]", "ipv6": "[ip]", "cn_id": "[id]", "tw_id": "[id]", "hk_id": "[id]",
    "us_ssn": "[id]", "cn_passport": "[passport]", "bank_card": "[card]", "iban": "[account]", "cn_company": "[company]",
    "cn_mobile": "[phone]", "cn_landline": "[phone]", "phone": "[phone]", "cn_plate": "[plate]", "qq": "[qq]",
    "wechat": "[wechat]",
}  # fmt: skip
KINDS = tuple(PLACEHOLDERS)
_BEFORE, _AFTER = 120, 100  # bytes of a window on either side of a find
_MOST_WINDOW = 4_000


@dataclass(frozen=True, slots=True, order=True)
class Span:
    """Characters [start, end) of the text before masking, and the kind found there."""

    start: int
    end: int
    kind: str


# what the pass over the bytes has seen: an @; a run of 7 digits; groups of digits; four numbers with dots; hex with
# colons; a capital after a Han character; the name of a messenger
AT, LONG, GROUPED, DOTTED, COLONS, PLATE, MESSENGER = 1, 2, 4, 8, 16, 32, 64
_MASKS = {
    "email": AT, "cn_id": LONG, "tw_id": LONG, "hk_id": GROUPED, "us_ssn": GROUPED, "cn_passport": LONG,
    "bank_card": LONG | GROUPED, "iban": LONG | GROUPED, "cn_company": LONG, "cn_mobile": LONG | GROUPED,
    "cn_landline": LONG | GROUPED, "phone": LONG | GROUPED, "cn_plate": PLATE, "qq": MESSENGER, "wechat": MESSENGER,
    "ipv4": DOTTED, "ipv6": COLONS,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class _Finder:
    kind: str
    pattern: re.Pattern[str]
    is_right: Callable[[re.Match[str]], bool]
    group: int = 0

    @property
    def mask(self) -> int:
        """Finds of the pass over the bytes that call for this pattern."""
        return _MASKS[self.kind]


_NARROW = {0xFF01 + i: 0x21 + i for i in range(94)} | {0x3000: 0x20, 0x2013: 0x2D, 0x2014: 0x2D, 0x2010: 0x2D}
_WIDE = re.compile("[\uff01-\uff5e\u3000\u2010\u2013\u2014]")
_NO_BEFORE = r"(?<![0-9A-Za-z_/=&%#])(?<![0-9][.\-])"
_NO_AFTER = r"(?![0-9A-Za-z_])(?![.\-][0-9])"


def _finders() -> tuple[_Finder, ...]:
    """Every kind, the surest first: of overlapping finds the first stays."""

    def compiled(pattern: str, flags: int = 0) -> re.Pattern[str]:
        return re.compile(pattern, flags)

    def always(match: re.Match[str]) -> bool:
        return True

    return (
        _Finder(
            "email",
            compiled(
                r"(?<![A-Za-z0-9._%+\-])[A-Za-z0-9][A-Za-z0-9._%+\-]{0,63}@"
                r"(?:[A-Za-z0-9](?:[A-Za-z0-9\-]{0,61}[A-Za-z0-9])?\.){1,6}[A-Za-z]{2,24}(?![A-Za-z0-9\-@])"
            ),
            checks.is_address,
        ),
        _Finder("cn_id", compiled(r"(?<![0-9A-Za-z])[1-8][0-9]{16}[0-9Xx](?![0-9A-Za-z])"), checks.is_chinese_id),
        _Finder(
            "cn_company", compiled(r"(?<![0-9A-Za-z])[159ANY][0-9A-HJ-NPQRTUWXY][0-9]{6}[0-9A-HJ-NPQRTUWXY]{10}(?![0-9A-Za-z])"),
            checks.is_company_code,
        ),
        _Finder(
            "iban", compiled(r"(?<![0-9A-Za-z])[A-Z]{2}[0-9]{2}(?: ?[A-Z0-9]{4}){2,7}(?: ?[A-Z0-9]{1,3})?(?![0-9A-Za-z])"),
            checks.is_iban,
        ),
        _Finder(
            "bank_card", compiled(_NO_BEFORE + r"[2-6][0-9]{3}(?:[ \-]?[0-9]{4}){2}[ \-]?[0-9]{4}(?:[ \-]?[0-9]{1,3})?" + _NO_AFTER),
            checks.is_card,
        ),
        _Finder("bank_card", compiled(_NO_BEFORE + r"3[47][0-9]{2}[ \-]?[0-9]{6}[ \-]?[0-9]{5}" + _NO_AFTER), checks.is_card),
        _Finder(
            "cn_mobile",
            compiled(
                _NO_BEFORE + r"(?:(?:\+|00)?86[ \-]{0,2}|\(\+?86\) ?)?1[3-9][0-9](?:[ \-]?[0-9]{4}){2}" + _NO_AFTER
            ),
            checks.is_alone,
        ),
        _Finder(
            "cn_landline",
            compiled(
                r"(?<![0-9A-Za-z_/=&%#.])(?<![0-9]-)(?:(?:\+|00)?86[ \-]?)?(?:\(0?[1-9][0-9]{1,2}\) ?|0[1-9][0-9]{1,2}[ \-]{1,3})"
                r"[1-9][0-9]{2,3}[ \-]?[0-9]{4}(?:[ \-]{1,2}[0-9]{1,5}(?![0-9]))?" + _NO_AFTER
            ),
            checks.is_landline,
        ),
        _Finder(
            "cn_landline",
            compiled(r"(?<![0-9A-Za-z_/=&%#.\-])0(?:10|2[0-57-9])[1-9][0-9]{7}(?![0-9A-Za-z_])"),
            checks.after_phone_word,
        ),
        _Finder("us_ssn", compiled(r"(?<![0-9A-Za-z\-.])[0-9]{3}-[0-9]{2}-[0-9]{4}(?![0-9A-Za-z\-])"), checks.is_ssn),
        _Finder(
            "phone", compiled(r"(?<![0-9A-Za-z_/=&%#+])\+[1-9][0-9]{0,2}(?:[ .\-]?\(?[0-9]{1,5}\)?){2,6}" + _NO_AFTER),
            checks.is_international,
        ),
        _Finder(
            "phone",
            compiled(
                r"(?<![0-9A-Za-z_/=&%#.])(?<![0-9]-)(?:\+?1[ \-.])?(?:\([2-9][0-9]{2}\) ?|[2-9][0-9]{2}[ \-.])"
                r"[2-9][0-9]{2}[ \-.][0-9]{4}" + _NO_AFTER
            ),
            checks.is_american,
        ),
        _Finder(
            "phone",
            compiled(
                r"(?<![0-9A-Za-z_/=&%#.\-])(?:0[1-9][0-9] [0-9]{4} [0-9]{4}|0[1-9][0-9]{2} [0-9]{3} [0-9]{4}|0[1-9][0-9]{3} [0-9]{6}"
                r"|0[1-9][0-9]{3} [0-9]{3} [0-9]{3})" + _NO_AFTER
            ),
            checks.is_ungrouped,
        ),
        _Finder(
            "cn_passport", compiled(r"(?<![0-9A-Za-z])(?:[EGDSPK][0-9]{8}|[DSPEK][A-HJ-NP-Z][0-9]{7}|[PS][0-9]{7}|1[45][0-9]{7})(?![0-9A-Za-z])"),
            checks.after_passport_word,
        ),
        _Finder("tw_id", compiled(r"(?<![0-9A-Za-z])[A-Z][1289][0-9]{8}(?![0-9A-Za-z])"), checks.is_taiwan_id),
        _Finder("hk_id", compiled(r"(?<![0-9A-Za-z])[A-Z]{1,2}[0-9]{6}\([0-9A]\)"), checks.is_hong_kong_id),
        _Finder(
            "cn_plate",
            compiled(
                r"[京津沪渝冀豫云辽黑湘皖鲁新苏浙赣鄂桂甘晋蒙陕吉闽贵粤青藏川宁琼][A-HJ-NP-Z] ?[·•・\-]? ?"
                r"(?:[DF][A-HJ-NP-Z0-9][0-9]{4}|[0-9]{5}[DF]|[A-HJ-NP-Z0-9]{4}[A-HJ-NP-Z0-9挂学警港澳])(?![0-9A-Za-z])"
            ),
            checks.is_plate,
        ),
        _Finder(
            "qq",
            compiled(
                r"(?<![A-Za-z0-9])(?:QQ|扣扣|企鹅)(?:交流|讨论|技术|官方)?(?:号码|群号|群|号|帐号|账号|联系)? ?(?:ID)? ?[:是为]? ?"
                r"([1-9][0-9]{4,10})(?![0-9A-Za-z@.])", re.IGNORECASE,
            ),
            always, 1,
        ),
        _Finder(
            "wechat",
            compiled(
                r"(?:微信|薇信|(?<![A-Za-z])(?:wechat|weixin|vx)|V信)((?:号码|帐号|账号|号|同号)? ?(?:ID)? ?[:是为]{0,2} ?)"
                r"([A-Za-z][A-Za-z0-9_\-]{5,19})(?![A-Za-z0-9_\-@.])", re.IGNORECASE,
            ),
            checks.is_wechat, 2,
        ),
        _Finder(
            "ipv4",
            compiled(r"(?<![0-9A-Za-z._\-/])(?:[0-9]{1,3}\.){3}[0-9]{1,3}(?![0-9A-Za-z_])(?!\.[0-9])(?!-[0-9A-Za-z])"),
            checks.is_public_ipv4,
        ),
        _Finder(
            "ipv4", compiled(r"(?<=//)(?:[0-9]{1,3}\.){3}[0-9]{1,3}(?![0-9A-Za-z_])(?!\.[0-9])"), checks.is_public_ipv4,
        ),
        _Finder("ipv6", compiled(r"(?<![0-9A-Za-z:._])[0-9A-Fa-f]{0,4}(?::[0-9A-Fa-f]{0,4}){2,7}(?![0-9A-Za-z:])"), checks.is_public_ipv6),
    )  # fmt: skip


@cache
def _all_finders() -> tuple[_Finder, ...]:
    return _finders()


_INTERESTING = np.zeros(256, np.bool_)
_INTERESTING[[ord(c) for c in "@0123456789:QqVvWw"]] = True
_INTERESTING[ord("A") : ord("Z") + 1] = True
_INTERESTING[[0xEF, 0xE5, 0xE6]] = True  # full-width forms; the first bytes of the messengers' names


@kernel
def find_candidates(data, start, end, found):
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
        elif (b >= 0x30 and b <= 0x39) or (b == 0xEF and i + 2 < end and data[i + 1] == 0xBC and data[i + 2] >= 0x90 and data[i + 2] <= 0x99):
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
            century = data[i] == 0x32 and i + 1 < end and data[i + 1] == 0x30 or data[i] == 0x31 and i + 1 < end and data[i + 1] == 0x39
            is_date = first == 4 and century and second <= 2 and digits <= 16 and longest <= 4
            low, high = i, last
            capital = i > start and (data[i - 1] >= 0x41 and data[i - 1] <= 0x5A or data[i - 1] == 0x2B)
            capital |= last < end and data[last] >= 0x41 and data[last] <= 0x5A
            decimal = dots and not bars and not spaces
            if longest >= 9 and not decimal or longest >= 7 and (capital or pieces > 1 and not decimal):
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
            is_we = (b == 0x57 or b == 0x77) and (n == 0x45 or n == 0x65) and i + 5 < end and (data[i + 2] | 0x20 == 0x63 or data[i + 2] | 0x20 == 0x69)
            is_han = b == 0xE5 and n == 0xBE and i + 5 < end and data[i + 2] == 0xAE and data[i + 3] == 0xE4 and data[i + 4] == 0xBF and data[i + 5] == 0xA1
            is_kou = b == 0xE6 and n == 0x89 and i + 5 < end and data[i + 2] == 0xA3 and data[i + 3] == 0xE6 and data[i + 4] == 0x89
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


def find(text: bytes, kinds: Sequence[str] = KINDS) -> list[Span]:
    """Spans of a UTF-8 text, in order, none overlapping; offsets are characters."""
    data = np.frombuffer(text, np.uint8)
    room = 256
    while True:
        found = np.empty((room, 3), np.int64)
        count = find_candidates(data, 0, len(data), found)
        if count <= room:
            break
        room = count
    wanted = frozenset(kinds)
    spans: list[Span] = []
    at_byte = at_character = 0
    for low, high, what in _windows(found[:count], text):
        at_character += _characters(data[at_byte:low])
        at_byte = low
        spans.extend(_find_in(text[low:high].decode("utf-8", "replace"), at_character, what, wanted, spans))
    return spans


def mask(text: str, spans: Iterable[Span]) -> str:
    """The text with its spans replaced by placeholders."""
    pieces, at = [], 0
    for span in spans:
        pieces += [text[at : span.start], PLACEHOLDERS[span.kind]]
        at = span.end
    return "".join([*pieces, text[at:]])


def _windows(found: np.ndarray, text: bytes) -> Iterable[tuple[int, int, int]]:
    """(from, to, what) around the finds, joined where they touch, cut at characters; joined ones stay bounded."""
    low = high = -1
    seen = 0
    for begin, end, what in found.tolist():
        left, right = max(0, begin - _BEFORE), min(len(text), end + _AFTER)
        if high >= 0 and left <= high and right - low <= _MOST_WINDOW:
            high, seen = max(high, right), seen | what
            continue
        if high >= 0:
            yield *_whole(text, low, high), seen
        low, high, seen = left, right, what
    if high >= 0:
        yield *_whole(text, low, high), seen


def _whole(text: bytes, low: int, high: int) -> tuple[int, int]:
    while low > 0 and text[low] & 0xC0 == 0x80:
        low -= 1
    while high < len(text) and text[high] & 0xC0 == 0x80:
        high += 1
    return low, high


def _characters(data: np.ndarray) -> int:
    return int(np.count_nonzero((data & 0xC0) != 0x80))


def _find_in(window: str, start: int, what: int, wanted: frozenset[str], before: list[Span]) -> list[Span]:
    folded = window.translate(_NARROW) if _WIDE.search(window) else window
    taken: list[tuple[int, int]] = []
    if before and before[-1].end > start:
        taken.append((0, before[-1].end - start))
    found = []
    for finder in _all_finders():
        if not finder.mask & what or finder.kind not in wanted:
            continue
        for match in finder.pattern.finditer(folded):
            low, high = match.span(finder.group)
            if any(low < b and a < high for a, b in taken) or not finder.is_right(match):
                continue
            taken.append((low, high))
            found.append(Span(start + low, start + high, finder.kind))
    return sorted(found)
