"""Does an exported model return what the model returns? A SavedModel is run in a fresh process, on real images."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from lenet_keras.backend import keras
from lenet_keras.data.arrays import Split
from lenet_keras.errors import ExportError
from lenet_keras.export import run_signatures
from lenet_keras.export.signatures import Tensor, class_outputs, describe_signatures, penultimate
from lenet_keras.inference.measure import in_batches, softmax

# Probabilities may differ by this much. Both sides compute in float32 on the same CPU, but a graph fuses operations
# that eager calls do not: 6e-8 was seen for LeNet-5.
TOLERANCE = 1e-5
# The difference of two logits may be off by this much where a GPU computed them in TF32, as a fraction of the image's
# largest difference: twice the most that simulations of trained models showed.
TF32_TOLERANCE = 5e-3
# Images that every signature is tested on; one signature gets all of them. A wrong graph shows on the first image, a
# wrong batch dimension on more than one.
COMPARED = 200
_TESTED_ON_ALL = "uint8"

Outputs = dict[str, npt.NDArray[Any]]
SavedModelCall = Callable[[Path, Outputs, Path], Outputs]


class Disagreement(Exception):
    """An output differs from the expected one. The message is one line and leaves the consequences to the caller."""


class ExportCheck:
    """The check that a SavedModel has to pass before it is published.

    Attributes:
        signatures: those that it must have, by name.
    """

    def __init__(self, model: keras.Model, class_names: Sequence[str], test: Split, accuracy: float | None) -> None:
        """Compute the expected outputs with `model`.

        Args:
            model: maps pixels float32 0..255 to logits; its last layer is called "logits".
            class_names: one per class.
            test: images and labels, at least one; all go through the signature `uint8`, the first 200 through each.
            accuracy: what was measured on `test` before, a fraction, on any device; None: nothing was.

        Raises:
            ExportError: the model's logits are not finite.
        """
        self.signatures = describe_signatures(model.input_shape[1:], len(class_names))
        self._class_names = class_names
        self._test = test
        self._accuracy = accuracy
        self._some = test.images[:COMPARED]
        self._probabilities = model_probabilities(model, test.images)
        self._features = _on_cpu(penultimate(model), self._some)

    def run(self, saved_model: Path, scratch: Path, call: SavedModelCall) -> None:
        """Call every signature of `saved_model` in a fresh process and compare.

        Args:
            saved_model: the folder of saved_model.pb.
            scratch: an existing folder for the arrays that travel between the processes.
            call: what `fresh_process` yields.

        Raises:
            ExportError: a signature failed or disagrees, or the accuracy cannot be the model's.
            OSError: `scratch` cannot be written to.
        """
        images = {name: self._test.images if name == _TESTED_ON_ALL else self._some for name in self.signatures}
        calls = {
            f"{name}/{signature.argument.name}": signature.example_input(images[name])
            for name, signature in self.signatures.items()
        }
        results = call(saved_model, calls, scratch)
        try:
            for name in self.signatures:
                prefix = f"{name}/"
                outputs = {key.removeprefix(prefix): value for key, value in results.items() if key.startswith(prefix)}
                if name == "features":
                    check_features(outputs, self._features)
                else:
                    check_classes(name, outputs, self._probabilities[: len(images[name])], self._class_names)
            if self._accuracy is not None:
                check_accuracy(self._probabilities, self._test.labels, self._accuracy)
        except Disagreement as error:
            raise ExportError(f"the model was not published: {error}") from error


def model_probabilities(model: keras.Model, images: npt.NDArray[np.uint8]) -> npt.NDArray[np.float64]:
    """Compute the model's own class probabilities [N, classes] for pixels 0..255 [N, height, width, channels].

    On the CPU, as in the fresh process: a GPU's reduced precision (TF32) would differ by more than the tolerance.

    >>> from lenet_keras.models import build_lenet5
    >>> model_probabilities(build_lenet5(), np.zeros((2, 28, 28, 1), np.uint8)).shape
    (2, 10)

    Raises:
        ExportError: a value is not finite.
    """
    logits = _on_cpu(model, images)
    if not np.isfinite(logits).all():
        raise ExportError("the model's logits are not finite (did training diverge?): it was not exported")
    return softmax(logits)


@contextlib.contextmanager
def fresh_process() -> Iterator[SavedModelCall]:
    """Start a process that has TensorFlow, but neither Keras nor a GPU, and yield what calls a SavedModel there, once.

    To start TensorFlow takes the process seconds, which go by in the background. What is yielded takes the folder of a
    saved_model.pb; "signature/argument" to the array to call it with; and an existing folder for the arrays that travel
    between the processes. It returns "signature/output" to what was returned. Strings are NumPy's bytes. It raises
    `ExportError` if the process failed or was killed, and `OSError` if the folder cannot be written to.

    At the end of the context, the process has ended.
    """
    # This process may hold all memory of the GPU already.
    environment = os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": "-1"}
    with subprocess.Popen(
        [sys.executable, run_signatures.__file__],
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
    ) as process:

        def call(saved_model: Path, calls: Outputs, scratch: Path) -> Outputs:
            inputs, outputs = scratch / "inputs.npz", scratch / "outputs.npz"
            np.savez(inputs, **calls)  # type: ignore[arg-type]  # its stub takes the arrays' names for its own options
            _, errors = process.communicate(json.dumps([str(path) for path in (saved_model, inputs, outputs)]))
            if process.returncode < 0:
                cause = f"it was killed by {signal.Signals(-process.returncode).name}"
                raise ExportError(f"the process that tests the SavedModel before it is published died: {cause}")
            if process.returncode > 0:
                cause = (errors.strip().splitlines() or [f"exit code {process.returncode}"])[-1]
                raise ExportError(f"the SavedModel failed when it was tested in a fresh process: {cause}")
            with np.load(outputs) as results:
                return dict(results)

        try:
            yield call
        finally:
            process.kill()
            process.wait()  # which the end of the context does not after Ctrl-C


def check_classes(
    name: str, outputs: Outputs, expected: npt.NDArray[np.float64], class_names: Sequence[str] | None
) -> None:
    """Compare the classes that a signature or file returned for some images with the model's own probabilities.

    >>> outputs = {"probabilities": np.array([[0.25, 0.75]], np.float32), "class_id": np.array([1])}
    >>> check_classes("onnx", outputs, np.array([[0.25, 0.75]]), None)

    Args:
        name: of the signature or format, for messages.
        outputs: `probabilities` [N, classes], `class_id` [N] and `class_name` [N], bytes of UTF-8.
        expected: probabilities [N, classes].
        class_names: one per class; None: no `class_name` is expected.

    Raises:
        Disagreement: a shape or type is wrong, a probability differs by more than `TOLERANCE`, a class is not the most
            probable one (of two within twice the tolerance either will do), or a name is not that of its class.
    """
    classes = expected.shape[-1]
    probabilities, class_id, class_name = class_outputs(classes)
    for output in (probabilities, class_id) if class_names is None else (probabilities, class_id, class_name):
        _check_form(name, output, outputs, len(expected))
    _check_close(name, "probabilities", outputs["probabilities"], expected, 1.0)
    for index, found in enumerate(outputs["class_id"]):
        if not 0 <= found < classes or expected[index].max() - expected[index, found] > 2 * TOLERANCE:
            raise Disagreement(
                f"{name} disagrees with the model: image {index} is class {expected[index].argmax()} for the model "
                f"and {found} for the export"
            )
        if class_names is not None and outputs["class_name"][index].decode() != class_names[found]:
            called = outputs["class_name"][index].decode()
            raise Disagreement(f"{name} calls class {found} {called!r}, expected {class_names[found]!r}")


def check_features(outputs: Outputs, expected: npt.NDArray[np.float32]) -> None:
    """Compare what the signature `features` returned, `features` [N, 84], with the model's own.

    >>> check_features({"features": np.zeros((1, 84), np.float32)}, np.zeros((1, 84), np.float32))

    Raises:
        Disagreement: shape or type is wrong, or a value differs by more than `TOLERANCE` of the largest.
    """
    _check_form("features", Tensor("features", "float32", expected.shape[1:]), outputs, len(expected))
    _check_close("features", "features", outputs["features"], expected, max(1.0, float(np.abs(expected).max())))


def check_accuracy(expected: npt.NDArray[np.float64], labels: npt.NDArray[np.int64], accuracy: float) -> None:
    """Check that `accuracy`, measured before and perhaps on a GPU, can be that of the model.

    A GPU rounds what it multiplies to TF32's ten bits, so an image may go either way if its label and the best other
    class are within `TF32_TOLERANCE` there. All others count as they are.

    >>> check_accuracy(np.array([[0.25, 0.75]]), np.array([1]), 1.0)

    Args:
        expected: the model's probabilities [N, classes], as computed here.
        labels: [N].
        accuracy: a fraction.

    Raises:
        Disagreement: another model was measured, or on other images.
    """
    logits = np.log(np.maximum(expected, np.finfo(np.float64).tiny))  # up to a constant for each image
    rows = np.arange(len(labels))
    others = logits.copy()
    others[rows, labels] = -np.inf
    lead = logits[rows, labels] - others.max(axis=1)
    tolerance = TF32_TOLERANCE * (logits.max(axis=1) - logits.min(axis=1))
    fewest, most = (lead > tolerance).sum(), (lead >= -tolerance).sum()
    if not fewest - 0.5 <= accuracy * len(labels) <= most + 0.5:
        found = float((expected.argmax(axis=1) == labels).mean())
        raise Disagreement(f"its accuracy on {len(labels):,} images is {found:.4f}, expected {accuracy:.4f}")


def _check_form(name: str, output: Tensor, outputs: Outputs, count: int) -> None:
    expected = f"{output.dtype} {[count, *output.shape]}"
    found = "nothing"
    if output.name in outputs:
        array = outputs[output.name]
        found = f"{'string' if array.dtype.kind == 'S' else array.dtype.name} {list(array.shape)}"
    if found != expected:
        raise Disagreement(f"{name} returned {found} as {output.name}, expected {expected}")


def _check_close(name: str, output: str, found: npt.NDArray[Any], expected: npt.NDArray[Any], scale: float) -> None:
    worst = float(np.max(np.abs(found - expected))) / scale
    if not worst <= TOLERANCE:  # so that NaN fails too
        raise Disagreement(
            f"{name} disagrees with the model: {output} differ by up to {worst:.2g}, expected {TOLERANCE:g} at most"
        )


def _on_cpu(model: keras.Model, images: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    def compute(part: npt.NDArray[np.uint8]) -> dict[str, npt.NDArray[np.float32]]:
        return {"outputs": model(tf.cast(part, tf.float32), training=False).numpy()}

    with tf.device("/CPU:0"):
        return in_batches(compute, images)["outputs"]
