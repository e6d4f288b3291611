"""Keras on TensorFlow, or one sentence on why not."""

import importlib
import os
import subprocess
import sys

import keras
import pytest

from lenet_keras import LenetKerasError, backend


def test_a_program_on_another_backend_is_told_so_in_one_sentence():
    # A process of its own, because Keras chooses its backend once; OpenVINO is the other one that is installed here.
    answer = subprocess.run(
        [sys.executable, "-c", "import lenet_keras; lenet_keras.build_lenet5()"],
        env={**os.environ, "KERAS_BACKEND": "openvino"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert answer.returncode == 1
    assert answer.stderr.splitlines()[-1] == (
        "lenet_keras.errors.LenetKerasError: Keras runs on openvino in this process, but lenet_keras needs TensorFlow: "
        'before the first import of Keras, set the environment variable KERAS_BACKEND to "tensorflow".'
    )


def test_a_keras_that_cannot_be_imported_is_told_in_one_sentence(monkeypatch):
    monkeypatch.setitem(sys.modules, "keras", None)  # fails like a backend that is not installed
    with pytest.raises(LenetKerasError, match=r"^Keras cannot be imported \(.*\)\. .* KERAS_BACKEND") as refused:
        importlib.reload(backend)
    assert "\n" not in str(refused.value)


def test_the_default_float_type_is_put_back_after_an_error(monkeypatch):
    keras.config.set_floatx("float16")
    try:
        with pytest.raises(KeyboardInterrupt), backend.float32_by_default():
            assert keras.config.floatx() == "float32"
            raise KeyboardInterrupt
        assert keras.config.floatx() == "float16"
    finally:
        keras.config.set_floatx("float32")
