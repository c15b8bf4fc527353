"""Reading a page of a multi-byte charset in which some bytes are broken.

A stray or missing byte shifts every pair after it, and often no error shows before the run of foreign bytes ends.
So the run around each error is read anew as the cheapest sequence of characters and broken bytes (Viterbi over the
costs of `evidence.py`): one byte is given up and the rest falls into place.
"""

from __future__ import annotations

import codecs
import functools

from pipelines.crawl.evidence import characters_cost

_REACH = 768  # bytes of a run looked at on each side of an error
_BUDGET = 12_288  # bytes of runs of one page; about 20 ms at worst
_MAX_RUNS = 256  # each begins a decoder anew on the rest of the page
_BROKEN = 9.0  # nats: in a run that is known to be broken
_ASCII = 3.2
# Charset -> what reads the page where the first codec fails: ① and its like in EUC pages are row 13.
_WIDER = {"euc_jp": "euc_jis_2004"}


def read_broken(body: bytes, charset: str) -> str:
    """The page in a multi-byte charset, U+FFFD for what is broken.  Linear in the bytes."""
    if charset in _WIDER:
        try:
            return body.decode(_WIDER[charset])
        except UnicodeDecodeError:
            pass
    decode = codecs.getdecoder(charset)
    view = memoryview(body)
    pieces: list[str] = []
    at, budget, runs = 0, _BUDGET, 0
    while at < len(body):
        try:
            pieces.append(decode(view[at:], "strict")[0])
            break
        except UnicodeDecodeError as error:
            wrong = at + error.start
        start, end = _run(body, at, wrong)
        budget -= end - start
        runs += 1
        if budget < 0 or runs > _MAX_RUNS:
            pieces.append(decode(view[at:], "replace")[0])
            break
        pieces.append(decode(view[at:start], "replace")[0])
        pieces.append(_cheapest(body[start:end], charset))
        at = end
    return "".join(pieces)


def _run(body: bytes, first: int, wrong: int) -> tuple[int, int]:
    """The run around an error: from behind the last byte that can be no part of a character to the next such one."""
    start = wrong
    while start > first and wrong - start < _REACH and not _begins_anew(body[start - 1]):
        start -= 1
    end = wrong + 1
    while end < len(body) and end - wrong < _REACH and not _begins_anew(body[end]):
        end += 1
    return start, end


def _begins_anew(octet: int) -> bool:
    """No double-byte charset has this byte inside a character."""
    return octet < 0x30 or 0x3A <= octet <= 0x3F


def _cheapest(run: bytes, charset: str) -> str:
    """The run as the cheapest sequence of characters and broken bytes."""
    size = len(run)
    best = [0.0] + [float("inf")] * size
    came: list[tuple[int, str]] = [(0, "")] * (size + 1)
    for at in range(size):
        here = best[at]
        for length, char, cost in _readings(run[at : at + 4], charset):
            to = at + length
            if here + cost < best[to]:
                best[to] = here + cost
                came[to] = (at, char)
    chars: list[str] = []
    at = size
    while at > 0:
        at, char = came[at]
        chars.append(char)
    return "".join(reversed(chars))


@functools.lru_cache(maxsize=8_192)
def _readings(ahead: bytes, charset: str) -> tuple[tuple[int, str, float], ...]:
    """(bytes, character, cost) of what may begin here."""
    if ahead[0] < 0x80:
        return ((1, chr(ahead[0]), _ASCII),)
    found = [(1, "\ufffd", _BROKEN)]
    for length in range(1, len(ahead) + 1):
        try:
            char = ahead[:length].decode(charset)
        except UnicodeDecodeError:
            continue
        if len(char) == 1:
            found.append((length, char, float(characters_cost(char, charset)[0])))
    return tuple(found)
