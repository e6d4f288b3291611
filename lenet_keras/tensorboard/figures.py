"""The images of the test report, and the counts and selections behind them.

They are drawn with Matplotlib's objects only: without pyplot, nothing global is touched.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray

ROWS, COLUMNS = 5, 8  # of misclassified images
_DPI = 100
_CELL, _HEADER, _IMAGE = (125, 182), 56, 112  # pixels: width and height of a misclassified image with its text
_ARROW = "\N{RIGHTWARDS ARROW}"


def confusion_matrix(labels: NDArray[np.int64], predicted: NDArray[np.int64], num_classes: int) -> NDArray[np.int64]:
    """Count the images of each true class (row) by predicted class (column).

    >>> confusion_matrix(np.array([0, 1, 1]), np.array([0, 0, 1]), num_classes=2)
    array([[1, 0],
           [1, 1]])

    Args:
        labels: int64 [N], 0 to C-1.
        predicted: int64 [N], 0 to C-1.
        num_classes: C.

    Returns:
        int64 [C, C].
    """
    return np.bincount(labels * num_classes + predicted, minlength=num_classes**2).reshape(num_classes, num_classes)


def most_confident_mistakes(
    labels: NDArray[np.int64], probabilities: NDArray[np.float32], count: int
) -> NDArray[np.intp]:
    """Return the indices of at most `count` misclassified images, those with the most probable wrong class first.

    Images of equal probability stay in the order of the test set.

    >>> most_confident_mistakes(np.array([0, 0, 1]), np.array([[0.4, 0.6], [0.1, 0.9], [0.2, 0.8]]), count=2)
    array([1, 0])

    Args:
        labels: int64 [N], 0 to C-1.
        probabilities: float [N, C].
        count: 0 or more.
    """
    mistakes = np.flatnonzero(probabilities.argmax(axis=1) != labels)
    most_probable_first = np.argsort(-probabilities[mistakes].max(axis=1), kind="stable")
    return mistakes[most_probable_first[:count]]


def draw_confusion_matrix(counts: NDArray[np.int64], class_names: Sequence[str]) -> NDArray[np.uint8]:
    """Draw the counts, with each row shaded by its shares, so that classes of unequal size can be compared.

    Args:
        counts: int64 [C, C], true classes in rows, predicted ones in columns.
        class_names: C names.

    Returns:
        uint8 [H, W, 3]; the image grows with the number of classes, so that the counts stay readable.
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
    """Draw the misclassified images with the most probable wrong classes, row by row.

    Args:
        images: uint8 [N, H, W, 1].
        labels: int64 [N].
        probabilities: float32 [N, C].
        class_names: C names.

    Returns:
        uint8 [H, W, 3]: `COLUMNS` images per row, and as many rows as needed, at most `ROWS`.
    """
    predicted = probabilities.argmax(axis=1)
    wrong = int((predicted != labels).sum())
    mistakes = most_confident_mistakes(labels, probabilities, ROWS * COLUMNS)
    rows = max(1, -(-len(mistakes) // COLUMNS))
    width, height = COLUMNS * _CELL[0], _HEADER + rows * _CELL[1]  # pixels
    # Placed on the figure itself, and all as one: axes for each image would take another second.
    pixels = np.full((height, width), 255, np.uint8)
    figure = Figure(figsize=(width / _DPI, height / _DPI), dpi=_DPI)
    figure.text(
        0.5,
        1 - 8 / height,
        f"{wrong:,} of {len(labels):,} test images misclassified\n"
        f"most confident first: true class {_ARROW} predicted class, its probability",
        ha="center",
        va="top",
        fontsize=12,
    )
    for place, index in enumerate(mistakes):
        row, column = divmod(place, COLUMNS)
        bottom = height - _HEADER - (row + 1) * _CELL[1]
        zoom = max(1, _IMAGE // max(images.shape[1:3]))
        enlarged = np.kron(images[index, :, :, 0], np.ones((zoom, zoom), np.uint8))
        left = column * _CELL[0] + (_CELL[0] - enlarged.shape[1]) // 2
        top = height - bottom - enlarged.shape[0]
        pixels[top : top + enlarged.shape[0], left : left + enlarged.shape[1]] = enlarged
        figure.text(
            (column + 0.5) * _CELL[0] / width,
            (bottom + enlarged.shape[0] + 6) / height,
            f"{class_names[labels[index]]}\n{_ARROW} {class_names[predicted[index]]}\n{probabilities[index].max():.1%}",
            ha="center",
            va="bottom",
            fontsize=10,
        )
    figure.figimage(pixels, cmap="gray", vmin=0, vmax=255)
    return _pixels(figure)


def _pixels(figure: Figure) -> NDArray[np.uint8]:
    canvas: Any = FigureCanvasAgg(figure)  # Matplotlib's backends have no types
    canvas.draw()
    return np.array(canvas.buffer_rgba())[:, :, :3]
