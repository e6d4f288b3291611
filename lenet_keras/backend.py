"""Keras, imported on TensorFlow, the only one of its backends that this package works with.

Modules import Keras from here rather than by itself, so that another backend is named before anything fails because of
it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from lenet_keras.errors import LenetKerasError, first_line

try:
    import keras
except Exception as error:  # nearly any type: a backend that is not installed, a keras.json that Keras rejects
    raise LenetKerasError(
        f"Keras cannot be imported ({first_line(error)}). lenet_keras needs Keras on TensorFlow: before the first "
        'import of Keras, set the environment variable KERAS_BACKEND to "tensorflow", and correct keras.json.'
    ) from error

if keras.config.backend() != "tensorflow":
    raise LenetKerasError(
        f"Keras runs on {keras.config.backend()} in this process, but lenet_keras needs TensorFlow: before the first "
        'import of Keras, set the environment variable KERAS_BACKEND to "tensorflow".'
    )

__all__ = ["float32_by_default", "keras"]


@contextlib.contextmanager
def float32_by_default() -> Iterator[None]:
    """Make float32 Keras's default float type in the body, for what cannot be told its own, such as optimizers.

    >>> keras.config.set_floatx("float64")
    >>> with float32_by_default():
    ...     keras.config.floatx()
    'float32'
    >>> keras.config.floatx()
    'float64'
    >>> keras.config.set_floatx("float32")
    """
    chosen = keras.config.floatx()
    keras.config.set_floatx("float32")
    try:
        yield
    finally:
        keras.config.set_floatx(chosen)
