"""Personal data in text: found with check digits and context, replaced by typed placeholders, told by spans.

A compiled pass over the bytes looks for what any kind needs (an @, a long run of digits, a plate, a messenger's name);
a text without is never decoded. Around each find the patterns run on a window of a few hundred characters, full-width
forms narrowed one to one, so cost is linear and offsets hold. Look-arounds are ASCII ones: `\\b` has no border between
Han and Latin characters. What fails its checksum, its date or its context stays.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from pipelines.filters.pii_patterns import finders
from pipelines.filters.pii_scan import find_places

PLACEHOLDERS = {
    "email": "[email]", "ipv4": "[ip]", "ipv6": "[ip]", "cn_id": "[id]", "tw_id": "[id]", "hk_id": "[id]",
    "us_ssn": "[id]", "cn_passport": "[passport]", "bank_card": "[card]", "iban": "[account]",
    "cn_company": "[company]",
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


_NARROW = {0xFF01 + i: 0x21 + i for i in range(94)} | {0x3000: 0x20, 0x2013: 0x2D, 0x2014: 0x2D, 0x2010: 0x2D}
_WIDE = re.compile("[\uff01-\uff5e\u3000\u2010\u2013\u2014]")


def find(text: bytes, kinds: Sequence[str] = KINDS, places: np.ndarray | None = None) -> list[Span]:
    """Spans of a UTF-8 text, in order, none overlapping; offsets are characters. `places`: of `find_places`."""
    data = np.frombuffer(text, np.uint8)
    if places is None:
        _, places = find_places(data, np.array([0, len(data)], np.int64))
    wanted = frozenset(kinds)
    spans: list[Span] = []
    at_byte = at_character = 0
    for low, high, what in _windows(places, text):
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
    for finder in finders():
        if not finder.mask & what or finder.kind not in wanted:
            continue
        for match in finder.pattern.finditer(folded):
            low, high = match.span(finder.group)
            if any(low < b and a < high for a, b in taken) or not finder.is_right(match):
                continue
            taken.append((low, high))
            found.append(Span(start + low, start + high, finder.kind))
    return sorted(found)
