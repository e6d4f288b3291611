"""Runtimes that share nothing with the Python that wrote the SavedModel say what the model says."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import openvino
import pytest
import tensorflow as tf
from tensorflow.core.protobuf import saved_model_pb2


def tensor_name(published, signature, kind, name):
    """The name of a signature's tensor in the graph, as ("operation", index)."""
    graphs = saved_model_pb2.SavedModel.FromString((published / "saved_model.pb").read_bytes()).meta_graphs
    found = getattr(graphs[0].signature_def[signature], kind)[name].name
    operation, _, index = found.partition(":")
    return operation, index


@pytest.mark.parametrize(
    ("signature", "output", "dtype"),
    [("serving_default", "probabilities", np.float32), ("uint8", "probabilities", np.uint8)],
)
def test_tensorflows_c_api_gets_the_models_answers(published, images, expected, tmp_path, signature, output, dtype):
    np.save(tmp_path / "in.npy", images.astype(dtype))
    program = Path(__file__).with_name("c_api.py")
    input_name, _ = tensor_name(published, signature, "inputs", "images")
    output_name, index = tensor_name(published, signature, "outputs", output)
    finished = subprocess.run(
        [sys.executable, program, Path(tf.__file__).parent, published, input_name, output_name, index,
         tmp_path / "in.npy", tmp_path / "out.npy"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert finished.returncode == 0, finished.stderr
    np.testing.assert_allclose(np.load(tmp_path / "out.npy"), expected, rtol=0, atol=1e-5)


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
