"""What a SavedModel returned beside what was expected of it. NumPy only."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

# Probabilities may differ by this much. Both sides compute in float32 on the same CPU, but a graph fuses operations
# that eager calls do not: 6e-8 was seen for LeNet-5.
TOLERANCE = 1e-5

Outputs = dict[str, npt.NDArray[Any]]


class Disagreement(Exception):
    """What was returned is not what was expected. One line, without saying what follows of it."""


def check_classes(
    signature: str, outputs: Outputs, expected: npt.NDArray[np.float64], class_names: Sequence[str]
) -> None:
    """Compare what a signature returned for some images with the model's own probabilities for them.

    Args:
        signature: its name, for messages.
        outputs: `probabilities` [N, classes], `class_id` [N] and `class_name` [N], bytes of UTF-8.
        expected: probabilities [N, classes].
        class_names: one a class.

    Raises:
        Disagreement: a shape or type is wrong, a probability differs by more than `TOLERANCE`, a class is not the most
            probable one (of two within twice the tolerance either will do), or a name is not that of its class.
    """
    count = len(expected)
    _check_form(signature, "probabilities", outputs.get("probabilities"), "float32", expected.shape)
    _check_form(signature, "class_id", outputs.get("class_id"), "int64", (count,))
    _check_form(signature, "class_name", outputs.get("class_name"), "bytes", (count,))
    _check_close(signature, "probabilities", outputs["probabilities"], expected, 1.0)
    for index, (class_id, name) in enumerate(zip(outputs["class_id"], outputs["class_name"], strict=True)):
        if not 0 <= class_id < len(class_names) or expected[index].max() - expected[index, class_id] > 2 * TOLERANCE:
            raise Disagreement(
                f"{signature} disagrees with the model: image {index} is class {expected[index].argmax()} to the "
                f"model and {class_id} to the SavedModel"
            )
        if name.decode() != class_names[class_id]:
            raise Disagreement(
                f"{signature} calls class {class_id} {name.decode()!r}, expected {class_names[class_id]!r}"
            )


def check_probabilities(name: str, outputs: Outputs, expected: npt.NDArray[np.float64]) -> None:
    """Compare `probabilities` [N, classes] and `class_id` [N] of a file for another runtime with the model's own.

    Raises:
        Disagreement: as `check_classes`.
    """
    _check_form(name, "probabilities", outputs.get("probabilities"), "float32", expected.shape)
    _check_form(name, "class_id", outputs.get("class_id"), "int64", (len(expected),))
    _check_close(name, "probabilities", outputs["probabilities"], expected, 1.0)


def check_features(outputs: Outputs, expected: npt.NDArray[np.float32]) -> None:
    """Compare what the signature `features` returned, `features` [N, width], with the model's own.

    Raises:
        Disagreement: shape or type is wrong, or a value differs by more than `TOLERANCE` of the largest.
    """
    _check_form("features", "features", outputs.get("features"), "float32", expected.shape)
    _check_close("features", "features", outputs["features"], expected, max(1.0, float(np.abs(expected).max())))


def check_accuracy(
    class_ids: npt.NDArray[np.int64],
    labels: npt.NDArray[np.int64],
    expected: npt.NDArray[np.float64],
    accuracy: float | None,
) -> None:
    """Compare the accuracy of the classes found, [N], with what was measured before: a fraction, or None for that of
    the probabilities expected, [N, classes].

    Images of which two classes are the most probable within twice the tolerance may have gone either way.

    Raises:
        Disagreement: the accuracies differ.
    """
    if accuracy is None:
        accuracy = float((expected.argmax(axis=1) == labels).mean())
    found = float((class_ids == labels).mean())
    second, first = np.sort(expected, axis=1)[:, -2:].T
    doubtful = int((first - second <= 2 * TOLERANCE).sum())
    if abs(found - accuracy) * len(labels) > doubtful + 0.5:
        raise Disagreement(f"its accuracy on {len(labels):,} images is {found:.4f}, expected {accuracy:.4f}")


def _check_form(signature: str, name: str, found: npt.NDArray[Any] | None, dtype: str, shape: tuple[int, ...]) -> None:
    described = "nothing" if found is None else f"{_dtype(found)} {list(found.shape)}"
    if described != f"{dtype} {list(shape)}":
        raise Disagreement(f"{signature} returned {described} as {name}, expected {dtype} {list(shape)}")


def _dtype(array: npt.NDArray[Any]) -> str:
    return "bytes" if array.dtype.kind == "S" else array.dtype.name


def _check_close(signature: str, name: str, found: npt.NDArray[Any], expected: npt.NDArray[Any], scale: float) -> None:
    worst = float(np.max(np.abs(found - expected))) / scale
    if not worst <= TOLERANCE:  # so that NaN fails too
        raise Disagreement(
            f"{signature} disagrees with the model: {name} differ by up to {worst:.2g}, "
            f"at most {TOLERANCE:g} is expected"
        )
