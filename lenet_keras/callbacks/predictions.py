"""What the test report counts and selects, apart from how it is drawn."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def confusion_matrix(labels: NDArray[np.int64], predicted: NDArray[np.int64], num_classes: int) -> NDArray[np.int64]:
    """Count the images of each true class (row) that were given each class (column): int64 [C, C]."""
    return np.bincount(labels * num_classes + predicted, minlength=num_classes**2).reshape(num_classes, num_classes)


def most_confident_mistakes(
    labels: NDArray[np.int64], probabilities: NDArray[np.float32], count: int
) -> NDArray[np.intp]:
    """Return the indices of at most `count` misclassified images, those with the most probable wrong class first.

    Images of equal probability stay in the order of the test set.
    """
    mistakes = np.flatnonzero(probabilities.argmax(axis=1) != labels)
    most_probable_first = np.argsort(-probabilities[mistakes].max(axis=1), kind="stable")
    return mistakes[most_probable_first[:count]]
