"""A model's logits for every image of a set, once, with dropout off."""

from __future__ import annotations

import keras
import numpy as np
import numpy.typing as npt
import tensorflow as tf

BATCH_SIZE = 500  # larger ones leave the processor's cache and are no faster


class Predictor:
    """Computes logits with `model`; traced once, so make one and keep it while training goes on."""

    def __init__(self, model: keras.Model) -> None:
        """Take `model`, which maps pixels float32 [N, height, width, channels] to logits [N, classes]."""
        self._forward = tf.function(
            lambda pixels: model(tf.cast(pixels, tf.float32), training=False),
            input_signature=[tf.TensorSpec(model.input_shape, tf.uint8)],
        )

    def __call__(self, images: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """Logits float32 [N, classes] of images uint8 [N, height, width, channels], N >= 1, in their order."""
        starts = range(0, len(images), BATCH_SIZE)
        return np.concatenate([self._forward(images[i : i + BATCH_SIZE]).numpy() for i in starts])
