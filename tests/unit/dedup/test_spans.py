"""Spans: what leaves a text leaves no trace but an account that adds up."""

from __future__ import annotations

import itertools

import numpy as np
import pyarrow as pa
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pipelines.dedup.spans import (
    annotate_spans,
    cut_spans,
    in_characters,
    join_spans,
    read_spans,
    tidy_spans,
    write_spans,
)

SENTENCE = st.tuples(st.sampled_from(["One. ", "二。", "Three! ", "é? ", "四！"]), st.booleans(), st.sampled_from("pq"))


def utf8(text):
    return np.frombuffer(text.encode(), np.uint8)


@settings(max_examples=500, deadline=None)
@example([[("One. ", False, "p")], [("One. ", True, "p")], []])
@example([[("One. ", False, "p")], [("One. ", True, "p")], [("One. ", True, "q")]])
@given(st.lists(st.lists(SENTENCE, max_size=4), max_size=5))
def test_a_cut_leaves_the_lines_that_have_something_left(lines):
    text = "\n".join("".join(piece for piece, _, _ in line) for line in lines)
    spans, at, expected = [], 0, []
    for line in lines:
        for piece, leaves, rule in line:
            size = len(piece.encode())
            if leaves:
                spans.append((at, at + size, rule))
            at += size
        at += 1
        kept = "".join(piece for piece, leaves, _ in line if not leaves)
        if kept or not line:
            expected.append(kept.rstrip(" ") if line and line[-1][1] else kept)
    found = in_characters(utf8(text), tidy_spans(utf8(text), spans))
    left = cut_spans(text, found)
    assert left == "\n".join(expected) or (not any(expected) and not left.strip())
    assert len(text) == len(left) + sum(end - start for start, end, _ in found)
    assert all(one[1] <= other[0] for one, other in itertools.pairwise(found))
    assert read_spans(write_spans(found)) == found


RUNS = st.lists(st.tuples(st.integers(0, 40), st.integers(1, 9)), max_size=6)


@settings(max_examples=300, deadline=None)
@given(st.lists(RUNS, max_size=3))
def test_joined_spans_cut_what_any_of_them_cuts_and_each_character_once(families):
    lists, wanted = [], {}
    for number, runs in enumerate(families):
        spans, at = [], 0
        for gap, size in runs:
            spans.append((at + gap, at + gap + size, f"rule{number}"))
            at += gap + size
        lists.append(spans)
        for start, end, rule in spans:
            for place in range(start, end):
                wanted.setdefault(place, rule)
    joined = join_spans(lists)
    found = {}
    for start, end, rule in joined:
        assert start < end
        for place in range(start, end):
            assert place not in found
            found[place] = rule
    assert found == wanted and joined == sorted(joined)


def test_annotations_tell_what_stays():
    ids = pa.chunked_array([["a", "b"], ["c", "d"]])
    spans = [[(0, 6, "repeated_paragraph"), (7, 9, "repeated_sentence")], [], [(0, 1, "repeated_sentence")], []]
    rows = annotate_spans("lines", ids, [10, 10, 3, 0], spans, 0.5).to_pylist()
    assert rows[0] == {
        "id": "a", "lines.spans": "0-6:repeated_paragraph 7-9:repeated_sentence", "lines.removed": 8,
        "lines.kept_share": 0.2, "lines.hollow": True,
    }  # fmt: skip
    assert (rows[1]["lines.spans"], rows[1]["lines.kept_share"], rows[1]["lines.hollow"]) == (None, 1.0, False)
    assert (rows[2]["lines.kept_share"], rows[2]["lines.hollow"]) == (0.6667, False)
    assert (rows[3]["lines.kept_share"], rows[3]["lines.hollow"]) == (None, False)
