"""The statistics of a comparison: over seeds, over test images, and over the family of variants."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import optimize, stats

CONFIDENCE = 0.95
POWER = 0.8
CALIBRATION_BINS = 15  # as in Guo et al. 2017
_ROUND_OFF = 1e-12


class Spread(NamedTuple):
    """A mean over seeds with its uncertainty; None where a single seed leaves it unknown.

    Attributes:
        mean: the mean.
        deviation: the standard deviation of one training, with n - 1.
        low, high: the 95 % interval of the mean.
    """

    mean: float
    deviation: float | None
    low: float | None
    high: float | None


class Difference(NamedTuple):
    """The mean of differences between paired trainings, its 95 % interval, and the p-value of no difference.

    All but the mean are None where they are unknown: with one pair, or if all pairs differ by the same.
    """

    mean: float
    low: float | None
    high: float | None
    p_value: float | None


class McNemar(NamedTuple):
    """How many test images only the first model, or only the second, classifies correctly, and the exact p-value."""

    only_first: int
    only_second: int
    p_value: float


class CalibrationBin(NamedTuple):
    """The test images whose most probable class has a probability in one range.

    Attributes:
        images: how many.
        confidence: their mean probability; NaN if there are none.
        accuracy: the fraction of them that is classified correctly; NaN if there are none.
    """

    images: int
    confidence: float
    accuracy: float


def spread(values: ArrayLike) -> Spread:
    """Describe one value per seed, [n], n >= 1: the interval is Student's, with n - 1 degrees of freedom.

    >>> spread([0.89, 0.90, 0.91]).mean
    0.9
    """
    sample = np.asarray(values, np.float64)
    mean = float(sample.mean())
    if len(sample) == 1:
        return Spread(mean, None, None, None)
    low, high = _interval(sample)
    return Spread(mean, float(sample.std(ddof=1)), low, high)


def paired_difference(values: ArrayLike, baseline: ArrayLike) -> Difference:
    """Compare two variants trained with the same seeds, [n] and [n], n >= 1, by Student's paired test (two-sided).

    Equal seeds have equal initial weights and held-out images, so the difference varies less than either value. A few
    accuracies, which are counts of images, may differ by the same number by chance: that says nothing of how much
    differences vary. If none of them differs, the p-value is 1.

    >>> paired_difference([3.0, 4.0, 8.0], [1.0, 3.0, 5.0]).mean
    2.0
    """
    differences = np.asarray(values, np.float64) - np.asarray(baseline, np.float64)
    mean = float(differences.mean())
    if np.ptp(differences) < _ROUND_OFF:
        has_no_difference = len(differences) > 1 and abs(mean) < _ROUND_OFF
        return Difference(mean, None, None, 1.0 if has_no_difference else None)
    low, high = _interval(differences)
    return Difference(mean, low, high, float(stats.ttest_1samp(differences, 0).pvalue))


def holm(p_values: Sequence[float]) -> list[float]:
    """Correct the p-values of a family so that all of them together err as often as stated.

    S. Holm 1979, "A simple sequentially rejective multiple test procedure".

    >>> holm([0.01, 0.04, 0.03])
    [0.03, 0.06, 0.06]
    """
    corrected = [1.0] * len(p_values)
    largest = 0.0
    for rank, index in enumerate(np.argsort(p_values, kind="stable")):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[index]))
        corrected[index] = largest
    return corrected


def mcnemar(first_correct: NDArray[np.bool_], second_correct: NDArray[np.bool_]) -> McNemar:
    """Compare two models on the same test images, bool [N] and [N]: is one of them right more often?

    Exact and two-sided: of the images on which only one is right, either is as likely to be the one. Q. McNemar 1947,
    "Note on the sampling error of the difference between correlated proportions or percentages".

    >>> mcnemar(np.array([True, True, True]), np.array([True, False, False]))
    McNemar(only_first=2, only_second=0, p_value=0.5)
    """
    only_first = int((first_correct & ~second_correct).sum())
    only_second = int((~first_correct & second_correct).sum())
    if only_first + only_second == 0:
        return McNemar(0, 0, 1.0)
    return McNemar(only_first, only_second, float(stats.binomtest(only_first, only_first + only_second).pvalue))


def detectable_difference(deviation: float, seeds: int, tests: int = 1) -> float:
    """Return the smallest true difference that a comparison would have found with a probability of 80 %.

    The power of Student's paired test at 5 %, divided by the number of tests in the family (the strictest step of
    Holm's correction), follows from the non-central F distribution of the statistic's square.

    >>> round(detectable_difference(deviation=1.0, seeds=5), 2)
    1.68

    Args:
        deviation: the standard deviation of the paired differences.
        seeds: how many there are, 2 or more.
        tests: how many variants are compared with the same baseline.

    Returns:
        The difference, in the unit of `deviation`.
    """
    freedom = seeds - 1
    critical = stats.t.isf((1 - CONFIDENCE) / 2 / tests, freedom)

    def lack_of_power(shift: float) -> float:
        return float(stats.ncf.sf(critical**2, 1, freedom, shift**2) - POWER)

    shift = float(optimize.brentq(lack_of_power, 0.1, 4 * critical + 10))
    return shift * deviation / float(np.sqrt(seeds))


def calibration(labels: NDArray[np.int64], probabilities: NDArray[np.floating[Any]]) -> list[CalibrationBin]:
    """Group test images by the probability of their most probable class, in 15 ranges of equal width.

    C. Guo and others 2017, "On calibration of modern neural networks".

    >>> calibration(np.array([0, 0]), np.array([[0.9, 0.1], [0.1, 0.9]]))[13]
    CalibrationBin(images=2, confidence=0.9, accuracy=0.5)

    Args:
        labels: int64 [N].
        probabilities: [N, classes].
    """
    confidence = probabilities.max(axis=1).astype(np.float64)
    is_correct = probabilities.argmax(axis=1) == labels
    number = np.minimum((confidence * CALIBRATION_BINS).astype(int), CALIBRATION_BINS - 1)
    bins = []
    for index in range(CALIBRATION_BINS):
        inside = number == index
        if inside.any():
            bins.append(
                CalibrationBin(int(inside.sum()), float(confidence[inside].mean()), float(is_correct[inside].mean()))
            )
        else:
            bins.append(CalibrationBin(0, float("nan"), float("nan")))
    return bins


def calibration_error(bins: Sequence[CalibrationBin]) -> float:
    """Return the expected calibration error: the mean distance of confidence and accuracy, weighted by images.

    >>> round(calibration_error([CalibrationBin(2, 0.9, 0.5), CalibrationBin(0, float("nan"), float("nan"))]), 3)
    0.4
    """
    images = sum(one.images for one in bins)
    return sum(one.images * abs(one.confidence - one.accuracy) for one in bins if one.images) / images


def _interval(sample: NDArray[np.float64]) -> tuple[float, float]:
    margin = stats.t.isf((1 - CONFIDENCE) / 2, len(sample) - 1) * stats.sem(sample)
    return float(sample.mean() - margin), float(sample.mean() + margin)
