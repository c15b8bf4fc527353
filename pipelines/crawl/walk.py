"""From start to start through a file of records: damage, where reading goes on after it, and units inside files.

The walk from the file's first byte is what the file holds, by definition.  A unit must find the same without
reading from the first byte, so it needs an *anchor*: a place before it that the whole walk surely comes to.  A
place that merely looks like a start may lie inside a payload that is itself an archive.  But deflate and zstd
show a payload's bytes only in runs of at most one stored block, so a chain of whole members that is longer than
such a block cannot lie in a payload: its first member is an anchor.  From there the unit walks as the whole does.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass

from pipelines.crawl.items import Damage, Item, WarcBounds
from pipelines.crawl.members import BLOCK_BYTES, BrokenError
from pipelines.crawl.sources import Source

_FIRST_LOOK_BACK = 256 << 10
_FAR = 64 << 20
_FIRST_LOOK_BYTES = 4 << 10


@dataclass(frozen=True, slots=True)
class Form:
    """Packed or plain records.

    `find` gives the next place in [at, end) that looks like a start, `begins` tells whether a place does.  `read`
    gives the items that start at a place and returns where the next start is; `BrokenError` where they are not
    whole.  `quick` does the same for the usual case, one whole record, and gives None for any other.  `skip` is
    `quick` without a record.  `block_bytes` is the longest run of payload bytes that can show in the file, None
    where there is no bound to it.
    """

    find: Callable[[Source, int, int], int | None]
    begins: Callable[[Source, int], bool]
    read: Callable[[Source, int, WarcBounds], Generator[Item, None, int]]
    quick: Callable[[Source, int, WarcBounds], tuple[Item, int] | None]
    skip: Callable[[Source, int, WarcBounds], int | None]
    block_bytes: int | None


def walk_range(source: Source, start: int, end: int, bounds: WarcBounds, forms: tuple[Form, ...]) -> Iterator[Item]:
    """The items of the whole walk whose offset is in [start, end)."""
    anchor = _anchor(source, start, end, bounds, forms[0])
    if anchor is None:
        return
    if start == 0 and end >= source.size_bytes:
        yield from _walk(source, anchor, start, end, bounds, forms)
        return
    for item in _walk(source, anchor, start, end, bounds, forms):
        if start <= item.offset < end:
            yield item


def _walk(
    source: Source, at: int | None, start: int, end: int, bounds: WarcBounds, forms: tuple[Form, ...]
) -> Iterator[Item]:
    """Items from a true start on, in the file's own form; the other one only where the own has no more starts."""
    form = forms[0]
    seen = at != 0
    while at is not None and at < end:
        if at < start and (after := form.skip(source, at, bounds)) is not None:
            at, seen = after, True
            continue
        quick = form.quick(source, at, bounds)
        if quick is not None:
            seen = True
            yield quick[0]
            at = quick[1]
            continue
        stream = form.read(source, at, bounds)
        given = 0
        try:
            while True:
                try:
                    item = next(stream)
                except StopIteration as stop:
                    at = stop.value
                    break
                given += 1
                seen = True
                yield item
        except BrokenError as error:
            reason, detail = error.reason, error.detail
            found, form = _resume(source, at + 1, form, forms)
            if found is None and not seen and not reason.startswith("bad_") and not form.begins(source, at):
                reason, detail = "not_a_warc", "no WARC record in this file"
            stop_at = source.size_bytes if found is None else found
            yield Damage(offset=at, length=stop_at - at, index=given, reason=reason, detail=detail)
            seen = True
            at = stop_at


def _resume(source: Source, at: int, form: Form, forms: tuple[Form, ...]) -> tuple[int | None, Form]:
    """Where to go on after a damage, and in which form."""
    for candidate in (form, *(f for f in forms if f is not form)):
        found = candidate.find(source, at, source.size_bytes)
        if found is not None:
            return found, candidate
    return None, form


def _anchor(source: Source, start: int, end: int, bounds: WarcBounds, form: Form) -> int | None:
    """A place at or before `start` that the whole walk comes to; None where nothing starts in [start, end)."""
    back = _FIRST_LOOK_BACK
    while form.block_bytes is not None and back < start:
        at = form.find(source, start - back, start)
        while at is not None:
            reached = _chain(source, at, at + form.block_bytes + 1, bounds, form)
            if reached > at + form.block_bytes:
                return at
            at = form.find(source, max(reached, at + 1), start)
        if back >= _FAR and form.find(source, start, end) is None:
            return None  # far inside one member of the size of a file: not worth inflating it for each unit
        back *= 8
    return 0


def _chain(source: Source, at: int, enough: int, bounds: WarcBounds, form: Form) -> int:
    """How far whole members follow each other from `at` on, up to `enough`."""
    while at < enough and at < source.size_bytes:
        after = form.skip(source, at, bounds)
        if after is None:
            stream = form.read(source, at, bounds)
            try:
                while True:
                    next(stream)
            except StopIteration as stop:
                after = stop.value
            except BrokenError:
                return at
        at = after
    return at


def scan(
    source: Source, at: int, end: int, mark: bytes, skip: int, begins: Callable[[Source, int], bool]
) -> int | None:
    """First place before `end` where `mark` stands at or after `at` and what follows it begins a record."""
    look = _FIRST_LOOK_BYTES
    while at < end:
        block = source.read(at, min(look, end - at + len(mark)))
        look = BLOCK_BYTES
        if len(block) < len(mark):
            return None
        hit = block.find(mark)
        while hit >= 0:
            place = at + hit + skip
            if place >= end:
                return None
            if begins(source, place):
                return place
            hit = block.find(mark, hit + 1)
        at += len(block) - len(mark) + 1
    return None
