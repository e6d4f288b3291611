"""Whatever a SavedModel may return that is not what the model says is named."""

import numpy as np
import pytest

from lenet_keras.export import agreement

NAMES = ["cat", "dog", "eel"]
EXPECTED = np.array([[0.7, 0.2, 0.1], [0.1, 0.1, 0.8]])


@pytest.fixture
def outputs():
    return {
        "probabilities": EXPECTED.astype(np.float32),
        "class_id": np.array([0, 2]),
        "class_name": np.array([b"cat", b"eel"]),
    }


def test_outputs_that_agree_pass(outputs):
    agreement.check_classes("uint8", outputs, EXPECTED, NAMES)


def test_either_of_two_tied_classes_passes(outputs):
    tied = np.array([[0.400001, 0.4, 0.199999], [0.1, 0.1, 0.8]])
    outputs["probabilities"] = tied.astype(np.float32)
    outputs["class_id"], outputs["class_name"] = np.array([1, 2]), np.array([b"dog", b"eel"])
    agreement.check_classes("uint8", outputs, tied, NAMES)


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
        ("class_id", np.array([0, 1]), "image 1 is class 2 to the model and 1 to the SavedModel"),
        ("class_id", np.array([0, 3]), "image 1 is class 2 to the model and 3"),
        ("class_id", np.array([0, -1]), "image 1 is class 2 to the model and -1"),
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
    with pytest.raises(agreement.Disagreement, match=message) as caught:
        agreement.check_classes("uint8", outputs, EXPECTED, NAMES)
    assert "\n" not in str(caught.value)


def test_features_that_differ_are_named():
    expected = np.array([[0.0, 200.0], [3.0, 4.0]], np.float32)
    agreement.check_features({"features": expected + np.float32(1e-3)}, expected)  # of 200, 1e-3 is round-off
    with pytest.raises(agreement.Disagreement, match="features differ by up to 5e-05"):
        agreement.check_features({"features": expected + np.float32(1e-2)}, expected)
    with pytest.raises(agreement.Disagreement, match=r"returned float32 \[1, 2\] as features"):
        agreement.check_features({"features": expected[:1]}, expected)


def test_an_accuracy_that_differs_by_one_image_is_named():
    labels = np.array([0, 2])
    agreement.check_accuracy(np.array([0, 2]), labels, EXPECTED, 1.0)
    agreement.check_accuracy(np.array([0, 2]), labels, EXPECTED, None)
    with pytest.raises(agreement.Disagreement, match=r"accuracy on 2 images is 0\.5000, expected 1\.0000"):
        agreement.check_accuracy(np.array([0, 1]), labels, EXPECTED, 1.0)


def test_an_image_between_two_classes_may_have_gone_either_way():
    tied = np.array([[0.400001, 0.4, 0.199999], [0.1, 0.1, 0.8]])
    agreement.check_accuracy(np.array([1, 2]), np.array([0, 2]), tied, 1.0)
