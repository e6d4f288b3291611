"""The pictures of the test report, drawn with matplotlib's objects alone: no pyplot, so nothing global is touched."""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image

from lenet_keras.callbacks.predictions import most_confident_mistakes

ROWS, COLUMNS = 5, 8
_DPI = 100
_ARROW = "\N{RIGHTWARDS ARROW}"


def draw_confusion_matrix(counts: NDArray[np.int64], class_names: Sequence[str]) -> NDArray[np.uint8]:
    """Draw counts with each row shaded by its shares, so that classes of unequal size compare.

    Args:
        counts: int64 [C, C], true classes in rows, predicted ones in columns.
        class_names: C names.

    Returns:
        uint8 [H, W, 3]; the picture grows with the number of classes, so that counts stay readable.
    """
    num_classes = len(class_names)
    total = int(counts.sum())
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    side = 1.8 + 0.46 * num_classes
    figure = Figure(figsize=(side, side), dpi=_DPI, layout="constrained")
    axes = figure.add_subplot()
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    for (row, column), count in np.ndenumerate(counts):
        if count:
            color = "white" if shares[row, column] > 0.5 else "black"
            axes.text(column, row, str(count), ha="center", va="center", color=color, fontsize=11)
    axes.set_xticks(range(num_classes), class_names, rotation=45, ha="right", rotation_mode="anchor", fontsize=11)
    axes.set_yticks(range(num_classes), class_names, fontsize=11)
    axes.set_xlabel("predicted class")
    axes.set_ylabel("true class")
    axes.set_title(f"{total:,} test images, accuracy {counts.trace() / total:.2%}\nshade: share of the true class")
    return _pixels(figure)


def draw_mistakes(
    images: NDArray[np.uint8],
    labels: NDArray[np.int64],
    probabilities: NDArray[np.float32],
    class_names: Sequence[str],
) -> NDArray[np.uint8]:
    """Draw the misclassified images of which the model was most sure, row by row.

    Args:
        images: uint8 [N, H, W, 1].
        labels: int64 [N].
        probabilities: float32 [N, C].
        class_names: C names.

    Returns:
        uint8 [H, W, 3]: `COLUMNS` images a row, as many rows as needed, at most `ROWS`.
    """
    predicted = probabilities.argmax(axis=1)
    wrong = int((predicted != labels).sum())
    shown = most_confident_mistakes(labels, probabilities, ROWS * COLUMNS)
    rows = max(1, -(-len(shown) // COLUMNS))
    figure = Figure(figsize=(10.0, 1.8 * rows + 0.6), dpi=_DPI)
    # Fixed margins: a layout engine would add a second for these forty axes.
    figure.subplots_adjust(
        left=0.005, right=0.995, bottom=0, top=1 - 1.1 / figure.get_figheight(), hspace=0.52, wspace=0.06
    )
    figure.suptitle(
        f"{wrong:,} of {len(labels):,} test images misclassified\n"
        f"most confident first: true class {_ARROW} predicted class, its probability",
        y=1 - 0.08 / figure.get_figheight(),
    )
    for place, axes in enumerate(figure.subplots(rows, COLUMNS).flat):
        axes.set_axis_off()
        if place >= len(shown):
            continue
        index = shown[place]
        chosen = predicted[index]
        axes.imshow(images[index, :, :, 0], cmap="gray", vmin=0, vmax=255)
        axes.set_title(
            f"{class_names[labels[index]]}\n{_ARROW} {class_names[chosen]}\n{probabilities[index, chosen]:.1%}",
            fontsize=10,
        )
    return _pixels(figure)


def _pixels(figure: Figure) -> NDArray[np.uint8]:
    png = io.BytesIO()
    figure.savefig(png, format="png")
    return np.asarray(Image.open(png).convert("RGB"))
