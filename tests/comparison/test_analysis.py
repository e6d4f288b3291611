import dataclasses
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from lenet_keras.comparison.analysis import analyse, converged_epoch, stopping_epoch
from lenet_keras.comparison.results import Result
from lenet_keras.comparison.wording import conclusions, markdown_table
from lenet_keras.config import TrainConfig
from lenet_keras.errors import InvalidArgument

LABELS = np.arange(1000) % 10


def result(reg, seed, right, *, train=0.95, test_curve=(0.5, 0.8), val_losses=(0.6, 0.5), **settings):
    """Return a run that classifies the first `right` of 1,000 test images correctly."""
    config = TrainConfig(reg=reg, seed=seed, **settings)
    predicted = np.where(np.arange(1000) < right, LABELS, (LABELS + 1) % 10)
    probabilities = np.full((1000, 10), 0.02, np.float32)
    probabilities[np.arange(1000), predicted] = 0.82
    split = {"loss": 0.3, "accuracy": train}
    return Result(
        variant=config.reg,
        path=Path(config.reg, str(seed)),
        config=config,
        record={"processor": "a processor", "versions": {"keras": "3"}},
        metrics={
            "train": split,
            "validation": split,
            "test": {"loss": 0.4, "accuracy": right / 1000},
            "epochs": 2,
            "best_epoch": None,
            "parameters": 61_706,
        },
        history=[
            {"epoch": 1 + i, "accuracy": 0.7, "test_accuracy": test, "val_loss": loss, "seconds": 2.0}
            for i, (test, loss) in enumerate(zip(test_curve, val_losses, strict=True))
        ],
        labels=LABELS,
        probabilities=probabilities,
    )


@pytest.fixture
def results():
    right = {"none": (890, 895, 900), "dropout": (870, 872, 883), "weight_decay": (891, 893, 902)}
    return [result(reg, seed, count) for reg, counts in right.items() for seed, count in enumerate(counts)]


def test_each_variant_is_compared_with_the_first_seed_by_seed(results):
    none, dropout, decay = analyse(results)

    reference = stats.ttest_rel([0.870, 0.872, 0.883], [0.890, 0.895, 0.900]).pvalue
    assert none.versus is None
    assert dropout.versus.test.mean == pytest.approx(-0.02)
    assert dropout.versus.test.p_value == pytest.approx(reference)
    assert dropout.versus.test_p_adjusted == pytest.approx(2 * reference)
    assert decay.versus.test_p_adjusted > 0.5


def test_seeds_are_paired_whatever_the_order_of_the_runs(results):
    assert [one.versus for one in analyse([results[0], *results[:0:-1]])][2] == analyse(results)[1].versus


def test_images_are_compared_seed_by_seed(results):
    images = analyse(results)[1].versus.images

    assert [(one.only_first, one.only_second) for one in images] == [(0, 20), (0, 23), (0, 17)]
    assert all(one.p_value < 0.001 for one in images)


def test_the_confusion_counts_every_image_of_every_seed(results):
    none = analyse(results)[0]

    assert np.sum(none.confusion) == 3000
    assert np.trace(none.confusion) == 890 + 895 + 900
    assert none.class_accuracies == pytest.approx(np.diag(none.confusion) / 300)


def test_the_gap_is_train_less_test(results):
    assert analyse(results)[0].gap.mean == pytest.approx(0.95 - 0.895)


def test_one_seed_is_said_to_prove_nothing():
    variants = analyse([result("none", 0, 890), result("dropout", 0, 870)])

    sentence = conclusions(variants, 1000)[0]

    assert variants[1].versus.test_p_adjusted is None
    assert "One seed gives no interval: this may be chance." in sentence
    assert "| −2.00 |" in markdown_table(variants)


@pytest.mark.parametrize(
    ("right", "words"),
    [
        ((870, 875), "differ by −2.00 points with each of 2 seeds. Equal differences give no interval"),
        (
            (890, 895),
            "No difference in test accuracy between dropout and none is shown: +0.00 points, corrected p = 1",
        ),
    ],
)
def test_equal_differences_are_no_evidence(right, words):
    runs = [result("none", seed, count) for seed, count in enumerate((890, 895))]
    runs += [result("dropout", seed, count) for seed, count in enumerate(right)]

    sentence = conclusions(analyse(runs), 1000)[0]

    assert words in sentence
    assert "would have been found" not in sentence


def test_seeds_that_could_not_show_any_difference_are_said_to():
    counts = {"none": (890, 700), "dropout": (700, 890)}
    runs = [result(reg, seed, right) for reg, each in counts.items() for seed, right in enumerate(each)]

    variants = analyse(runs)

    assert variants[1].versus.is_blind
    assert "With 2 seeds, no difference would have been found four times in five." in conclusions(variants, 1000)[0]


def test_over_fit_gaps_are_compared_with_corrected_p_values_too():
    trains = {"none": (0.95, 0.95, 0.95), "dropout": (0.92, 0.905, 0.93), "weight_decay": (0.95, 0.951, 0.95)}
    runs = [result(reg, seed, 900, train=train) for reg, each in trains.items() for seed, train in enumerate(each)]

    _, dropout, _ = variants = analyse(runs)

    assert dropout.versus.gap.p_value < 0.05 < dropout.versus.gap_p_adjusted == 2 * dropout.versus.gap.p_value
    assert "over-fits" not in conclusions(variants, 1000)[0]


def test_words_follow_the_corrected_p_value(results):
    on_dropout, on_decay, *limits = conclusions(analyse(results), 1000)

    assert on_dropout.startswith(
        "dropout has a lower test accuracy than none: −2.00 (−2.75 to −1.25) points, corrected p = 0.01"
    )
    assert "worse for 3, undecided for 0" in on_dropout
    assert on_decay.startswith("No difference in test accuracy between weight_decay and none is shown")
    assert "standard error of 0.97 points" in limits[0]
    assert len(limits) == 1


def test_settings_that_differ_beside_the_regularisation_are_named():
    results = [result("none", 0, 890, epochs=50), result("dropout", 0, 870, epochs=40, dropout_rate=0.5)]

    assert (
        "dropout and none differ not only in their regularisation but in epochs (40, not 50):"
        in conclusions(analyse(results), 1000)[-1]
    )


def test_settings_of_a_regularisation_that_only_one_variant_has_are_a_part_of_it():
    results = [result("none", 0, 890), result("weight_decay", 0, 880, weight_decay=5e-4)]

    assert len(conclusions(analyse(results), 1000)) == 2


def test_runs_with_other_test_images_are_refused():
    other = dataclasses.replace(result("none", 0, 880), labels=LABELS[::-1])

    with pytest.raises(InvalidArgument, match="runs on different datasets cannot be compared"):
        analyse([result("dropout", 0, 890), other])


def test_a_seed_may_be_there_once_for_each_variant():
    with pytest.raises(InvalidArgument, match="are both none with seed 0"):
        analyse([result("none", 0, 890), result("none", 0, 880)])


@pytest.mark.parametrize("seed", [0, 1])
def test_runs_of_a_variant_need_the_same_settings(seed):
    runs = [result("none", 0, 890, epochs=50), result("none", seed, 890, epochs=40)]

    with pytest.raises(
        InvalidArgument, match=rf"none/0 and none/{seed} are both none, with different settings \(epochs: 50, now 40"
    ):
        analyse(runs)


def test_no_run_is_no_comparison():
    with pytest.raises(InvalidArgument, match="no finished run to compare"):
        analyse([])


def test_a_curve_has_converged_when_it_stays_within_a_standard_error():
    final = np.full(10, 0.9)
    error = np.sqrt(0.9 * 0.1 / 10_000)
    rising = np.concatenate([[0.7, 0.9 - 1.1 * error, 0.9 - 0.9 * error], final])

    assert converged_epoch(rising, images=10_000) == 3
    assert converged_epoch(np.concatenate([rising[:3], [0.8], final]), images=10_000) == 5
    assert converged_epoch(final, images=10_000) == 1


def test_a_curve_that_falls_below_its_final_level_at_the_end_has_not_converged():
    assert converged_epoch(np.array([0.8, 0.9, 0.9, 0.9, 0.9, 0.89]), images=10_000) is None


def test_early_stopping_is_simulated_as_training_does_it():
    losses = np.array([0.9, 0.6, 0.7, 0.5, 0.8, 0.8, 0.4])

    assert stopping_epoch(losses, patience=2) == (6, 4)
    assert stopping_epoch(losses, patience=3) == (7, 7)
    assert stopping_epoch(losses, patience=1) == (3, 2)


def test_early_stopping_tells_what_it_saves_and_costs():
    losses, curve = (0.9, 0.5, 0.6, 0.7, 0.8, 0.9), (0.5, 0.80, 0.81, 0.82, 0.83, 0.84)
    runs = [result("none", seed, 890, val_losses=losses, test_curve=curve) for seed in (0, 1)]

    found = analyse(runs)[0].early_stopping[0]

    assert (found.patience, found.epochs) == (3, 5.0)
    assert found.test_accuracy.mean == pytest.approx(-0.04)


def test_without_recorded_curves_nothing_is_said_about_them():
    runs = [result("none", 0, 890, test_curve=(None, None))]

    assert (analyse(runs)[0].converged, analyse(runs)[0].early_stopping) == (None, ())


def test_the_report_and_its_numbers_stand_beside_ours(results):
    lines = markdown_table(analyse(results)).splitlines()

    assert lines[0].endswith("| report: train % | report: test % |")
    assert (
        lines[2]
        == "| none | 3 | 70.00 ± 0.00 | 95.00 ± 0.00 | 89.50 ± 0.50 | baseline |  | 5.50 ± 0.50 | 92.44 | 89.27 |"
    )
