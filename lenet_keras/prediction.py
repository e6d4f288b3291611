"""Classes of pictures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from lenet_keras.classifier import Classifier
from lenet_keras.pictures import Picture


@dataclass(frozen=True)
class Prediction:
    """The likeliest class of a picture, and every class's probability (fractions that sum to 1)."""

    class_name: str
    probability: float
    probabilities: dict[str, float]
    looks_inverted: bool

    def to_json(self) -> dict[str, Any]:
        """As JSON values."""
        return {
            "class": self.class_name,
            "probability": self.probability,
            "probabilities": self.probabilities,
            "looks_inverted": self.looks_inverted,
        }


def predict(classifier: Classifier, pictures: Sequence[Picture], *, invert: bool = False) -> list[Prediction]:
    """Ask `classifier` for the class of each of `pictures`, one or more, which have its image size.

    With `invert`, bright and dark are swapped before: the data sets show bright things on black.
    """
    pixels = np.stack([picture.pixels for picture in pictures])
    if invert:
        pixels = 255 - pixels
    return [
        Prediction(
            classifier.class_names[int(row.argmax())],
            float(row.max()),
            {name: float(value) for name, value in zip(classifier.class_names, row, strict=True)},
            picture.looks_inverted,
        )
        for row, picture in zip(classifier.probabilities(pixels), pictures, strict=True)
    ]
