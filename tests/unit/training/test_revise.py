from __future__ import annotations

from collections import Counter
from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.errors import ConfigError
from tests.unit.training.test_order import PIN, Sizes
from training.data.batches import BatchPlan
from training.data.order import Order
from training.data.plan import Plan, single_segment_plan
from training.data.revise import RAMP_SEGMENTS, Change, Source, revise

NAMES = ("en", "zh")


def sources(version: int = 1, names=NAMES) -> dict[str, Source]:
    return {name: Source(dataset=replace(PIN, version=version), cell=name) for name in names}


def change(**more) -> Change:
    kind = {"weights": {"en": 1, "zh": 1}, "sources": sources(), "sequence_length": 8, "rows_per_batch": 4, "steps": 20}
    return Change(**{**kind, **more})


def first_plan(steps: int = 10, **more) -> Plan:
    kind = {"seed": 3, "dataset": PIN, "weights": {"en": 3, "zh": 1}, "sequence_length": 8, "rows_per_batch": 4}
    return single_segment_plan(steps=steps, **{**kind, **more})


def rows_of(plan: Plan, sizes: Sizes, end: int) -> list:
    order = Order(plan, sizes)
    return [order.row(p).spans for p in range(end)]


SIZES = Sizes({1: {"en": [2000, 300], "zh": [700]}, 2: {"en": [2000, 300, 500], "zh": [700, 90], "code": [400]}})


def test_what_was_trained_stays_and_the_change_holds_from_there_on():
    plan = first_plan()
    later = revise(plan, change(weights={"en": 1, "zh": 3}), 24, SIZES)
    assert rows_of(later, SIZES, 24) == rows_of(plan, SIZES, 24)
    assert [segment.from_position for segment in later.segments] == [0, 24]
    assert [cell.share for cell in later.segments[1].cells] == [16384, 49152]
    assert BatchPlan(later).steps == 20
    order = Order(later, SIZES)
    counts = Counter(order.row(p).cell for p in range(24, 80))
    assert counts[1] / 56 == pytest.approx(0.75, abs=0.03)


def test_another_length_batch_and_a_grown_corpus_go_on_in_mid_lap():
    plan = first_plan()
    new = {**sources(2), "code": Source(dataset=replace(PIN, version=2), cell="code")}
    weights = {"en": 2, "zh": 1, "code": 1}
    asked = change(weights=weights, sources=new, sequence_length=16, rows_per_batch=6, steps=60)
    later = revise(plan, asked, 40, SIZES)
    assert rows_of(later, SIZES, 40) == rows_of(plan, SIZES, 40)
    order, segment = Order(later, SIZES), later.segments[1]
    assert {cell.name: (cell.lap, cell.used > 0) for cell in segment.cells} == {
        "code": (0, False),
        "en": (0, True),
        "zh": (0, True),
    }
    assert {cell.name: cell.stretch_tokens for cell in segment.cells} == {"code": 16, "en": 8, "zh": 8}
    assert BatchPlan(later).steps == 60
    assert sum(span.tokens for span in order.row(later.end_position - 1).spans) == 16


def test_a_ramp_moves_the_shares_in_constant_pieces():
    later = revise(first_plan(40), change(weights={"en": 0.2, "zh": 0.8}, ramp_steps=64, steps=200), 40, SIZES)
    shares = [segment.cells[1].share / 65_536 for segment in later.segments[1:]]
    assert len(shares) == RAMP_SEGMENTS + 1
    assert shares == sorted(shares)
    assert shares[0] == pytest.approx(0.25 + 0.55 / 32, abs=1e-4)
    assert shares[-1] == pytest.approx(0.8, abs=1e-4)
    starts = [segment.from_position for segment in later.segments[1:]]
    assert [(b - a) // 4 for a, b in pairwise(starts)] == [4] * RAMP_SEGMENTS
    assert BatchPlan(later).steps == 200


def test_a_batch_ramp_changes_the_rows_of_a_step_and_no_row():
    asked = change(batch_ramp=((12, 8), (15, 16)), ramp_steps=6, steps=20)
    later, batches = revise(first_plan(), asked, 24, SIZES), BatchPlan(revise(first_plan(), asked, 24, SIZES))
    assert [len(batches.batch(step).positions) for step in range(20)] == [4] * 12 + [8] * 3 + [16] * 5
    alone = revise(first_plan(), change(ramp_steps=6, steps=40), 24, SIZES)
    assert rows_of(later, SIZES, 24) == rows_of(first_plan(), SIZES, 24)
    assert rows_of(alone, SIZES, 48)[24:] == rows_of(later, SIZES, 48)[24:], "the mixture's ramp begins alike"
    for wrong in (((6, 8),), ((12, 8), (12, 9)), ((15, 8), (12, 9))):
        with pytest.raises(ConfigError, match="rising steps of the run after step 6"):
            revise(first_plan(), change(batch_ramp=wrong), 24, SIZES)


@pytest.mark.parametrize("policy", ["stop", "reweight", "repeat"])
def test_an_exhausted_cell_ends_the_run_leaves_the_mixture_or_comes_again(policy):
    later = revise(first_plan(), change(max_laps=1, on_depletion=policy, steps=70), 8, SIZES)
    order, steps = Order(later, SIZES), BatchPlan(later).steps
    laps = order.laps_read()
    if policy == "stop":
        assert steps < 70
        assert 700 - 4 * 8 <= laps["zh"] * 700 <= 700
    elif policy == "reweight":
        assert 700 - 4 * 8 <= laps["zh"] * 700 <= 700
        assert steps == 70
        assert [cell.share for cell in later.segments[-1].cells] == [65_536, 0]
        assert laps["en"] <= 1
    else:
        assert steps == 70
        assert laps["zh"] > 1


@settings(deadline=None, max_examples=40)
@given(draw=st.data())
def test_any_chain_of_changes_is_a_plan_that_reads_and_never_moves_a_row(draw):
    plan = first_plan(draw.draw(st.integers(2, 12)))
    position = 0
    for _ in range(draw.draw(st.integers(1, 4))):
        batches = BatchPlan(plan)
        step = draw.draw(st.integers(0, batches.steps))
        position = batches.batch(step - 1).end if step else 0
        skips = ()
        if draw.draw(st.booleans()):
            start = position + draw.draw(st.integers(0, 20))
            skips = ((start, start + draw.draw(st.integers(1, 9))),)
        asked = change(
            weights={"en": draw.draw(st.integers(0, 3)), "zh": draw.draw(st.integers(1, 3))},
            sequence_length=draw.draw(st.sampled_from([8, 12, 20])),
            rows_per_batch=draw.draw(st.integers(1, 6)),
            steps=step + draw.draw(st.integers(1, 30)),
            ramp_steps=draw.draw(st.sampled_from([0, 0, 5, 40])),
            max_laps=draw.draw(st.sampled_from([None, 1, 2])),
            batch_ramp=draw.draw(st.sampled_from([(), ((step + 2, 3), (step + 5, 7))])),
            on_depletion=draw.draw(st.sampled_from(["stop", "reweight", "repeat"])),
            skips=skips,
        )
        before = rows_of(plan, SIZES, position)
        try:
            plan = revise(plan, asked, position, SIZES)
        except ConfigError as refused:
            assert "row left" in str(refused) or "skipped range" in str(refused)
            return
        assert rows_of(plan, SIZES, position) == before
        batches = BatchPlan(plan)
        assert batches.steps <= asked.steps
        if asked.on_depletion == "repeat" or asked.max_laps is None:
            assert batches.steps == asked.steps
        assert plan.end_position == batches.batch(batches.steps - 1).end


def test_what_cannot_be_is_refused():
    plan = first_plan()
    with pytest.raises(ConfigError, match="lies inside a batch"):
        revise(plan, change(), 6, SIZES)
    with pytest.raises(ConfigError, match="raise it"):
        revise(plan, change(steps=6), 24, SIZES)
    with pytest.raises(ConfigError, match="no source"):
        revise(plan, change(weights={"fr": 1}), 24, SIZES)
    with pytest.raises(ConfigError, match="what was trained stays"):
        revise(plan, change(skips=((20, 30),)), 24, SIZES)
