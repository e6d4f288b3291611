"""A model's logits for every image of a set, once, with dropout off."""

from __future__ import annotations

import keras
import numpy as np
import numpy.typing as npt
import tensorflow as tf

from lenet_keras.distribution.workers import Workers

BATCH_SIZE = 500  # larger ones leave the processor's cache and are no faster


class Predictor:
    """Computes logits with `model`; traced once, so make one and keep it while training goes on."""

    def __init__(self, model: keras.Model, workers: Workers | None = None) -> None:
        """Take `model`, which maps pixels float32 [N, height, width, channels] to logits [N, classes].

        Args:
            model: the model.
            workers: who share the images; all of them must call, with the same ones. None: this process alone.
        """
        self._workers = workers
        self._classes = model.output_shape[-1]
        self._forward = tf.function(
            lambda pixels: model(tf.cast(pixels, tf.float32), training=False),
            input_signature=[tf.TensorSpec(model.input_shape, tf.uint8)],
        )

    def __call__(self, images: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """Logits float32 [N, classes] of images uint8 [N, height, width, channels], N >= 1, in their order.

        Workers take turns with batches, so that each image is seen once, in the same batch as by one alone.
        """
        index, count = (self._workers.index, self._workers.count) if self._workers else (0, 1)
        logits = np.zeros((len(images), self._classes))
        for start in range(index * BATCH_SIZE, len(images), count * BATCH_SIZE):
            logits[start : start + BATCH_SIZE] = self._forward(images[start : start + BATCH_SIZE])
        if self._workers:
            logits = self._workers.total(logits)  # of what a worker has not seen it has zeros
        return logits.astype(np.float32)
