import pytest

from pipelines.dedup.bands import BandPlan, candidate_probability
from pipelines.errors import ConfigError


def test_the_default_finds_what_its_docstring_says():
    assert candidate_probability(0.7, 32, 8) == pytest.approx(0.850, abs=5e-4)
    assert candidate_probability(0.8, 32, 8) == pytest.approx(0.997, abs=5e-4)
    assert BandPlan().num_permutations == 256


@pytest.mark.parametrize(
    "plan",
    [
        {"num_bands": 0},
        {"rows_per_band": 0},
        {"num_bands": 200, "rows_per_band": 8},
        {"min_similarity": 0.0},
        {"min_similarity": 1.5},
        {"num_bands": 4, "rows_per_band": 32},
        {"num_bands": 32, "rows_per_band": 2},
    ],
)
def test_a_senseless_plan_is_refused_with_a_mend(plan):
    with pytest.raises(ConfigError) as caught:
        BandPlan(**plan)
    assert caught.value.mend


@pytest.mark.parametrize("plan", [(14, 8), (20, 13), (26, 11), (25, 10), (32, 8)])
def test_the_plans_in_print_are_accepted(plan):
    BandPlan(num_bands=plan[0], rows_per_band=plan[1], min_similarity=0.8)


def test_twenty_bands_work_for_the_default_similarity():
    BandPlan(num_bands=20)
