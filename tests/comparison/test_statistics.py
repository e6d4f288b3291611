import numpy as np
import pytest
from scipy import stats
from statsmodels.stats.contingency_tables import mcnemar as reference_mcnemar
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.power import TTestPower
from statsmodels.stats.weightstats import DescrStatsW

from lenet_keras.comparison.statistics import (
    calibration,
    calibration_error,
    detectable_difference,
    holm,
    mcnemar,
    paired_difference,
    spread,
)

FIRST = np.array([0.8927, 0.8951, 0.8899, 0.8940, 0.8913])
SECOND = np.array([0.8855, 0.8893, 0.8871, 0.8862, 0.8849])


def test_a_spread_is_that_of_statsmodels():
    reference = DescrStatsW(FIRST)

    found = spread(FIRST)

    assert found.mean == pytest.approx(reference.mean)
    assert found.deviation == pytest.approx(FIRST.std(ddof=1))
    assert (found.low, found.high) == pytest.approx(reference.tconfint_mean())


def test_one_seed_has_a_mean_and_nothing_else():
    assert spread([0.89]) == (0.89, None, None, None)
    assert paired_difference([0.89], [0.88])[1:] == (None, None, None)


def test_a_paired_difference_is_that_of_scipy():
    reference = stats.ttest_rel(FIRST, SECOND)

    found = paired_difference(FIRST, SECOND)

    assert found.mean == pytest.approx((FIRST - SECOND).mean())
    assert found.p_value == pytest.approx(reference.pvalue)
    assert (found.low, found.high) == pytest.approx(tuple(reference.confidence_interval()))


def test_equal_values_do_not_differ():
    assert paired_difference(FIRST, FIRST) == (0.0, None, None, 1.0)


def test_equal_differences_tell_nothing_of_their_spread():
    found = paired_difference(FIRST + 0.01, FIRST)

    assert found == (pytest.approx(0.01), None, None, None)


def test_the_paired_test_errs_at_the_stated_rate():
    generator = np.random.default_rng(0)
    shared = generator.normal(size=(1000, 1, 5))  # what equal seeds have in common
    first, second = np.moveaxis(shared + generator.normal(size=(1000, 2, 5)), 1, 0)

    errors = sum(paired_difference(a, b).p_value < 0.05 for a, b in zip(first, second, strict=True))

    assert stats.binomtest(errors, 1000, 0.05).pvalue > 0.001


def test_the_paired_test_of_counts_errs_no_more_often_than_stated():
    """With two seeds and 500 images, equal differences are common."""
    counts = np.random.default_rng(0).normal(400, 2, size=(2000, 2, 2)).round()
    found = [paired_difference(first / 500, second / 500).p_value for first, second in counts]

    assert found.count(None) > 50
    errors = sum(p is not None and p < 0.05 for p in found)
    assert stats.binomtest(errors, 2000, 0.05, alternative="greater").pvalue > 0.001


def test_holm_keeps_the_stated_rate_for_a_family():
    generator = np.random.default_rng(0)
    baseline = generator.normal(size=(600, 5))
    variants = generator.normal(size=(600, 3, 5))

    errors = sum(
        min(holm([paired_difference(variant, alone).p_value for variant in family])) < 0.05
        for family, alone in zip(variants, baseline, strict=True)
    )

    assert stats.binomtest(errors, 600, 0.05, alternative="greater").pvalue > 0.001
    assert stats.binomtest(errors, 600, 0.015, alternative="less").pvalue > 0.001


@pytest.mark.parametrize("family", [[0.03], [0.02, 0.02, 0.02], [0.5, 0.01, 0.04, 0.03], [0.9, 0.7, 0.001, 0.4, 0.0]])
def test_holm_is_that_of_statsmodels(family):
    assert holm(family) == pytest.approx(multipletests(family, method="holm")[1].tolist())


@pytest.mark.parametrize("images", [1, 2, 10, 1000])
def test_mcnemar_is_that_of_statsmodels(images):
    first, second = np.random.default_rng(images).random((2, images)) < [[0.9], [0.85]]
    table = [[(first & second).sum(), (first & ~second).sum()], [(~first & second).sum(), (~first & ~second).sum()]]

    found = mcnemar(first, second)

    assert (found.only_first, found.only_second) == (table[0][1], table[1][0])
    assert found.p_value == pytest.approx(reference_mcnemar(table, exact=True).pvalue)


def test_identical_predictions_give_a_p_value_of_one():
    correct = np.array([True, False, True])

    assert mcnemar(correct, correct) == (0, 0, 1.0)


@pytest.mark.parametrize("seeds", [2, 3, 5, 20])
def test_the_detectable_difference_is_that_of_statsmodels(seeds):
    effect = TTestPower().solve_power(nobs=seeds, alpha=0.05, power=0.8)

    assert detectable_difference(0.3, seeds) == pytest.approx(0.3 * effect, rel=1e-3)


def test_a_detectable_difference_is_found_four_times_in_five():
    difference = detectable_difference(1.0, seeds=5, tests=3)
    generator = np.random.default_rng(0)

    found = [
        paired_difference(sample, np.zeros(5)).p_value < 0.05 / 3
        for sample in generator.normal(difference, 1, size=(800, 5))
    ]

    assert np.mean(found) == pytest.approx(0.8, abs=0.05)


def test_calibration_counts_images_by_confidence():
    probabilities = np.array([[0.95, 0.05], [0.94, 0.06], [0.45, 0.55], [1.0, 0.0]], np.float32)

    bins = calibration(np.array([0, 1, 1, 0]), probabilities)

    assert [one.images for one in bins] == [0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 3]
    assert bins[14].accuracy == pytest.approx(2 / 3)
    assert bins[14].confidence == pytest.approx((0.95 + 0.94 + 1) / 3)
    # Weighted by images: one at 0.45, three at 0.963 less 0.667.
    assert calibration_error(bins) == pytest.approx((0.45 + 3 * (0.96333 - 0.66667)) / 4, abs=1e-4)
