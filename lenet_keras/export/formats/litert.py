"""LiteRT, formerly TensorFlow Lite: conversion, quantisation to eight bits, and its own interpreter."""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Iterator
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
import tensorflow as tf

from lenet_keras.export.formats.classify import classify_function
from lenet_keras.runtime import muted_stderr

_BATCH = 1000


def convert(model: keras.Model, calibration: npt.NDArray[np.uint8] | None = None) -> bytes:
    """The content of a LiteRT file for `model`, with a batch of any size.

    Args:
        model: maps pixels float32 0..255 to logits.
        calibration: real images, uint8 [N, height, width, 1], from which the ranges of all activations are measured.
            Given, all computation is in eight bits and the input `images` is uint8; without, all is in float32.
    """
    function, argument = classify_function(model)
    # By way of a SavedModel: a concrete function of a Keras model does not bring its weights along.
    with tempfile.TemporaryDirectory() as folder, muted_stderr(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # calibration uses an interpreter that is to move to another package
        archive = keras.export.ExportArchive()
        archive.track(model)
        archive.add_endpoint("serving_default", function, [argument])
        archive.write_out(folder, verbose=False)
        converter = tf.lite.TFLiteConverter.from_saved_model(folder, signature_keys=["serving_default"])
        if calibration is not None:
            converter.optimizations = [tf.lite.Optimize.DEFAULT]
            converter.representative_dataset = lambda: _one_by_one(calibration)
            converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
            converter.inference_input_type = tf.uint8
        content: bytes = converter.convert()
    return content


def run(content: bytes, images: npt.NDArray[np.uint8]) -> dict[str, npt.NDArray[Any]]:
    """Compute `probabilities` and `class_id` of `images`, uint8 [N, height, width, 1], with LiteRT's interpreter.

    Raises:
        ImportError: the extra `litert` is not installed.
    """
    from ai_edge_litert.interpreter import Interpreter

    with muted_stderr():
        runner = Interpreter(model_content=content).get_signature_runner("serving_default")
        dtype = runner.get_input_details()["images"]["dtype"]
        parts = [runner(images=images[i : i + _BATCH].astype(dtype)) for i in range(0, len(images), _BATCH)]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _one_by_one(images: npt.NDArray[np.uint8]) -> Iterator[dict[str, npt.NDArray[np.float32]]]:
    for image in images:
        yield {"images": image[np.newaxis].astype(np.float32)}
