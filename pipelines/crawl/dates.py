"""Dates as pages and addresses write them -> YYYY-MM-DD."""

from __future__ import annotations

import re
from datetime import date

EARLIEST = "1991-08-06"  # the first page
_NUMBERS = re.compile(r"(?<!\d)((?:19|20)\d\d)(?:[-/.年](\d{1,2})[-/.月](\d{1,2})|(\d\d)(\d\d))(?!\d{3})")
_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_NAMED = re.compile(
    r"(?:(?P<d1>\d{1,2})(?:st|nd|rd|th)?[\s-]{1,3})?(?P<m>jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec)[a-z]{0,6}\.?[\s-]{1,3}"
    r"(?:(?P<d2>\d{1,2})(?:st|nd|rd|th)?,?\s{1,3})?(?P<y>(?:19|20)\d\d)",
    re.IGNORECASE,
)
_URL = re.compile(
    r"(?<![\d])((?:19|20)\d\d)(?:/(\d{1,2})/(\d{1,2})|-(\d\d)[-/](\d\d)|/(\d\d)-?(\d\d)|(\d\d)/?(\d\d))(?=[/_.?#-]|$|[A-Za-z])"
)
_LOOKED_AT = 80


def read_date(written: str, latest: str) -> str | None:
    """The day that a date or time in ISO, Chinese or English form names, as written there; None if none or later."""
    head = written[:_LOOKED_AT]
    if (match := _NUMBERS.search(head)) is not None:
        year, month, day = match.group(1), match.group(2) or match.group(4), match.group(3) or match.group(5)
        return _valid(year, month, day, latest)
    match = _NAMED.search(head)
    if match is None or (match.group("d1") or match.group("d2")) is None:
        return None
    month = 1 + _MONTHS.index(match.group("m").lower())
    return _valid(match.group("y"), str(month), match.group("d1") or match.group("d2"), latest)


def date_in_url(url: str, latest: str) -> str | None:
    """The day in the path of an address: /2024/05/06/, /2024-05-06, /2024/0506/, /20240506/ and the like."""
    path = url[:2_000].partition("://")[2].partition("/")[2]
    for match in _URL.finditer(path):
        parts = [part for part in match.groups()[1:] if part is not None]
        if len(parts) == 2 and (found := _valid(match.group(1), *parts, latest)) is not None:
            return found
    return None


def _valid(year: str, month: str, day: str, latest: str) -> str | None:
    try:
        found = date(int(year), int(month), int(day)).isoformat()
    except ValueError:
        return None
    return found if EARLIEST <= found <= latest else None
