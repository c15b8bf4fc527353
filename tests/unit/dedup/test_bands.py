import pytest
from datasketch.lsh import _false_negative_probability, _false_positive_probability, _optimal_param

from pipelines.dedup.bands import BandPlan, candidate_probability, error_integrals, least_error, s_curve
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


def test_the_integrals_are_those_of_datasketch_and_so_is_their_optimum():
    for threshold, bands, rows in ((0.7, 32, 8), (0.7, 25, 10), (0.5, 20, 5), (0.8, 14, 8)):
        positives, negatives = error_integrals(threshold, bands, rows)
        assert abs(positives - _false_positive_probability(threshold, bands, rows)) < 1e-3
        assert abs(negatives - _false_negative_probability(threshold, bands, rows)) < 1e-3
    for threshold in (0.6, 0.8):
        ours, theirs = least_error(threshold, 48), _optimal_param(threshold, 48, 0.5, 0.5)
        assert abs(sum(error_integrals(threshold, *ours)) - sum(error_integrals(threshold, *theirs))) < 1e-3


def test_the_curve_of_the_default_is_the_one_in_print():
    curve = s_curve(32, 8)
    assert {j: round(curve[j], 3) for j in (0.5, 0.6, 0.7, 0.8)} == {0.5: 0.118, 0.6: 0.418, 0.7: 0.85, 0.8: 0.997}


def test_twenty_bands_of_450_rows_are_refused():
    with pytest.raises(ConfigError, match="9000"):
        BandPlan(num_bands=20, rows_per_band=450)
    assert s_curve(20, 450)[0.95] < 1e-8
