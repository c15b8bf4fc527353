"""Best-fit packing: documents laid out so that rows of one sequence length cut as few of them as can be.

In windows of 4,096 documents, in the shard's order: one longer than a row fills rows from a row's start on, and what is
left of it opens a row; the others go, longest first, to the row with the least room that holds them (best fit
decreasing). Rows keep the order of their first document. What stays empty is padding. A document is cut only
where it is longer than a row. (Fewer truncations: Ding et al. 2024, arXiv:2404.10830.)
"""

from __future__ import annotations

import bisect
from dataclasses import dataclass

import numpy as np

from pipelines.tokens.shards import firsts_of

WINDOW = 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """Where each document begins, and the gaps; together they tile `tokens` places."""

    firsts: np.ndarray  # (n,) int64, in the order of the documents given
    gaps: np.ndarray  # (k, 2) int64: first place and length
    tokens: int


def best_fit(lengths: np.ndarray, row_tokens: int) -> Layout:
    """The layout of documents of these lengths in rows of `row_tokens`."""
    firsts = np.zeros(len(lengths), np.int64)
    gaps: list[tuple[int, int]] = []
    at = 0
    for start in range(0, len(lengths), WINDOW):
        window = lengths[start : start + WINDOW].tolist()
        for row in _rows(window, row_tokens):
            for document in row:
                firsts[start + document] = at
                at += window[document]
            if over := at % row_tokens:
                gaps.append((at, row_tokens - over))
                at += row_tokens - over
    return Layout(firsts=firsts, gaps=np.array(gaps, np.int64).reshape(-1, 2), tokens=at)


def _rows(lengths: list[int], row_tokens: int) -> list[list[int]]:
    """Documents by row; the first of a row may be longer than one, and the row then stands for all that it fills."""
    rows: list[list[int]] = []
    room: list[tuple[int, int]] = []  # (places left, row), sorted
    for document, length in enumerate(lengths):
        if length > row_tokens:
            rows.append([document])
            if rest := -length % row_tokens:
                room.append((rest, len(rows) - 1))
    room.sort()
    short = [document for document, length in enumerate(lengths) if length <= row_tokens]
    for document in sorted(short, key=lambda d: (-lengths[d], d)):
        found = bisect.bisect_left(room, (lengths[document], -1))
        if found < len(room):
            left, row = room.pop(found)
            rows[row].append(document)
        else:
            left, row = row_tokens, len(rows)
            rows.append([document])
        if left > lengths[document]:
            bisect.insort(room, (left - lengths[document], row))
    return sorted(rows, key=min)


def cut_documents(firsts: np.ndarray, lengths: np.ndarray, row_tokens: int) -> int:
    """Documents that stand in more than one row."""
    return int((firsts // row_tokens != (firsts + np.maximum(lengths, 1) - 1) // row_tokens).sum())


def one_after_another(lengths: np.ndarray) -> Layout:
    """Without packing: no gaps."""
    return Layout(firsts=firsts_of(lengths), gaps=np.zeros((0, 2), np.int64), tokens=int(lengths.sum()))
