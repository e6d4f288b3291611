"""The function that these formats hold: pixels in, probabilities and class numbers out."""

from __future__ import annotations

from collections.abc import Callable

import keras
import tensorflow as tf


def classify_function(model: keras.Model) -> tuple[Callable[[tf.Tensor], dict[str, tf.Tensor]], tf.TensorSpec]:
    """Make the function, and the specification of its argument.

    It takes `images`, float32 [N, height, width, 1], 0 to 255, and returns `probabilities`, float32 [N, classes], and
    `class_id`, int64 [N]. Class names are left out: not every runtime has strings.
    """

    def classify(images: tf.Tensor) -> dict[str, tf.Tensor]:
        logits = model(images, training=False)
        return {"probabilities": tf.nn.softmax(logits), "class_id": tf.argmax(logits, axis=-1)}

    return classify, tf.TensorSpec((None, *model.input_shape[1:]), tf.float32, name="images")
