"""Runtimes that share nothing with the Python that wrote the SavedModel return what the model returns."""

import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from tensorflow.core.protobuf import saved_model_pb2

from lenet_keras.inference.images import encode_png

sys.modules["openvino_telemetry"] = None  # OpenVINO does without, and then does not report that it was imported
import openvino  # noqa: E402


def as_png_files(images):
    return np.array([encode_png(image) for image in images])


def run_by_c_api(published, signature, array, folder):
    """Return the outputs of a signature for its only argument, by name."""
    graph = saved_model_pb2.SavedModel.FromString((published / "saved_model.pb").read_bytes()).meta_graphs[0]
    definition = graph.signature_def[signature]
    [argument] = definition.inputs.values()
    names = {name: tensor.name for name, tensor in definition.outputs.items()}
    np.save(folder / "in.npy", array)
    program = Path(__file__).with_name("c_api.py")
    finished = subprocess.run(
        [sys.executable, program, Path(tf.__file__).parent, published, folder / "in.npy", argument.name,
         folder / "out.npz", *names.values()],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert finished.returncode == 0, finished.stderr
    with np.load(folder / "out.npz") as arrays:
        return {name: arrays[tensor] for name, tensor in names.items()}


@pytest.mark.parametrize(
    ("signature", "prepared"),
    [("serving_default", np.float32), ("uint8", np.uint8), ("encoded", as_png_files)],
)
def test_tensorflows_c_api_gets_the_models_answers(
    published, images, expected, class_names, tmp_path, signature, prepared
):
    outputs = run_by_c_api(published, signature, prepared(images), tmp_path)
    assert set(outputs) == {"probabilities", "class_id", "class_name"}
    np.testing.assert_allclose(outputs["probabilities"], expected, rtol=0, atol=1e-5)
    np.testing.assert_array_equal(outputs["class_id"], expected.argmax(axis=1))
    assert [name.decode() for name in outputs["class_name"]] == [class_names[i] for i in expected.argmax(axis=1)]


def test_tensorflows_c_api_gets_the_models_features(published, images, model, tmp_path):
    inner = keras.Model(model.input, model.get_layer("logits").input)
    outputs = run_by_c_api(published, "features", images.astype(np.float32), tmp_path)
    np.testing.assert_allclose(outputs["features"], inner.predict(images.astype(np.float32), verbose=0), atol=1e-5)


def test_openvino_reads_the_saved_model_and_gets_the_models_answers(published, images, expected, class_names):
    core = openvino.Core()
    # On processors that have it, it would compute in bfloat16.
    compiled = core.compile_model(core.read_model(published), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    for count in (1, 12):
        outputs = compiled({"images": images[:count].astype(np.float32)})
        np.testing.assert_allclose(outputs["probabilities"], expected[:count], rtol=0, atol=1e-5)
        classes = expected[:count].argmax(axis=1)
        np.testing.assert_array_equal(outputs["class_id"], classes)
        assert [str(name) for name in outputs["class_name"]] == [class_names[i] for i in classes]
