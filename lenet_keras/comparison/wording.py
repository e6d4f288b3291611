"""A comparison in words and as a Markdown table: what may be concluded, and what may not."""

from __future__ import annotations

from collections.abc import Sequence

from lenet_keras.comparison.analysis import Variant
from lenet_keras.comparison.statistics import Difference, Spread

SIGNIFICANCE = 0.05

# Table 1 of the course report that this project reproduces: train and test accuracy in percent, single runs.
REPORTED = {
    "none": (92.44, 89.27),
    "dropout": (90.07, 88.55),
    "batch_norm": (95.16, 90.16),
    "weight_decay": (91.35, 89.30),
}
REPORTED_DATASET = "fashion_mnist"


def table_rows(variants: Sequence[Variant]) -> tuple[list[str], list[list[str]]]:
    """Return head and rows of Table 1: accuracies in percent as mean ± standard deviation over seeds.

    The report's own numbers stand beside ours where they are of the same regularisation and dataset.
    """
    has_report = any(_reported(variant) for variant in variants)
    head = [
        "variant",
        "seeds",
        "train (during) %",
        "train %",
        "test %",
        "test − baseline",
        "p (Holm)",
        "over-fit gap",
    ]
    if has_report:
        head += ["report: train %", "report: test %"]
    rows = []
    for variant in variants:
        versus = variant.versus
        row = [
            variant.name,
            str(len(variant.seeds)),
            mean_and_deviation(variant.train_during),
            mean_and_deviation(variant.train),
            mean_and_deviation(variant.test),
            interval(versus.test) if versus else "baseline" if variant is variants[0] else "no seed in common",
            p_value(versus.test_p_adjusted) if versus and versus.test_p_adjusted is not None else "",
            mean_and_deviation(variant.gap),
        ]
        if has_report:
            row += [f"{number:.2f}" for number in _reported(variant) or ()] or ["", ""]
        rows.append(row)
    return head, rows


def markdown_table(variants: Sequence[Variant]) -> str:
    """Return Table 1 in Markdown, with a line that explains it."""
    head, rows = table_rows(variants)
    lines = [head, ["---"] + ["---:"] * (len(head) - 1), *rows]
    table = "\n".join("| " + " | ".join(line) + " |" for line in lines)
    return f"{table}\n\n{CAPTION}\n"


CAPTION = (
    "Mean ± standard deviation over seeds, in percent; differences and gaps in points, with 95 % intervals. "
    '"During" accumulates while the last epoch trains, with dropout on; the other accuracies are measured afterwards. '
    "The over-fit gap is train less test."
)


def conclusions(variants: Sequence[Variant], images: int) -> list[str]:
    """Return what the comparison shows of each variant, a sentence or two each.

    Args:
        variants: as `analyse` returns them, the baseline first.
        images: how many test images there are.
    """
    baseline, *others = variants
    return [_on_variant(variant, baseline) for variant in others] + _limits(variants, images)


def mean_and_deviation(one: Spread) -> str:
    """Return a fraction's spread in percent.

    >>> mean_and_deviation(Spread(0.8927, 0.0031, 0.88, 0.90))
    '89.27 ± 0.31'
    """
    return f"{100 * one.mean:.2f}" + (f" ± {100 * one.deviation:.2f}" if one.deviation is not None else "")


def interval(one: Difference | Spread) -> str:
    """Return a difference of fractions in points, signed, with its interval.

    >>> interval(Difference(0.0072, 0.0043, 0.0101, 0.002))
    '+0.72 (+0.43 to +1.01)'
    """
    if one.low is None or one.high is None:
        return points(one.mean)
    return f"{points(one.mean)} ({points(one.low)} to {points(one.high)})"


def points(fraction: float) -> str:
    """Return a difference of fractions in points, signed.

    >>> points(0.0072)
    '+0.72'
    """
    return f"{100 * fraction:+.2f}".replace("-", "\N{MINUS SIGN}")


def p_value(p: float) -> str:
    """Return a p-value as it is printed.

    >>> p_value(0.0304), p_value(0.00002)
    ('0.030', '< 0.001')
    """
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def _reported(variant: Variant) -> tuple[float, float] | None:
    return REPORTED.get(variant.settings["reg"]) if variant.settings["dataset"] == REPORTED_DATASET else None


def _on_variant(variant: Variant, baseline: Variant) -> str:
    versus = variant.versus
    if versus is None:
        return f"{variant.name} and {baseline.name} have no seed in common: they are not compared."
    seeds = len(versus.seeds)
    if versus.test_p_adjusted is None:
        if seeds > 1:
            return (
                f"The test accuracies of {variant.name} and {baseline.name} differ by {points(versus.test.mean)} "
                f"points with each of {seeds} seeds. Equal differences give no interval: this may be chance."
            )
        return (
            f"{variant.name} and {baseline.name} have one seed in common, where their test accuracies differ by "
            f"{points(versus.test.mean)} points. One seed gives no interval: this may be chance."
        )
    found = f"{interval(versus.test)} points, corrected p {_equals(versus.test_p_adjusted)}"
    if versus.test_p_adjusted < SIGNIFICANCE:
        direction = "higher" if versus.test.mean > 0 else "lower"
        sentence = f"{variant.name} has a {direction} test accuracy than {baseline.name}: {found}."
    else:
        sentence = f"No difference in test accuracy between {variant.name} and {baseline.name} is shown: {found}."
        if versus.is_blind:
            sentence += f" With {seeds} seeds, no difference would have been found four times in five."
        elif versus.detectable is not None:
            sentence += (
                f" With {seeds} seeds, a true difference of {100 * versus.detectable:.2f} points would have been found "
                "four times in five; a smaller one may well exist."
            )
    if versus.gap_p_adjusted is not None and versus.gap_p_adjusted < SIGNIFICANCE:
        sentence += f" It over-fits {'more' if versus.gap.mean > 0 else 'less'}: {interval(versus.gap)} points."
    decided = [one for one in versus.images if one.p_value < SIGNIFICANCE]
    better = sum(one.only_first > one.only_second for one in decided)
    return (
        f"{sentence} Image by image (McNemar), it is better for {better} of {seeds} seeds, worse for "
        f"{len(decided) - better}, undecided for {seeds - len(decided)}."
    )


def _limits(variants: Sequence[Variant], images: int) -> list[str]:
    baseline = variants[0]
    error = 100 * (baseline.test.mean * (1 - baseline.test.mean) / images) ** 0.5
    found = [
        f"The intervals allow for chance in training only: the {images:,} test images are the same throughout. They "
        f"are a sample, too: one accuracy of {100 * baseline.test.mean:.1f} % has a standard error of {error:.2f} "
        "points for that reason. Between variants, which share the images, much of it cancels out."
    ]
    for variant in variants[1:]:
        differing = [
            name
            for name, value in variant.settings.items()
            # The settings of a regularisation that only one of them has are a part of it.
            if name != "reg" and value != baseline.settings.get(name, value)
        ]
        if differing and variant.settings["reg"] != baseline.settings["reg"]:
            values = ", ".join(
                f"{name} ({variant.settings[name]}, not {baseline.settings[name]})" for name in differing
            )
            found.append(
                f"{variant.name} and {baseline.name} differ not only in their regularisation but in {values}: no "
                "difference between them can be put down to the regularisation alone."
            )
    return found


def _equals(p: float) -> str:
    return p_value(p) if p < 0.001 else f"= {p_value(p)}"
