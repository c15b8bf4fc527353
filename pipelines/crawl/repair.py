"""Text that was encoded twice: its bytes were read in the wrong charset and what came out was stored as UTF-8.

Only on strong evidence: nearly every foreign letter of the page must belong to runs that, as bytes, read as UTF-8
(`Ã©`, `ä¸\xad`), or the whole page must be Latin letters that read far better as another charset (`ÖÐÎÄ`).
"""

from __future__ import annotations

import functools
import re

_SPECIALS = bytes(octet for octet in range(0x80, 0xA0) if octet not in (0x81, 0x8D, 0x8F, 0x90, 0x9D)).decode("cp1252")
_RUN = re.compile(f"[\x80-\xff{_SPECIALS}]+")
# Marks stand alone on sound pages in every language; they say nothing either way.
_ALONE = frozenset("\xa0«»–’“”©—…·•„°‘®€§£™×‹›´")
_LOOKED_AT = 1 << 14
_MIN_CHARACTERS = 24
_MIN_RUNS = 4
_MIN_SHARE = 0.95
_MIN_GAIN = 60.0  # nats over reading the page as it stands, and a letter
_MIN_GAIN_A_LETTER = 2.0


def encoded_once(text: str) -> str | None:
    """The text with the second encoding undone; None where there was none."""
    runs = [run for run in _RUN.findall(text[:_LOOKED_AT]) if len(run) > 1 or run not in _ALONE]
    letters = sum(map(len, runs))
    pairs = [run for run in runs if len(run) > 1]
    if letters < _MIN_CHARACTERS or sum(map(len, pairs)) < _MIN_SHARE * letters:
        return None
    undone = [run for run in pairs if _as_utf8(run) is not None]
    many = len(undone) >= _MIN_RUNS or letters >= 3 * _MIN_CHARACTERS
    if many and sum(map(len, undone)) >= _MIN_SHARE * letters:
        return _RUN.sub(lambda match: _as_utf8(match.group()) or match.group(), text)
    return _as_other(text)


def _as_utf8(run: str) -> str | None:
    try:
        return _octets(run).decode("utf-8") if len(run) > 1 else None
    except UnicodeDecodeError:
        return None


def _as_other(text: str) -> str | None:
    from pipelines.crawl.evidence import costs, sample_of
    from pipelines.crawl.labels import MULTIBYTE

    try:
        body = _octets(text)
    except UnicodeEncodeError:
        return None
    sample = sample_of(body, 2_048)
    found = costs(sample, {})
    best = min((*MULTIBYTE, "cp1251"), key=found.__getitem__)
    high = sum(octet >= 0x80 for octet in sample)
    gain = min(cost for name, cost in found.items() if name not in (*MULTIBYTE, "cp1251")) - found[best]
    if gain < max(_MIN_GAIN, _MIN_GAIN_A_LETTER * high):
        return None
    try:
        return body.decode(best)
    except UnicodeDecodeError:
        return None


def _octets(text: str) -> bytes:
    return text.translate(_back()).encode("latin-1")


@functools.cache
def _back() -> dict[int, int]:
    """What windows-1252 puts between 80 and 9F -> the byte; the rest is its own byte."""
    return {ord(char): char.encode("cp1252")[0] for char in _SPECIALS}
