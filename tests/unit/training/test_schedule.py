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


@given(warmup=st.floats(0, 0.9), floor=st.floats(0, 1), position=st.integers(1, 1000))
def test_the_rate_is_never_above_the_peak_nor_below_zero(warmup, floor, position):
    schedule = Schedule(peak_rate=3e-3, warmup_fraction=warmup, floor_fraction=floor)
    assert 0 <= schedule.learning_rate(position, 1000) <= 3e-3 * (1 + 1e-12)


def test_fractions_outside_their_bounds_are_refused():
    with pytest.raises(ConfigError, match="warmup_fraction 1"):
        Schedule(warmup_fraction=1.0)
