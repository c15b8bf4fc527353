from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.errors import ConfigError, IntegrityError
from tests.unit.training.plain_order import find, pieces, place
from tests.unit.training.plain_order import spans as spans_of
from training.data.batches import BatchPlan
from training.data.cells import CellGeometry, geometry
from training.data.order import Order
from training.data.plan import CellPlan, DatasetPin, Plan, Segment, read_plan, single_segment_plan

PIN = DatasetPin(name="tokens", version=1, manifest_sha256="a" * 64)


@dataclass
class Sizes:
    """Shards of each cell by version."""

    versions: dict[int, dict[str, list[int]]]

    def geometry(self, pin: DatasetPin, cell: str, name: str, stretch_tokens: int) -> CellGeometry:
        return geometry(name, self.versions[pin.version][cell], stretch_tokens)


def with_cursors(plan: Plan, sizes: Sizes) -> Plan:
    """The plan with the cursors that its own earlier segments lead to, written segment by segment."""
    done: list[Segment] = []
    for number, segment in enumerate(plan.segments):
        if done:
            cursors = Order(
                replace(plan, segments=tuple(done), end_position=segment.from_position), sizes
            ).cursors
            cells = tuple(
                replace(cell, lap=cursors.get(cell.name, (0, 0))[0], used=cursors.get(cell.name, (0, 0))[1])
                for cell in segment.cells
            )
            segment = replace(segment, cells=cells)
        done.append(segment)
        assert number < len(plan.segments)
    return replace(plan, segments=tuple(done))


@settings(deadline=None, max_examples=60)
@given(draw=st.data())
def test_segments_with_growth_mixture_and_length_changes_repeat_no_token_and_lose_none(draw):  # noqa: C901
    stretch = draw.draw(st.sampled_from([8, 16]))
    names = ["en.code", "en.web", "zh.web"]
    versions = {1: {name: draw.draw(st.lists(st.integers(16, 90), min_size=1, max_size=3)) for name in names}}
    segments, position = [], 0
    for number in range(draw.draw(st.integers(1, 5))):
        version = number + 1
        if number:
            versions[version] = {
                name: [*shards, *draw.draw(st.lists(st.integers(0, 60), max_size=2))]
                for name, shards in versions[number].items()
            }
        weights = draw.draw(st.sampled_from([(1, 0, 0), (3, 2, 1), (0, 1, 4), (1, 1, 1), (5, 0, 1)]))
        total = sum(weights)
        shares = [w * 65_536 // total for w in weights]
        shares[int(np.argmax(weights))] += 65_536 - sum(shares)
        rows = draw.draw(st.integers(1, 12))
        segments.append(
            Segment(
                from_position=position,
                sequence_length=draw.draw(st.sampled_from([7, 8, 20, 32])),
                rows_per_batch=rows,
                datasets=(replace(PIN, version=version),),
                cells=tuple(
                    CellPlan(name=name, cell=name, dataset=0, share=share, stretch_tokens=stretch)
                    for name, share in zip(names, shares, strict=True)
                ),
            )
        )
        position += rows * draw.draw(st.integers(1, 4))
    sizes = Sizes(versions)
    plan = with_cursors(Plan(seed=11, end_position=position, segments=tuple(segments)), sizes)
    order = Order(plan, sizes)
    assert read_plan(plan.to_json(), sha256=plan.sha256) == plan
    seen: Counter[tuple[str, int, int, int]] = Counter()
    shown: dict[tuple[str, int, int], list[tuple[int, int]]] = {}
    for p in range(position):
        row = order.row(p)
        segment = plan.segments[row.segment]
        name = segment.cells[row.cell].name
        assert sum(span.tokens for span in row.spans) == segment.sequence_length
        offset = 0
        stream = order._streams[row.segment][row.cell]
        for piece in pieces(stream, row.k * segment.sequence_length, segment.sequence_length):
            for span in spans_of(stream.geometry, piece):
                for i in range(span.tokens):
                    seen[name, piece.lap, span.shard, span.first + i] += 1
                    shown.setdefault((name, span.shard, span.first + i), []).append((p, offset))
                    offset += 1
    assert max(seen.values()) == 1, "a token came twice in a lap"
    for name, (lap, used) in order.cursors.items():
        per_lap = Counter(key[1] for key in seen if key[0] == name)
        assert per_lap[lap] == used
        newest = {(s, t) for s, size in enumerate(versions[len(segments)][name]) for t in range(size)}
        for done in range(lap):
            lap_tokens = {key[2:] for key in seen if key[0] == name and key[1] == done}
            assert lap_tokens <= newest
            if done == lap - 1 and len(segments) == 1:
                assert lap_tokens == newest
    for (name, shard, token), places in list(shown.items())[::7]:
        assert list(order.seen_at(name, shard, token)) == places
    require_compiled_equal(plan, order, sizes)


def require_compiled_equal(plan: Plan, order: Order, sizes: Sizes) -> None:
    """The compiled order is the plain one, a row and a token at a time and in batches."""
    for number, segment in enumerate(plan.segments):
        positions = np.arange(segment.from_position, plan.segment_end(number))
        spans = order.spans(positions)
        for i, p in enumerate(positions.tolist()):
            row, mine = order.row(p), slice(spans.starts[i], spans.starts[i + 1])
            assert (row.cell, row.k) == (spans.cell[i], spans.k[i])
            stream = order._streams[number][row.cell]
            length = segment.sequence_length
            plain = [s for piece in pieces(stream, row.k * length, length) for s in spans_of(stream.geometry, piece)]
            assert list(zip(spans.shard[mine], spans.first[mine], spans.tokens[mine], strict=True)) == plain
            assert [span[2:] for span in row.spans] == plain
        for c, cell in enumerate(segment.cells):
            stream = order._streams[number][c]
            pairs = [(s, t) for s, size in enumerate(stream.geometry.shard_tokens) for t in range(0, size, 5)]
            if not pairs or not cell.share:
                continue
            for ahead in (0, 1, 5):
                shards, tokens = np.array(pairs).T
                got, offsets = order.compiled(number).positions(c, shards, tokens, np.full(len(pairs), ahead))
                for (shard, token), q, offset in zip(pairs, got.tolist(), offsets.tolist(), strict=True):
                    t = find(stream, place(stream.geometry, shard, token), stream.lap + ahead)
                    one = order.compiled(number).position(c, shard, token, ahead)
                    if t is None:
                        assert (q, one) == (-1, None)
                        continue
                    k, within = divmod(t, segment.sequence_length)
                    assert one == (q, offset) == (order._mixtures[number].position(c, k), within)
    with pytest.raises(IndexError, match="no token"):
        order.compiled(0).positions(0, np.array([0]), np.array([10**6]), np.array([0]))
    with pytest.raises(IndexError, match="no token"):
        order.compiled(0).position(0, 0, 10**6, 0)


@settings(deadline=None, max_examples=300)
@given(draw=st.data())
def test_batches_with_skips_cover_every_trained_position_once_for_any_number_of_ranks(draw):
    rows, steps = draw.draw(st.integers(1, 9)), draw.draw(st.integers(1, 12))
    bounds = sorted(draw.draw(st.sets(st.integers(0, rows * steps + 20), max_size=8)))
    skips = list(zip(bounds[::2], bounds[1::2], strict=False))
    plan = single_segment_plan(
        seed=1,
        dataset=PIN,
        weights={"a": 1.0},
        sequence_length=8,
        rows_per_batch=rows,
        steps=steps,
        skips=skips,
    )
    batches = BatchPlan(plan)
    assert batches.steps == steps
    skipped = {p for start, end in skips for p in range(start, end)}
    trained = [p for p in range(plan.end_position) if p not in skipped]
    assert len(trained) == rows * steps
    world_size = draw.draw(st.integers(1, 7))
    got: list[int] = []
    position = 0
    for step in range(steps):
        assert batches.step_at(position) == step
        batch = batches.batch(step)
        ranks = [batch.of_rank(rank, world_size).tolist() for rank in range(world_size)]
        assert max(map(len, ranks)) - min(map(len, ranks)) <= 1
        assert [p for part in ranks for p in part] == batch.positions.tolist()
        got += batch.positions.tolist()
        position = batch.end
    assert got == trained
    for rank, p in enumerate(trained):
        assert batches.select(rank) == p
        assert batches.rank(p) == rank


def test_steps_count_through_segments_and_a_border_inside_a_batch_is_refused():
    def plan(border: int) -> Plan:
        cell = CellPlan(name="a", cell="a", dataset=0, share=65_536, stretch_tokens=8)
        common = {"sequence_length": 8, "datasets": (PIN,), "cells": (cell,)}
        first = Segment(from_position=0, rows_per_batch=4, **common)
        second = Segment(from_position=border, rows_per_batch=6, **common)
        return Plan(seed=0, end_position=border + 12, segments=(first, second), skips=((2, 4), (9, 10)))

    batches = BatchPlan(plan(11))
    assert batches.steps == 4
    assert [batches.batch(s).positions.tolist() for s in range(3)] == [
        [0, 1, 4, 5],
        [6, 7, 8, 10],
        [11, 12, 13, 14, 15, 16],
    ]
    assert batches.step_at(11) == 2
    with pytest.raises(ConfigError, match="lies inside a batch"):
        batches.step_at(5)
    with pytest.raises(ConfigError, match="ends at a batch's end"):
        BatchPlan(plan(12))


def test_a_plan_whose_cursor_was_not_reached_is_refused():
    cell = CellPlan(name="a", cell="a", dataset=0, share=65_536, stretch_tokens=8)
    common = {"sequence_length": 8, "rows_per_batch": 2, "datasets": (PIN,)}
    first = Segment(from_position=0, cells=(cell,), **common)
    sizes = Sizes({1: {"a": [50]}})
    good = Segment(from_position=4, cells=(replace(cell, used=32),), **common)
    assert Order(Plan(seed=0, end_position=8, segments=(first, good)), sizes).cursors == {"a": (1, 14)}
    bad = replace(good, cells=(replace(cell, used=31),))
    with pytest.raises(IntegrityError, match="lead to lap 0, token 32"):
        Order(Plan(seed=0, end_position=8, segments=(first, bad)), sizes)
    other = replace(good, cells=(replace(cell, name="b", lap=0, used=0),))
    with pytest.raises(ConfigError, match="leaves out cells"):
        Order(Plan(seed=0, end_position=8, segments=(first, other)), sizes)


def test_a_plan_that_reads_past_a_lap_cap_is_refused_before_it_trains():
    sizes = Sizes({1: {"a": [64]}})
    kind = {
        "seed": 1,
        "dataset": PIN,
        "weights": {"a": 1},
        "sequence_length": 8,
        "rows_per_batch": 4,
        "lap_cap": 1,
    }
    assert Order(single_segment_plan(steps=2, **kind), sizes).laps_read() == {"a": 1.0}
    with pytest.raises(ConfigError, match="its cap is 1 laps"):
        Order(single_segment_plan(steps=3, **kind), sizes)


def test_a_plan_does_not_parse_with_an_unknown_key_or_another_hash():
    plan = single_segment_plan(
        seed=1, dataset=PIN, weights={"b": 2, "a": 1}, sequence_length=8, rows_per_batch=4, steps=1
    )
    assert [cell.name for cell in plan.segments[0].cells] == ["a", "b"]
    with pytest.raises(IntegrityError, match="does not parse"):
        read_plan({**plan.to_json(), "ramp": 3})
    with pytest.raises(IntegrityError, match="expected 0"):
        read_plan(plan.to_json(), sha256="0")
