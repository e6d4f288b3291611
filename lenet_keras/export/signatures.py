"""The graph functions of an exported model: pixels in, named outputs out, everything in between inside."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import keras
import tensorflow as tf

from lenet_keras.export import layout

Endpoint = Callable[[tf.Tensor], dict[str, tf.Tensor]]


def serving_default(model: keras.Model, class_names: Sequence[str]) -> tuple[Endpoint, tf.TensorSpec]:
    """Make the function from pixels to a class, and the specification of its argument.

    It takes `images` (float32 [N, height, width, channels], 0..255) and returns `probabilities` (float32 [N, classes],
    summing to 1), `class_id` (int64 [N], the most probable class) and `class_name` (string [N]).
    """

    def classify(images: tf.Tensor) -> dict[str, tf.Tensor]:
        logits = model(images, training=False)
        class_id = tf.argmax(logits, axis=-1)
        return {
            "probabilities": tf.nn.softmax(logits),
            "class_id": class_id,
            "class_name": tf.gather(tf.constant(list(class_names)), class_id),
        }

    return classify, tf.TensorSpec((None, *model.input_shape[1:]), tf.float32, name="images")


def write_saved_model(model: keras.Model, class_names: Sequence[str], folder: Path) -> None:
    """Write `model` with its signatures and class names to `folder`, silently.

    Raises:
        OSError, tf.errors.OpError: the folder cannot be written to.
    """
    archive = keras.export.ExportArchive()
    archive.track(model)
    endpoint, argument = serving_default(model, class_names)
    archive.add_endpoint("serving_default", endpoint, [argument])
    archive.write_out(str(folder), verbose=False)
    layout.write_labels(folder, class_names)
