"""From the results of all runs to what they show of each variant."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lenet_keras.comparison.results import Result, by_variant, check_comparable
from lenet_keras.comparison.statistics import (
    CalibrationBin,
    Difference,
    McNemar,
    Spread,
    calibration,
    calibration_error,
    detectable_difference,
    holm,
    mcnemar,
    paired_difference,
    spread,
)
from lenet_keras.tensorboard.figures import confusion_matrix

PATIENCES = (3, 5, 10)  # epochs


@dataclass(frozen=True)
class EarlyStopping:
    """What stopping would have saved and cost, had training ended `patience` epochs after the lowest validation loss.

    Attributes:
        patience: in epochs.
        epochs: that would have been trained, the mean over seeds.
        test_accuracy: at the epoch of the lowest validation loss less that after the last epoch, a fraction.
    """

    patience: int
    epochs: float
    test_accuracy: Spread


@dataclass(frozen=True)
class Versus:
    """A variant compared with the baseline, on the seeds that both have.

    Attributes:
        test: the difference of test accuracies.
        test_p_adjusted: its p-value, corrected over the variants; None if it has none.
        gap: the difference of over-fit gaps.
        gap_p_adjusted: its p-value, corrected likewise.
        detectable: the smallest true difference of test accuracies that would have been found; None with one seed, or
            if all seeds differ by the same.
        seeds: those that both have.
        images: for each of them, on which test images only one of the two is right (first: the variant); p-values
            corrected over variants and seeds.
    """

    test: Difference
    test_p_adjusted: float | None
    gap: Difference
    gap_p_adjusted: float | None
    detectable: float | None
    seeds: tuple[int, ...]
    images: tuple[McNemar, ...]

    @property
    def is_blind(self) -> bool:
        """Whether no difference would have been found: `detectable` is more than accuracies can differ."""
        return self.detectable is not None and self.detectable > 1


@dataclass(frozen=True)
class Variant:
    """What the runs of a variant show; accuracies are fractions, and each spread is over seeds.

    Attributes:
        name: its name.
        settings: those with an effect, without the seed.
        seeds: of its runs.
        epochs: that were trained, the mean over seeds.
        train_during: training accuracy as it accumulates in the last epoch, with dropout on.
        train, test: accuracies measured after training; `validation` is None if nothing was held out.
        gap: the over-fit gap, training less test accuracy, both measured after training.
        test_loss: in nats.
        converged: the epoch from which on the mean test accuracy stays at its final level (`converged_epoch`); None if
            there is none, or the runs did not record it.
        early_stopping: for some patiences; empty unless validation loss and test accuracy were recorded.
        class_accuracies: test accuracy of each class, the mean over seeds.
        confusion: int [classes, classes], test images of all seeds by true (row) and predicted class.
        calibration: of all seeds together.
        calibration_error: the expected calibration error.
        seconds: for a run, the mean.
        versus: compared with the baseline; None for the baseline itself, and without a seed in common.
    """

    name: str
    settings: Mapping[str, Any]
    seeds: tuple[int, ...]
    epochs: float
    train_during: Spread
    train: Spread
    validation: Spread | None
    test: Spread
    gap: Spread
    test_loss: Spread
    converged: int | None
    early_stopping: tuple[EarlyStopping, ...]
    class_accuracies: tuple[float, ...]
    confusion: tuple[tuple[int, ...], ...]
    calibration: tuple[CalibrationBin, ...]
    calibration_error: Spread
    seconds: float
    versus: Versus | None


def analyse(results: Sequence[Result]) -> list[Variant]:
    """Describe each variant, in the order in which they appear; the first is the baseline.

    Raises:
        InvalidArgument: the results cannot be compared.
    """
    check_comparable(results)
    variants = by_variant(results)
    baseline, *others = ({run.config.seed: run for run in runs} for runs in variants.values())
    versus = _versus(baseline, dict(zip(list(variants)[1:], others, strict=True)))
    return [_variant(name, runs, versus.get(name)) for name, runs in variants.items()]


def accuracy_gap(result: Result) -> float:
    """Return the over-fit gap of a run: training less test accuracy, both measured after training."""
    return float(result.metrics["train"]["accuracy"] - result.metrics["test"]["accuracy"])


def curve(results: Sequence[Result], column: str) -> NDArray[np.float64] | None:
    """Return a column of history.csv for each run, float64 [runs, epochs]: up to the end of the shortest run.

    Returns:
        None unless all runs recorded it.
    """
    epochs = min(len(result.history) for result in results)
    rows = [[row.get(column) for row in result.history[:epochs]] for result in results]
    if any(value is None for row in rows for value in row):
        return None
    return np.array(rows, np.float64)


def converged_epoch(accuracies: NDArray[np.float64], images: int) -> int | None:
    """Return the epoch, counted from 1, from which on a curve stays at its final level.

    The final level is the mean of the last five epochs; a curve is there while it is no more than one standard error
    of an accuracy on so many images below it. That is the one-standard-error rule of Breiman and others 1984,
    "Classification and regression trees", section 3.4.3: smaller differences are noise of the test set.

    >>> converged_epoch(np.array([0.5, 0.8, 0.899, 0.9, 0.9, 0.9, 0.9, 0.9]), images=10_000)
    3

    Args:
        accuracies: the mean over seeds after each epoch, fractions [epochs].
        images: how many test images there are.

    Returns:
        None if the curve is below that after the last epoch.
    """
    level = accuracies[-5:].mean()
    is_below = accuracies < level - np.sqrt(level * (1 - level) / images)
    return None if is_below[-1] else int(np.flatnonzero([True, *is_below])[-1]) + 1


def stopping_epoch(losses: NDArray[np.float64], patience: int) -> tuple[int, int]:
    """Return when early stopping ends a training, and the epoch that it returns to, both counted from 1.

    >>> stopping_epoch(np.array([0.9, 0.5, 0.6, 0.7, 0.4]), patience=2)
    (4, 2)

    Args:
        losses: on the validation images after each epoch, [epochs].
        patience: how many epochs without a lower loss end it.
    """
    best = 0
    for epoch, loss in enumerate(losses):
        if loss < losses[best]:
            best = epoch
        elif epoch - best >= patience:
            return epoch + 1, best + 1
    return len(losses), best + 1


def _versus(baseline: Mapping[int, Result], others: Mapping[str, Mapping[int, Result]]) -> dict[str, Versus]:
    shared = {name: sorted(seed for seed in runs if seed in baseline) for name, runs in others.items()}
    shared = {name: seeds for name, seeds in shared.items() if seeds}

    def paired(name: str, measure: Callable[[Result], float]) -> NDArray[np.float64]:
        # Of the variant (row 0) and the baseline (row 1), a column for each seed.
        return np.array([[measure(runs[seed]) for seed in shared[name]] for runs in (others[name], baseline)])

    def corrected(differences: Mapping[str, Difference]) -> dict[str, float]:
        known = {name: one.p_value for name, one in differences.items() if one.p_value is not None}
        return dict(zip(known, holm(list(known.values())), strict=True))

    accuracies = {name: paired(name, lambda run: float(run.metrics["test"]["accuracy"])) for name in shared}
    tests = {name: paired_difference(*pairs) for name, pairs in accuracies.items()}
    gaps = {name: paired_difference(*paired(name, accuracy_gap)) for name in shared}
    tests_adjusted, gaps_adjusted = corrected(tests), corrected(gaps)

    images = [
        (name, mcnemar(others[name][seed].is_correct, baseline[seed].is_correct))
        for name, seeds in shared.items()
        for seed in seeds
    ]
    images_adjusted = holm([found.p_value for _, found in images])
    images = [(name, found._replace(p_value=p)) for (name, found), p in zip(images, images_adjusted, strict=True)]

    def detectable(name: str) -> float | None:
        differences = accuracies[name][0] - accuracies[name][1]
        if tests[name].low is None:
            return None
        return detectable_difference(float(differences.std(ddof=1)), len(differences), len(shared))

    return {
        name: Versus(
            test=tests[name],
            test_p_adjusted=tests_adjusted.get(name),
            gap=gaps[name],
            gap_p_adjusted=gaps_adjusted.get(name),
            detectable=detectable(name),
            seeds=tuple(shared[name]),
            images=tuple(found for other, found in images if other == name),
        )
        for name in shared
    }


def _variant(name: str, runs: Sequence[Result], versus: Versus | None) -> Variant:
    config = runs[0].config

    def over_seeds(split: str, measure: str = "accuracy") -> Spread:
        return spread([run.metrics[split][measure] for run in runs])

    test, losses = curve(runs, "test_accuracy"), curve(runs, "val_loss")
    labels = runs[0].labels
    classes = runs[0].probabilities.shape[1]
    confusion = np.sum([confusion_matrix(labels, run.probabilities.argmax(axis=1), classes) for run in runs], axis=0)
    bins = [calibration(labels, run.probabilities) for run in runs]
    return Variant(
        name=name,
        settings={
            key: value for key, value in config.to_json().items() if key not in {"seed", *config.without_effect()}
        },
        seeds=tuple(run.config.seed for run in runs),
        epochs=float(np.mean([run.metrics["epochs"] for run in runs])),
        train_during=spread([run.train_accuracy_during for run in runs]),
        train=over_seeds("train"),
        validation=over_seeds("validation") if all(run.metrics["validation"] for run in runs) else None,
        test=over_seeds("test"),
        gap=spread([accuracy_gap(run) for run in runs]),
        test_loss=over_seeds("test", "loss"),
        converged=None if test is None else converged_epoch(test.mean(axis=0), len(labels)),
        early_stopping=() if test is None or losses is None else _early_stopping(losses, test),
        class_accuracies=tuple((np.diag(confusion) / confusion.sum(axis=1)).tolist()),
        confusion=tuple(map(tuple, confusion.tolist())),
        calibration=tuple(calibration(np.tile(labels, len(runs)), np.concatenate([run.probabilities for run in runs]))),
        calibration_error=spread([calibration_error(one) for one in bins]),
        seconds=float(np.mean([run.seconds for run in runs])),
        versus=versus,
    )


def _early_stopping(losses: NDArray[np.float64], test: NDArray[np.float64]) -> tuple[EarlyStopping, ...]:
    found = []
    for patience in PATIENCES:
        stops = [stopping_epoch(row, patience) for row in losses]
        cost = [row[best - 1] - row[-1] for row, (_, best) in zip(test, stops, strict=True)]
        found.append(EarlyStopping(patience, float(np.mean([end for end, _ in stops])), spread(cost)))
    return tuple(found)
