"""The sketch never counts too little, adds up, and what is decided rests on exact counts."""

from __future__ import annotations

import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.dedup.frequency import (
    Frequent,
    Sketch,
    SketchShape,
    counters_needed,
    exact_counts,
    frequent_digests,
)
from pipelines.errors import ConfigError, IntegrityError

SMALL = SketchShape(mib=1, bound=3)


def drawn(seed, n, distinct):
    rng = np.random.default_rng(seed)
    return rng.integers(0, 2**64, distinct, np.uint64)[rng.integers(0, distinct, n)]


def test_no_frequent_digest_is_missing_and_rare_ones_seldom_pass():
    digests = drawn(0, 150_000, 60_000)
    sketch = Sketch(SMALL)
    sketch.add(digests)
    values, counts = np.unique(digests, return_counts=True)
    held = sketch.frequent().holds(values)
    assert held[counts >= 3].all()
    rare = np.random.default_rng(9).integers(0, 2**64, 100_000, np.uint64)
    assert sketch.frequent().holds(rare).mean() == pytest.approx(sketch.frequent().false_share, abs=0.003)
    assert held[counts < 3].mean() < 0.05
    assert sketch.frequent_occurrences() == pytest.approx(counts[counts >= 3].sum(), rel=0.15)


def test_sketches_of_parts_add_up_in_any_order_and_stop_at_their_limit():
    digests = drawn(1, 40_000, 100)  # each some 400 times: more than a byte counts
    whole = Sketch(SMALL)
    whole.add(digests)
    assert whole.counters.max() == 255
    parts = []
    for piece in np.array_split(digests, 7):
        part = Sketch(SMALL)
        part.add(piece)
        parts.append(part.to_bytes())
    for seed in range(3):
        random.Random(seed).shuffle(parts)
        merged = Sketch(SMALL)
        for part in parts:
            merged.merge(part)
        assert (merged.counters == whole.counters).all()


def test_a_large_bound_takes_two_bytes_a_counter():
    shape = SketchShape(mib=1, bound=1000)
    sketch = Sketch(shape)
    sketch.add(np.full(999, 7, np.uint64))
    assert shape.dtype == np.uint16 and not sketch.frequent().holds(np.array([7], np.uint64))[0]
    sketch.add(np.array([7], np.uint64))
    stored = Frequent.from_bytes(shape, sketch.frequent().to_bytes())
    assert stored.holds(np.array([7, 8], np.uint64)).tolist() == [True, False]


def test_shapes_that_make_no_sense_are_refused():
    for kind in ({"mib": 3, "bound": 5}, {"mib": 0, "bound": 5}, {"mib": 1, "bound": 1}, {"mib": 1, "bound": 10**6}):
        with pytest.raises(ConfigError):
            SketchShape(**kind)
    with pytest.raises(IntegrityError):
        Sketch(SMALL).merge(Sketch(SketchShape(mib=2, bound=3)).to_bytes())
    with pytest.raises(IntegrityError):
        Sketch(SketchShape(mib=2, bound=3)).merge(Sketch(SMALL).to_bytes())


def test_the_size_that_is_advised_keeps_the_noise_at_a_quarter_of_the_bound():
    for digests, bound in ((10**9, 100), (10**6, 2), (10**11, 1000), (10, 50)):
        shape = SketchShape(mib=counters_needed(digests, bound), bound=bound)
        assert shape.noise(digests) <= bound / 4


OCCURRENCES = st.lists(st.tuples(st.integers(0, 2), st.integers(0, 5), st.integers(0, 30)), max_size=60)


@settings(max_examples=200, deadline=None)
@given(OCCURRENCES, st.integers(1, 6), st.integers(1, 5))
def test_counts_and_first_holders_are_those_of_a_plain_count(rows, bound, pieces):
    tables = []
    for generation in range(3):
        mine = [(d, o) for g, d, o in rows if g == generation]
        for part in range(pieces):
            cut = np.array(mine[part::pieces], np.int64).reshape(-1, 2)
            tables.append(exact_counts(cut[:, 0].astype(np.uint64), cut[:, 1], cut[:, 1] % 7, generation))
    random.Random(len(rows)).shuffle(tables)
    found = frequent_digests(tables, bound).to_pylist()
    expected = []
    for digest in sorted({d for _, d, _ in rows}):
        mine = sorted((g, o) for g, d, o in rows if d == digest)
        if len(mine) >= bound:
            generation, place = mine[0]
            counted = {"digest": digest, "since": mine[bound - 1][0], "count": len(mine)}
            expected.append(counted | {"generation": generation, "place": place, "tie": place % 7})
    assert found == expected
