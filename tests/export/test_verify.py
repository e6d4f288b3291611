import os
import subprocess
import sys

import numpy as np
import pytest

from lenet_keras.export import ExportError, run_signatures, verify

NAMES = ["cat", "dog", "eel"]
EXPECTED = np.array([[0.7, 0.2, 0.1], [0.1, 0.1, 0.8]])


@pytest.fixture
def outputs():
    return {
        "probabilities": EXPECTED.astype(np.float32),
        "class_id": np.array([0, 2]),
        "class_name": np.array(["cat", "eel"]),
    }


def test_outputs_that_agree_pass(outputs):
    verify.check_outputs(outputs, EXPECTED, NAMES)


def test_either_of_two_tied_classes_passes(outputs):
    tied = np.array([[0.400001, 0.4, 0.199999], [0.1, 0.1, 0.8]])
    outputs["probabilities"] = tied.astype(np.float32)
    outputs["class_id"], outputs["class_name"] = np.array([1, 2]), np.array(["dog", "eel"])
    verify.check_outputs(outputs, tied, NAMES)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("probabilities", (EXPECTED + np.array([0, 0, 2e-5])).astype(np.float32), "differ by up to 2e-05"),
        ("probabilities", np.full((2, 3), np.nan, np.float32), "differ by up to nan"),
        ("probabilities", EXPECTED, r"returned float64 \[2, 3\] as probabilities"),
        ("probabilities", EXPECTED[:1].astype(np.float32), r"returned float32 \[1, 3\] as probabilities for 2 images"),
        ("class_id", np.array([0, 1]), "image 1 is class 2 to the model and 1 to the SavedModel"),
        ("class_id", np.array([0, 3]), "image 1 is class 2 to the model and 3"),
        ("class_id", np.array([0, -1]), "image 1 is class 2 to the model and -1"),
        ("class_id", np.array([0, 2], np.int32), "returned int32"),
        ("class_name", np.array(["cat", "dog"]), "calls class 2 'dog', expected 'eel'"),
        ("class_name", np.array([0, 2]), "returned int64"),
        ("class_name", None, "returned nothing as class_name"),
    ],
)
def test_whatever_disagrees_is_named(outputs, name, value, message):
    if value is None:
        del outputs[name]
    else:
        outputs[name] = value
    with pytest.raises(ExportError, match=message) as caught:
        verify.check_outputs(outputs, EXPECTED, NAMES)
    assert "\n" not in str(caught.value)


RUN_AND_LIST_KERAS = """
import runpy, sys
sys.argv[1:], program = sys.argv[2:], sys.argv[1]
runpy.run_path(program, run_name="__main__")
print([name for name in sys.modules if name.split(".")[0] in ("keras", "lenet_keras") and sys.modules[name]])
"""


def test_the_process_that_verifies_has_neither_keras_nor_this_package(published, images, tmp_path):
    np.savez(tmp_path / "in.npz", **{"serving_default/images": images.astype(np.float32)})
    finished = subprocess.run(
        [sys.executable, "-c", RUN_AND_LIST_KERAS, run_signatures.__file__, str(published), "in.npz", "out.npz"],
        cwd=tmp_path,
        env={name: value for name, value in os.environ.items() if name != "PYTHONPATH"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert finished.stdout == "[]\n"
    with np.load(tmp_path / "out.npz") as outputs:
        assert outputs["serving_default/probabilities"].shape == (12, 10)


def test_a_model_that_cannot_run_gives_one_line(tmp_path):
    with pytest.raises(ExportError, match=r"failed when it was tried in a fresh process: .*does not exist") as caught:
        verify.run_fresh(tmp_path / "nothing", {}, tmp_path)
    assert "\n" not in str(caught.value)
