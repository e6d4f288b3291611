"""Whatever an export returns that the model does not is named; SavedModels are asked in a process without Keras."""

import json
import os
import shutil
import signal
import subprocess
import sys

import numpy as np
import pytest

from lenet_keras.errors import ExportError
from lenet_keras.export import run_signatures
from lenet_keras.export.verify import Disagreement, check_accuracy, check_classes, check_features, fresh_process
from lenet_keras.inference.measure import softmax

RUN_AND_LIST_KERAS = """
import runpy, sys
sys.argv[1:], program = sys.argv[2:], sys.argv[1]
runpy.run_path(program, run_name="__main__")
print([name for name in sys.modules if name.split(".")[0] in ("keras", "lenet_keras") and sys.modules[name]])
"""
NAMES = ["cat", "dog", "eel"]
EXPECTED = np.array([[0.7, 0.2, 0.1], [0.1, 0.1, 0.8]])


def test_a_fresh_process_returns_what_the_model_returns(published, images, expected, tmp_path):
    with fresh_process() as call:
        results = call(published, {"serving_default/images": images.astype(np.float32)}, tmp_path)
    np.testing.assert_allclose(results["serving_default/probabilities"], expected, rtol=0, atol=1e-6)
    np.testing.assert_array_equal(results["serving_default/class_id"], expected.argmax(axis=1))


def test_the_process_ends_with_what_uses_it(monkeypatch):
    started = []

    class Noted(subprocess.Popen):
        def __init__(self, *command, **options):
            super().__init__(*command, **options)
            started.append(self)

    monkeypatch.setattr(subprocess, "Popen", Noted)
    with pytest.raises(KeyboardInterrupt), fresh_process():
        raise KeyboardInterrupt
    assert [process.returncode for process in started] == [-signal.SIGKILL]


def test_more_images_than_are_computed_at_a_time_are_returned_in_order(published, images, expected, tmp_path):
    many = np.tile(images, (run_signatures.BATCH // len(images) + 1, 1, 1, 1))
    assert len(many) % run_signatures.BATCH
    with fresh_process() as call:
        results = call(published, {"uint8/images": many}, tmp_path)
    assert len(results["uint8/probabilities"]) == len(many)
    np.testing.assert_allclose(results["uint8/probabilities"][-12:], expected, rtol=0, atol=1e-6)


def test_the_process_that_verifies_has_neither_keras_nor_this_package(published, images, tmp_path):
    np.savez(tmp_path / "in.npz", **{"serving_default/images": images.astype(np.float32)})
    finished = subprocess.run(
        [sys.executable, "-c", RUN_AND_LIST_KERAS, run_signatures.__file__],
        input=json.dumps([str(published), "in.npz", "out.npz"]),
        cwd=tmp_path,
        env={name: value for name, value in os.environ.items() if name != "PYTHONPATH"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert finished.stdout == "[]\n"
    with np.load(tmp_path / "out.npz") as outputs:
        assert outputs["serving_default/probabilities"].shape == (12, 10)


def test_files_next_to_the_program_hide_no_package(published, images, tmp_path):
    program = shutil.copy(run_signatures.__file__, tmp_path / "run_signatures.py")
    (tmp_path / "requests.py").write_text("raise SystemExit('the wrong one')")
    (tmp_path / "tensorflow.py").write_text("raise SystemExit('the wrong one')")
    np.savez(tmp_path / "in.npz", **{"uint8/images": images})
    paths = json.dumps([str(published), str(tmp_path / "in.npz"), str(tmp_path / "out.npz")])
    finished = subprocess.run([sys.executable, program], input=paths, capture_output=True, text=True, check=False)
    assert finished.returncode == 0, finished.stderr


def test_a_model_that_cannot_run_is_named_in_one_line(tmp_path):
    expected = r"failed when it was tested in a fresh process: .*does not exist"
    with fresh_process() as call, pytest.raises(ExportError, match=expected) as caught:
        call(tmp_path / "nothing", {}, tmp_path)
    assert "\n" not in str(caught.value)


@pytest.fixture
def outputs():
    return {
        "probabilities": EXPECTED.astype(np.float32),
        "class_id": np.array([0, 2]),
        "class_name": np.array([b"cat", b"eel"]),
    }


def test_outputs_that_agree_pass(outputs):
    check_classes("uint8", outputs, EXPECTED, NAMES)


def test_either_of_two_tied_classes_passes(outputs):
    tied = np.array([[0.400001, 0.4, 0.199999], [0.1, 0.1, 0.8]])
    outputs["probabilities"] = tied.astype(np.float32)
    outputs["class_id"], outputs["class_name"] = np.array([1, 2]), np.array([b"dog", b"eel"])
    check_classes("uint8", outputs, tied, NAMES)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("probabilities", (EXPECTED + np.array([0, 0, 2e-5])).astype(np.float32), "differ by up to 2e-05"),
        ("probabilities", np.full((2, 3), np.nan, np.float32), "differ by up to nan"),
        ("probabilities", EXPECTED, r"returned float64 \[2, 3\] as probabilities"),
        (
            "probabilities",
            EXPECTED[:1].astype(np.float32),
            r"float32 \[1, 3\] as probabilities, expected float32 \[2, 3\]",
        ),
        ("class_id", np.array([0, 1]), "image 1 is class 2 for the model and 1 for the export"),
        ("class_id", np.array([0, 3]), "image 1 is class 2 for the model and 3"),
        ("class_id", np.array([0, -1]), "image 1 is class 2 for the model and -1"),
        ("class_id", np.array([0, 2], np.int32), "returned int32"),
        ("class_name", np.array([b"cat", b"dog"]), "calls class 2 'dog', expected 'eel'"),
        ("class_name", np.array([0, 2]), "returned int64"),
        ("class_name", None, "returned nothing as class_name"),
    ],
)
def test_whatever_disagrees_is_named(outputs, name, value, message):
    if value is None:
        del outputs[name]
    else:
        outputs[name] = value
    with pytest.raises(Disagreement, match=message) as caught:
        check_classes("uint8", outputs, EXPECTED, NAMES)
    assert "\n" not in str(caught.value)


def test_features_that_differ_are_named():
    expected = np.array([[0.0, 200.0], [3.0, 4.0]], np.float32)
    check_features({"features": expected + np.float32(1e-3)}, expected)  # of 200, 1e-3 is round-off
    with pytest.raises(Disagreement, match="features differ by up to 5e-05"):
        check_features({"features": expected + np.float32(1e-2)}, expected)
    with pytest.raises(Disagreement, match=r"returned float32 \[1, 2\] as features"):
        check_features({"features": expected[:1]}, expected)


def test_an_accuracy_that_differs_by_one_image_is_named():
    labels = np.array([0, 2])
    check_accuracy(EXPECTED, labels, 1.0)
    check_accuracy(EXPECTED, np.array([0, 1]), 0.5)
    with pytest.raises(Disagreement, match=r"accuracy on 2 images is 1\.0000, expected 0\.5000"):
        check_accuracy(EXPECTED, labels, 0.5)
    with pytest.raises(Disagreement, match=r"accuracy on 2 images is 0\.5000, expected 1\.0000"):
        check_accuracy(EXPECTED, np.array([0, 1]), 1.0)


def tf32(values):
    """Round float32 to the ten bits that a GPU multiplies in TF32."""
    bits = np.ascontiguousarray(values, np.float32).view(np.uint32)
    return ((bits + 0x1000) & np.uint32(0xFFFFE000)).view(np.float32)


@pytest.mark.parametrize("truth", [1.0, 0.0])
def test_the_accuracy_of_a_gpu_that_computed_in_tf32_is_accepted(model, truth):
    """Ties may go either way: to the label, from it, or from one wrong class to another."""
    kernel = model.get_layer("logits").kernel.numpy()
    features = np.abs(np.random.default_rng(0).standard_normal((20_000, len(kernel)), np.float32))
    here, on_gpu = features @ kernel, tf32(features) @ tf32(kernel)
    labels, flipped = here.argmax(axis=1), here.argmax(axis=1) != on_gpu.argmax(axis=1)
    assert flipped.sum() > 2
    labels = labels if truth else np.where(flipped, on_gpu.argmax(axis=1), (labels + 1) % 10)
    measured = float((on_gpu.argmax(axis=1) == labels).mean())
    assert measured != float((here.argmax(axis=1) == labels).mean())
    check_accuracy(softmax(here), labels, measured)
    with pytest.raises(Disagreement, match=r"accuracy on 20,000 images"):
        check_accuracy(softmax(here), labels, abs(measured - 0.1))  # no rounding explains 2,000 images
