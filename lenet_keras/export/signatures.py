"""The graph functions of an exported model: pixels or files in, named outputs out, everything in between inside."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import keras
import tensorflow as tf

from lenet_keras.export import layout
from lenet_keras.export.encoded import decode_pictures

Endpoint = Callable[[tf.Tensor], dict[str, tf.Tensor]]


def signatures(model: keras.Model, class_names: Sequence[str]) -> dict[str, tuple[Endpoint, tf.TensorSpec]]:
    """Make the functions that a SavedModel offers, each with the specification of its argument.

    - `serving_default`: `images`, float32 [N, height, width, channels], 0 to 255.
    - `uint8`: `images`, uint8 of the same shape: a quarter of the bytes.
    - `encoded`: `image_bytes`, string [N], the contents of PNG or JPEG files, grey or colour, of any size.
    - `features`: `images` as `serving_default`; returns `features`, float32 [N, 84], what the last layer sees.

    The first three return `probabilities` (float32 [N, classes], summing to 1), `class_id` (int64 [N], the most
    probable class) and `class_name` (string [N]).
    """
    height, width, channels = model.input_shape[1:]
    penultimate = keras.Model(model.input, model.get_layer("logits").input)

    def classify(images: tf.Tensor) -> dict[str, tf.Tensor]:
        logits = model(images, training=False)
        class_id = tf.argmax(logits, axis=-1)
        return {
            "probabilities": tf.nn.softmax(logits),
            "class_id": class_id,
            "class_name": tf.gather(tf.constant(list(class_names)), class_id),
        }

    shape = (None, height, width, channels)
    return {
        "serving_default": (classify, tf.TensorSpec(shape, tf.float32, name="images")),
        "uint8": (
            lambda images: classify(tf.cast(images, tf.float32)),
            tf.TensorSpec(shape, tf.uint8, name="images"),
        ),
        "encoded": (
            lambda image_bytes: classify(decode_pictures(image_bytes, height, width)),
            tf.TensorSpec((None,), tf.string, name="image_bytes"),
        ),
        "features": (
            lambda images: {"features": penultimate(images, training=False)},
            tf.TensorSpec(shape, tf.float32, name="images"),
        ),
    }


def write_saved_model(model: keras.Model, class_names: Sequence[str], folder: Path) -> None:
    """Write `model` with its signatures and class names to `folder`, silently.

    Raises:
        OSError, tf.errors.OpError: the folder cannot be written to.
    """
    archive = keras.export.ExportArchive()
    archive.track(model)
    for name, (endpoint, argument) in signatures(model, class_names).items():
        archive.add_endpoint(name, endpoint, [argument])
    archive.write_out(str(folder), verbose=False)
    layout.write_labels(folder, class_names)
