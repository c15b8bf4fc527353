"""Spans of a text that leave it: how they are written beside the document, and how they are cut out.

A span is `from-to:rule`, from and to in characters (Unicode code points) of the text as it stands in the documents,
`to` not included; a text's spans rise, do not touch each other's characters and are joined by spaces, or null where
nothing leaves. So a person can read them and `text[:from] + text[to:]` is all there is to apply.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import pyarrow as pa

Span = tuple[int, int, str]  # from, to, rule


def span_schema(family: str) -> pa.Schema:
    """Columns of annotations that cut: `<family>.spans` and what the cut comes to."""
    docs = (
        ("id", pa.string(), "document id, as a check of the alignment"),
        (
            f"{family}.spans",
            pa.string(),
            "from-to:rule in characters of the text, joined by spaces; null: nothing leaves",
        ),
        (f"{family}.removed", pa.int64(), "characters that leave"),
        (f"{family}.kept_share", pa.float64(), "share of the characters that stay, on 1e-4; null for an empty text"),
        (f"{family}.hollow", pa.bool_(), "whether so little stays that the document should not"),
    )
    return pa.schema([pa.field(name, kind, metadata={"doc": doc}) for name, kind, doc in docs])


def write_spans(spans: Sequence[Span]) -> str | None:
    """As the column holds them."""
    return " ".join(f"{start}-{end}:{rule}" for start, end, rule in spans) or None


def read_spans(written: str | None) -> list[Span]:
    """The spans of one document."""
    spans = []
    for item in (written or "").split():
        place, _, rule = item.partition(":")
        start, _, end = place.partition("-")
        spans.append((int(start), int(end), rule))
    return spans


def join_spans(lists: Iterable[Sequence[Span]]) -> list[Span]:
    """Spans of several annotations as one list; what two of them would cut goes to the account of the first."""
    taken: list[Span] = []
    for spans in lists:
        free: list[Span] = []
        at = 0
        for start, end, rule in spans:
            while at < len(taken) and taken[at][1] <= start:
                at += 1
            low, k = start, at
            while k < len(taken) and taken[k][0] < end:
                if taken[k][0] > low:
                    free.append((low, taken[k][0], rule))
                low = max(low, taken[k][1])
                k += 1
            if low < end:
                free.append((low, end, rule))
        taken = sorted([*taken, *free])
    return taken


def span_detail(places: Sequence[tuple[int, int]], most: int = 200) -> str:
    """Places as the ledger tells them, the first `most` of them."""
    told = " ".join(f"{start}-{end}" for start, end in places[:most])
    return told + (f" and {len(places) - most} more" if len(places) > most else "")


def cut_spans(text: str, spans: Sequence[Span]) -> str:
    """The text without the spans."""
    pieces, at = [], 0
    for start, end, _ in spans:
        pieces.append(text[at:start])
        at = end
    pieces.append(text[at:])
    return "".join(pieces)


def tidy_spans(text: np.ndarray, spans: Sequence[Span]) -> list[Span]:
    """Spans in bytes of the UTF-8 `text` (sorted, disjoint), widened so that the cut leaves no empty line behind.

    A line that goes whole takes one line end with it, and the end of a line takes the spaces before it; spans of one
    rule that come to touch are one.
    """
    tidied: list[Span] = []
    runs: list[list[Span]] = []
    for span in spans:  # a run: spans without a byte between them
        if runs and runs[-1][-1][1] == span[0]:
            runs[-1].append(span)
        else:
            runs.append([span])
    for number, run in enumerate(runs):
        floor = tidied[-1][1] if tidied else 0
        ceiling = runs[number + 1][0][0] if number + 1 < len(runs) else len(text)
        low, high = _widened(text, run[0][0], run[-1][1], floor, ceiling)
        run[0] = (low, run[0][1], run[0][2])
        run[-1] = (run[-1][0], high, run[-1][2])
        for span in run:
            if tidied and tidied[-1][1] == span[0] and tidied[-1][2] == span[2]:
                tidied[-1] = (tidied[-1][0], span[1], span[2])
            else:
                tidied.append(span)
    if tidied and tidied[-1][1] >= len(text) and text[-1] != 0x0A:  # the last lines go, with the line end before them
        first = len(tidied) - 1
        while first > 0 and tidied[first - 1][1] == tidied[first][0]:
            first -= 1
        start, end, rule = tidied[first]
        if start > 0 and text[start - 1] == 0x0A:
            tidied[first] = (start - 1, end, rule)
    return tidied


def _widened(text: np.ndarray, low: int, high: int, floor: int, ceiling: int) -> tuple[int, int]:
    """A run of spans with the line end, or the spaces, that go with it; within `floor` and `ceiling`."""
    begins = low == 0 or text[low - 1] == 0x0A
    ends = high >= len(text) or text[high] == 0x0A
    if ends and begins:
        return low, min(high + 1, ceiling)
    if ends:
        while low > floor and text[low - 1] == 0x20:
            low -= 1
    return low, high


def in_characters(text: np.ndarray, spans: Sequence[Span]) -> list[Span]:
    """Spans in bytes of the UTF-8 `text` as spans in characters."""
    if not spans:
        return []
    before = np.zeros(len(text) + 1, np.int64)
    np.cumsum((text & 0xC0) != 0x80, out=before[1:])
    return [(int(before[start]), int(before[end]), rule) for start, end, rule in spans]


def annotate_spans(
    family: str, ids: pa.ChunkedArray, characters: Sequence[int], spans: Sequence[Sequence[Span]], min_kept_share: float
) -> pa.Table:
    """The annotations of documents: `characters` of each text, and its spans in characters."""
    removed = [sum(end - start for start, end, _ in found) for found in spans]
    shares = [round(1 - lost / n, 4) if n else None for lost, n in zip(removed, characters, strict=True)]
    hollow = [bool(lost) and share < min_kept_share for lost, share in zip(removed, shares, strict=True)]
    columns = [ids.combine_chunks(), pa.array([write_spans(found) for found in spans], pa.string())]
    columns += [pa.array(removed, pa.int64()), pa.array(shares, pa.float64()), pa.array(hollow, pa.bool_())]
    return pa.table(columns, schema=span_schema(family))
