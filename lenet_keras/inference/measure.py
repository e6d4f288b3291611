"""A model's logits for every image of a split, and what follows from them: probabilities, loss, accuracy."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    import keras

    from lenet_keras.distribution.workers import Workers

BATCH_SIZE = 500  # images; larger batches do not fit in the processor's cache and are no faster


def in_batches(
    compute: Callable[[npt.NDArray[Any]], dict[str, npt.NDArray[Any]]], examples: npt.NDArray[Any]
) -> dict[str, npt.NDArray[Any]]:
    """Call `compute` on `BATCH_SIZE` examples at a time, and concatenate its outputs by name.

    >>> in_batches(lambda part: {"double": 2 * part}, np.arange(3))
    {'double': array([0, 2, 4])}

    Args:
        compute: maps examples [n, ...] to named outputs [n, ...].
        examples: [N, ...], N >= 1.
    """
    parts = [compute(examples[start : start + BATCH_SIZE]) for start in range(0, len(examples), BATCH_SIZE)]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


class Predictor:
    """Computes a model's logits with dropout off. It is traced once: make one and keep it during training."""

    def __init__(self, model: keras.Model, workers: Workers | None = None) -> None:
        """Take `model`, which maps pixels float32 [N, height, width, channels] to logits [N, classes].

        Args:
            model: the model.
            workers: the workers that share the images; all must call it with the same ones. None: this process alone.
        """
        import tensorflow as tf

        self._workers = workers
        self._classes = model.output_shape[-1]
        forward = tf.function(
            lambda pixels: model(tf.cast(pixels, tf.float32), training=False), autograph=False
        ).get_concrete_function(tf.TensorSpec(model.input_shape, tf.uint8))
        self._logits: Callable[[npt.NDArray[np.uint8]], npt.NDArray[np.float32]] = lambda pixels: forward(
            tf.constant(pixels)
        ).numpy()

    def __call__(self, images: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """Return logits float32 [N, classes] of images uint8 [N, height, width, channels], N >= 1.

        Workers take turns with the batches, so that each image is computed once, in the same batch as in one process.
        """
        index, count = (self._workers.index, self._workers.count) if self._workers else (0, 1)
        turns = itertools.cycle(range(count))

        def compute(part: npt.NDArray[np.uint8]) -> dict[str, npt.NDArray[np.float32]]:
            if next(turns) == index:
                return {"logits": self._logits(part)}
            return {"logits": np.zeros((len(part), self._classes), np.float32)}

        logits = in_batches(compute, images)["logits"]
        # Each image has zeros in all workers but one, so the sum is exact.
        return self._workers.total(logits.astype(np.float64)).astype(np.float32) if self._workers else logits


def softmax(logits: npt.NDArray[np.floating[Any]]) -> npt.NDArray[np.float64]:
    """Return the probabilities float64 [N, classes] of logits [N, classes].

    >>> softmax(np.array([[0.0, 0.0]]))
    array([[0.5, 0.5]])
    """
    shifted = logits.astype(np.float64) - logits.max(axis=-1, keepdims=True)
    exponentials = np.exp(shifted)
    return np.asarray(exponentials / exponentials.sum(axis=-1, keepdims=True))


def loss_and_accuracy(logits: npt.NDArray[np.floating[Any]], labels: npt.NDArray[np.int64]) -> dict[str, float]:
    """Return {"loss": mean cross-entropy in nats, "accuracy": fraction correct} of [N, classes] and [N], N >= 1.

    Computed in float64; NaN where logits are infinite.

    >>> loss_and_accuracy(np.array([[0.0, 0.0]]), np.array([0]))
    {'loss': 0.6931471805599453, 'accuracy': 1.0}
    """
    wide = logits.astype(np.float64)
    top = wide.max(axis=-1)
    with np.errstate(invalid="ignore"):  # infinite logits; the caller looks at the loss
        normaliser = top + np.log(np.exp(wide - top[:, None]).sum(axis=-1))
        losses = normaliser - wide[np.arange(len(labels)), labels]
    return {"loss": float(losses.mean()), "accuracy": float((wide.argmax(axis=-1) == labels).mean())}
