"""Sentences that score below a cut, as spans of the text (Baichuan filters documents and sentences).

Sentences are those of dedup_lines: ended by a mark of their language, at least so long in their normal form. What is
shorter is never low: five words tell a classifier nothing.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np
import pyarrow as pa

from pipelines.dedup.normalize import utf8_of
from pipelines.dedup.paragraphs import UnitRules, find_units
from pipelines.dedup.spans import Span, in_characters, tidy_spans

RULE = "low_sentence"


class _Scores(Protocol):
    def scores(self, texts: pa.Array | pa.ChunkedArray) -> pa.DoubleArray: ...


def low_sentences(
    texts: pa.Array | pa.ChunkedArray, scorer: _Scores, cut: float, least_bytes: int
) -> tuple[list[list[Span]], dict[str, int]]:
    """(spans in characters by text, {sentences, low_sentences}): what scores below `cut`."""
    units = find_units(texts, UnitRules(paragraphs=False, sentences=True, min_bytes=least_bytes))
    data, offsets = utf8_of(texts)
    count = len(offsets) - 1
    if not len(units):
        return [[] for _ in range(count)], {"sentences": 0, "low_sentences": 0}
    starts = offsets[units.text] + units.start
    lengths = (units.end - units.start).astype(np.int64)
    bounds = np.zeros(len(units) + 1, np.int64)
    np.cumsum(lengths, out=bounds[1:])
    gather = np.arange(bounds[-1]) - np.repeat(bounds[:-1] - starts, lengths)
    body = data[gather]
    sentences = pa.LargeStringArray.from_buffers(len(units), pa.py_buffer(bounds), pa.py_buffer(body))
    found = scorer.scores(sentences)
    low = np.asarray(found.fill_null(1.0)) < cut
    spans: list[list[Span]] = [[] for _ in range(count)]
    for at in np.flatnonzero(low).tolist():
        spans[units.text[at]].append((int(units.start[at]), int(units.end[at]), RULE))
    for number, mine in enumerate(spans):
        if mine:
            text = data[offsets[number] : offsets[number + 1]]
            spans[number] = in_characters(text, tidy_spans(text, mine))
    return spans, {"sentences": len(units), "low_sentences": int(low.sum())}
