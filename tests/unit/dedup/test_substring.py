"""Repeated substrings: all that a look at every window finds, and nothing else."""

from __future__ import annotations

import random
import time

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.dedup.frequency import Sketch, SketchShape
from pipelines.dedup.spans import cut_spans
from pipelines.dedup.substring import (
    WINDOWS,
    SubstringRules,
    find_anchors,
    find_repeats,
    partition_of_anchors,
    text_slices,
    union_spans,
    window_rows,
)
from pipelines.errors import ConfigError

SHORT = SubstringRules(length=20)


def found(texts, rules=SHORT, *, order=None, parts=1, buckets=1, sketch=None):
    """Spans of each text; through `parts` of texts and `buckets` of anchors."""
    order = np.arange(len(texts)) if order is None else np.asarray(order)
    tables = []
    for part in range(parts):
        nodes = np.arange(len(texts))[part::parts]
        array = pa.array([texts[node] for node in nodes], pa.string())
        anchors = find_anchors(array, rules)
        chosen = np.ones(len(anchors), bool) if sketch is None else sketch.holds(anchors.anchor)
        tables.append(
            window_rows(array, anchors, chosen, 0, order[nodes], np.zeros(len(nodes), np.int64), nodes, rules)
        )
    rows = pa.concat_tables(tables)
    owner = rows["anchor"].to_numpy() % np.uint64(buckets)
    repeats = [find_repeats(rows.filter(pa.array(owner == b)), rules) for b in range(buckets)]
    return [[(a, b) for a, b, _ in spans] for spans in union_spans(repeats, 0, len(texts))]


def expected(texts, rules=SHORT, order=None):
    """By a dictionary of every window, texts taken in their order."""
    size, first, spans = rules.length, {}, [[] for _ in texts]
    for node in np.argsort(np.arange(len(texts)) if order is None else order, kind="stable").tolist():
        text = texts[node] or ""
        for at in range(len(text) - size + 1):
            window = text[at : at + size]
            where = first.setdefault(window, (node, at))
            if where[0] != node or where[1] + size <= at:
                if spans[node] and at <= spans[node][-1][1]:
                    spans[node][-1] = (spans[node][-1][0], at + size)
                else:
                    spans[node].append((at, at + size))
    return spans


def spliced(rng, count, alphabet="abcdefgh 。中文字\n"):
    """Texts that share pieces of all lengths, some within themselves."""
    pool = ["".join(rng.choices(alphabet, k=rng.randrange(1, 60))) for _ in range(6)]
    texts = []
    for _ in range(count):
        parts = [rng.choice(pool) if rng.random() < 0.5 else "".join(rng.choices(alphabet, k=rng.randrange(40)))
                 for _ in range(rng.randrange(8))]  # fmt: skip
        text = "".join(parts)
        low = rng.randrange(len(text) + 1)
        texts.append(text + text[low : low + rng.randrange(50)] if rng.random() < 0.3 else text)
    return texts


@settings(max_examples=150, deadline=None)
@given(st.integers(0, 10**9), st.integers(0, 14), st.integers(1, 4), st.integers(1, 3))
def test_all_repeats_are_found_and_nothing_else(seed, count, parts, buckets):
    texts = spliced(random.Random(seed), count)
    assert found(texts, parts=parts, buckets=buckets) == expected(texts)


@settings(max_examples=150, deadline=None)
@given(st.lists(st.text(alphabet="ab", max_size=120), max_size=8))
def test_texts_of_few_letters_are_no_exception(texts):
    assert found(texts) == expected(texts)


@settings(max_examples=80, deadline=None)
@given(st.integers(0, 10**9), st.permutations(range(9)))
def test_the_first_in_the_survivor_order_stays(seed, order):
    texts = spliced(random.Random(seed), 9)
    assert found(texts, order=order) == expected(texts, order=order)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**9))
def test_a_sketch_of_the_anchors_hides_no_repeat(seed):
    texts = spliced(random.Random(seed), 10)
    sketch = Sketch(SketchShape(mib=1, bound=2))
    sketch.add(find_anchors(pa.array(texts), SHORT).anchor)
    assert found(texts, sketch=sketch.frequent()) == expected(texts)


def test_periodic_texts_keep_their_first_period():
    for text in ("a" * 500, "ab" * 300, "上山打老虎，" * 60, "x" * 19 + "y" * 400 + "x" * 19):
        assert found([text, text[3:]]) == expected([text, text[3:]])
    assert cut_spans("a" * 500, [(a, b, "") for a, b in found(["a" * 500])[0]]) == "a" * 20


def test_what_stays_holds_no_repeat_that_was_there():
    rng = random.Random(4)
    blocks = ["".join(rng.choices("abcdefghijklmnop ", k=200)) for _ in range(5)]
    texts = [blocks[i] + f"{i:032d}" + blocks[j] for i in range(5) for j in range(5)]
    left = "".join(
        cut_spans(text, [(a, b, "") for a, b in spans]) for text, spans in zip(texts, found(texts), strict=True)
    )
    assert [left.count(block) for block in blocks] == [1] * 5


def test_nothing_long_enough_and_nothing_at_all():
    assert found(["", None, "short", "a" * 19, "a" * 19]) == [[], [], [], [], []]
    assert found([]) == []
    assert find_repeats(WINDOWS.empty_table(), SHORT).num_rows == 0
    with pytest.raises(ConfigError, match="19 characters"):
        SubstringRules(length=19)


def test_partitions_get_equal_shares_of_the_anchors():
    rng = random.Random(1)
    texts = pa.array(["".join(rng.choices("abcdefgh ", k=3000)) for _ in range(100)])
    counts = np.bincount(partition_of_anchors(find_anchors(texts, SubstringRules()).anchor, 8), minlength=8)
    assert counts.min() > 0.8 * counts.mean()


def test_slices_hold_whole_texts_of_bounded_bytes():
    offsets = np.array([0, 5, 5, 9, 30, 31, 32])
    assert list(text_slices(offsets, 9)) == [(0, 3), (3, 4), (4, 6)]
    assert list(text_slices(np.array([0]), 9)) == []


def test_hostile_texts_take_linear_time_and_few_anchors():
    rules = SubstringRules()
    find_repeats(window_rows(pa.array(["b" * 300]), find_anchors(pa.array(["b" * 300]), rules), np.ones(3, bool),
                             0, np.zeros(1, int), np.zeros(1, int), np.zeros(1, int), rules), rules)  # fmt: skip
    for text in ("a" * 10**6, "ab" * 500_000, "".join(chr(0x4E00 + i % 3000) for i in range(500_000))):
        started = time.process_time()
        array = pa.array([text, text])
        anchors = find_anchors(array, rules)
        assert len(anchors) < len(text) // 10
        zeros = np.zeros(2, np.int64)
        rows = window_rows(array, anchors, np.ones(len(anchors), bool), 0, np.arange(2), zeros, np.arange(2), rules)
        find_repeats(rows, rules)
        assert time.process_time() - started < 5
