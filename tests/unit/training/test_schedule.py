from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.errors import ConfigError
from training.schedule import Schedule


def test_the_rate_rises_to_its_peak_and_falls_to_its_floor():
    schedule = Schedule(peak_rate=1.0, warmup_fraction=0.1, floor_fraction=0.2)
    assert schedule.learning_rate(50, 1000) == pytest.approx(0.5)
    assert schedule.learning_rate(100, 1000) == pytest.approx(1.0)
    assert schedule.learning_rate(550, 1000) == pytest.approx(0.6)
    assert schedule.learning_rate(1000, 1000) == pytest.approx(0.2)
    assert schedule.learning_rate(2000, 1000) == pytest.approx(0.2)


def test_a_constant_rate_stays_and_wsd_falls_at_the_end():
    constant = Schedule(peak_rate=6e-5, warmup_fraction=0, kind="constant")
    assert {constant.learning_rate(p, 1000) for p in (1, 500, 1000)} == {6e-5}
    wsd = Schedule(peak_rate=1.0, warmup_fraction=0.1, floor_fraction=0.0, kind="wsd", decay_fraction=0.2)
    assert [wsd.learning_rate(p, 1000) for p in (50, 100, 800, 900, 1000)] == pytest.approx([0.5, 1, 1, 0.5, 0])


def test_a_schedule_may_begin_anew_on_the_way():
    again = Schedule(peak_rate=1.0, warmup_fraction=0.1, floor_fraction=0.2, from_position=500)
    plain = Schedule(peak_rate=1.0, warmup_fraction=0.1, floor_fraction=0.2)
    for position in (525, 550, 700, 1000):
        assert again.learning_rate(position, 1000) == pytest.approx(plain.learning_rate(position - 500, 500))
    with pytest.raises(ConfigError, match="decay_fraction"):
        Schedule(kind="wsd", warmup_fraction=0.5, decay_fraction=0.6)


@given(warmup=st.floats(0, 0.9), floor=st.floats(0, 1), position=st.integers(1, 1000))
def test_the_rate_is_never_above_the_peak_nor_below_zero(warmup, floor, position):
    schedule = Schedule(peak_rate=3e-3, warmup_fraction=warmup, floor_fraction=floor)
    assert 0 <= schedule.learning_rate(position, 1000) <= 3e-3 * (1 + 1e-12)


def test_fractions_outside_their_bounds_are_refused():
    with pytest.raises(ConfigError, match="warmup_fraction 1"):
        Schedule(warmup_fraction=1.0)
