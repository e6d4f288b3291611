"""ONNX: conversion by tf2onnx, and ONNX Runtime."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
import tensorflow as tf

from lenet_keras.export.formats.classify import classify_function
from lenet_keras.runtime import muted_stderr

# Of 2022: every runtime of the last years reads it, and nothing newer is needed for this model.
OPSET = 17
_BATCH = 1000


def convert(model: keras.Model, class_names: Sequence[str]) -> bytes:
    """The content of an ONNX file for `model`, with a batch of any size.

    The class names are in its metadata, under "class_names", as a JSON list in the order of the classes.

    Raises:
        ImportError: the extra `onnx` is not installed.
    """
    with muted_stderr():  # it warns of NumPy's future
        import tf2onnx

        function, argument = classify_function(model)
        converted, _ = tf2onnx.convert.from_function(tf.function(function), [argument], opset=OPSET)
    converted.metadata_props.add(key="class_names", value=json.dumps(list(class_names)))
    content: bytes = converted.SerializeToString()
    return content


def run(content: bytes, images: npt.NDArray[np.uint8]) -> dict[str, npt.NDArray[Any]]:
    """Compute `probabilities` and `class_id` of `images`, uint8 [N, height, width, 1], with ONNX Runtime on the CPU.

    Raises:
        ImportError: the extra `onnx` is not installed.
    """
    # From 1.29 on it reports the models that it loads to its maker, unless this is set before it is imported.
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    import onnxruntime

    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    starts = range(0, len(images), _BATCH)
    parts = [session.run(names, {"images": images[i : i + _BATCH].astype(np.float32)}) for i in starts]
    return {name: np.concatenate(column) for name, column in zip(names, zip(*parts, strict=True), strict=True)}
