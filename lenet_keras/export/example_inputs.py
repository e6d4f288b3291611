"""What each signature of an exported model is called with."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from lenet_keras.pictures import encode_png

# Signatures that return probabilities, class_id and class_name.
CLASSIFYING = ("serving_default", "uint8", "encoded")


def inputs(images: npt.NDArray[np.uint8]) -> dict[str, tuple[str, npt.NDArray[Any]]]:
    """For each signature the name of its argument and its value for `images`, uint8 0..255 [N, height, width, 1]."""
    return {
        "serving_default": ("images", images.astype(np.float32)),
        "uint8": ("images", images),
        "encoded": ("image_bytes", np.array([encode_png(image) for image in images])),
        "features": ("images", images.astype(np.float32)),
    }
