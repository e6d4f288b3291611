"""The figures of a comparison: curves by epoch, and the calibration of each variant.

They are drawn with Matplotlib's objects only: without pyplot, nothing global is touched.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lenet_keras.comparison.analysis import Variant, curve
from lenet_keras.comparison.results import Result, by_variant
from lenet_keras.files import replacing

# M. Okabe and K. Ito, "Color Universal Design" (2008): distinct for the colour-blind. Line styles and markers repeat
# what the colours say.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000")
_STYLES = ("-", "--", "-.", ":")


def draw_convergence(results: Sequence[Result], test_column: str = "test_accuracy") -> Figure:
    """Draw training and test accuracy by epoch, a panel for each variant: lines are means over seeds, bands ranges.

    Args:
        results: finished runs.
        test_column: of history.csv, "test_accuracy" or "val_accuracy"; "accuracy" if neither is there: then the line
            of training stands alone.
    """
    variants = by_variant(results)
    rows = -(-len(variants) // 2)
    figure = Figure(figsize=(9, 0.6 + 3 * rows), layout="constrained")
    panels = list(figure.subplots(rows, min(2, len(variants)), sharex=True, sharey=True, squeeze=False).flat)
    for panel, (name, runs) in zip(panels, variants.items(), strict=False):
        _curve(panel, runs, "accuracy", "train, during the epoch", COLOURS[0], "-")
        if test_column != "accuracy":
            _curve(panel, runs, test_column, _called(test_column), COLOURS[1], "--")
        panel.set_title(f"{name}, {len(runs)} seed{'s' if len(runs) > 1 else ''}", fontsize=11)
    for panel in panels[len(variants) :]:
        panel.remove()
    first = figure.axes[0]
    figure.legend(*first.get_legend_handles_labels(), loc="outside lower center", ncols=2, frameon=False)
    _finish(figure, results, ("accuracy", test_column))
    if len(panels) > len(variants) > 1:  # nothing is below this one
        above = panels[len(variants) - 2]
        above.tick_params(labelbottom=True)
        above.set_xlabel("epoch")
    return figure


def draw_overlay(results: Sequence[Result], column: str = "test_accuracy") -> Figure:
    """Draw one curve by epoch for each variant in one panel; arguments are those of `draw_convergence`."""
    figure = Figure(figsize=(9, 4.5), layout="constrained")
    panel = figure.subplots()
    for index, (name, runs) in enumerate(by_variant(results).items()):
        _curve(panel, runs, column, name, COLOURS[index % len(COLOURS)], _STYLES[index % len(_STYLES)])
    panel.legend(loc="lower right", frameon=False)
    panel.set_title(f"accuracy: {_called(column)}", fontsize=11)
    _finish(figure, results, (column,))
    return figure


def draw_calibration(variants: Sequence[Variant]) -> Figure:
    """Draw the accuracy of test images by the probability of their most probable class, a line for each variant."""
    figure = Figure(figsize=(5.5, 5), layout="constrained")
    panel = figure.subplots()
    panel.plot([0, 1], [0, 1], color="0.6", linewidth=1, label="perfect")
    for index, variant in enumerate(variants):
        bins = [one for one in variant.calibration if one.images >= 20]  # fewer give no accuracy worth a point
        panel.plot(
            [one.confidence for one in bins],
            [one.accuracy for one in bins],
            marker="o",
            markersize=3.5,
            color=COLOURS[index % len(COLOURS)],
            linestyle=_STYLES[index % len(_STYLES)],
            label=f"{variant.name}, error {100 * variant.calibration_error.mean:.1f} %",
        )
    panel.set(xlabel="probability of the predicted class", ylabel="accuracy", xlim=(0, 1), ylim=(0, 1), aspect="equal")
    panel.grid(alpha=0.3)
    panel.legend(frameon=False)
    return figure


def save_png(figure: Figure, path: Path) -> None:
    """Write a figure as a PNG file.

    Raises:
        OSError: the file cannot be written.
    """
    with replacing(path) as temporary:
        figure.savefig(temporary, dpi=120, metadata={"Software": None})


def as_svg(figure: Figure) -> str:
    """Return a figure as an SVG document; equal figures give equal text.

    >>> as_svg(Figure()).startswith("<?xml")
    True
    """
    text = io.StringIO()
    # Text as text: it can be searched, selected and read aloud.
    with mpl.rc_context({"svg.hashsalt": "lenet-keras", "svg.fonttype": "none"}):
        figure.savefig(text, format="svg", metadata={"Date": None})
    return text.getvalue()


def _curve(panel: Axes, runs: Sequence[Result], column: str, label: str, colour: str, style: str) -> None:
    values = curve(runs, column)
    if values is None:
        return
    epochs = np.arange(1, values.shape[1] + 1)
    percent = 100 * values
    panel.fill_between(epochs, percent.min(axis=0), percent.max(axis=0), color=colour, alpha=0.2, linewidth=0)
    panel.plot(epochs, percent.mean(axis=0), color=colour, linestyle=style, label=label)


def _finish(figure: Figure, results: Sequence[Result], columns: Sequence[str]) -> None:
    curves = [100 * values for column in columns if (values := curve(results, column)) is not None]
    lowest = min(values.min() for values in curves)
    lowest_late = min(values[:, values.shape[1] // 5 :].min() for values in curves)
    for panel in figure.axes:
        panel.grid(alpha=0.3)
        panel.set_xlabel("epoch")
        panel.set_ylabel("accuracy in %")
        panel.label_outer()
        if lowest < lowest_late - 1:  # the first epochs rise from far below where the curves differ
            panel.set_ylim(bottom=np.floor(lowest_late) - 1)
        if max(len(result.history) for result in results) == 1:
            panel.set_xlim(0, 2)


def _called(column: str) -> str:
    return {"test_accuracy": "test", "val_accuracy": "validation", "accuracy": "train, during the epoch"}[column]
