"""Does a SavedModel say what the model says? Asked in a fresh process, on real images, before it is published."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from lenet_keras.data import Split
from lenet_keras.errors import LenetKerasError
from lenet_keras.export import agreement, run_signatures
from lenet_keras.export.example_inputs import CLASSIFYING, inputs
from lenet_keras.metrics import softmax

if TYPE_CHECKING:
    import keras

# Images that every signature is tried on; all are given to one. A wrong graph shows on the first image, a wrong batch
# dimension on more than one.
COMPARED = 200
_BATCH = 1000


class ExportError(LenetKerasError):
    """A model could not be exported; nothing was published."""


class Trial:
    """What a SavedModel has to stand before it is published."""

    def __init__(self, model: keras.Model, class_names: Sequence[str], test: Split, accuracy: float | None) -> None:
        """Ask `model` what is right.

        Args:
            model: maps pixels float32 0..255 to logits; its last layer is called "logits".
            class_names: one a class.
            test: images and labels, at least one; all go through the signature `uint8`, the first 200 through each.
            accuracy: what was measured on `test` before, a fraction; None: what `model` has now.

        Raises:
            ExportError: the model's logits are not finite.
        """
        self._class_names = class_names
        self._test = test
        self._accuracy = accuracy
        self._some = test.images[:COMPARED]
        self._probabilities = model_probabilities(model, test.images)
        self._features = _model_features(model, self._some)

    def run(self, saved_model: Path, scratch: Path) -> None:
        """Run every signature of `saved_model`, the folder of saved_model.pb, in a fresh process and compare.

        Args:
            saved_model: the folder that holds saved_model.pb.
            scratch: an existing folder for the arrays that travel between the processes.

        Raises:
            ExportError: a signature failed or disagrees, or the accuracy is another one.
            OSError: `scratch` cannot be written to.
        """
        feeds = {f"{signature}/{name}": array for signature, (name, array) in inputs(self._some).items()}
        results = run_fresh(saved_model, {**feeds, "uint8/images": self._test.images}, scratch)
        try:
            for signature in CLASSIFYING:
                expected = self._probabilities if signature == "uint8" else self._probabilities[: len(self._some)]
                agreement.check_classes(signature, _of(signature, results), expected, self._class_names)
            agreement.check_features(_of("features", results), self._features)
            class_ids = results["uint8/class_id"]
            agreement.check_accuracy(class_ids, self._test.labels, self._probabilities, self._accuracy)
        except agreement.Disagreement as error:
            raise ExportError(f"{error}: it was not published") from error


def model_probabilities(model: keras.Model, images: npt.NDArray[np.uint8]) -> npt.NDArray[np.float64]:
    """Compute the model's own class probabilities [N, classes] for pixels 0..255 [N, height, width, channels].

    On the CPU, as the fresh process does: a GPU's reduced precision (TF32) would differ by more than the tolerance.

    Raises:
        ExportError: a value is not finite.
    """
    logits = _on_cpu(model, images)
    if not np.isfinite(logits).all():
        raise ExportError("the model's logits are not finite (did training diverge?): it was not exported")
    return softmax(logits)


def run_fresh(saved_model: Path, feeds: dict[str, npt.NDArray[Any]], scratch: Path) -> dict[str, npt.NDArray[Any]]:
    """Call signatures of `saved_model` in a fresh process that has TensorFlow, but neither Keras nor a GPU.

    Args:
        saved_model: the folder that holds saved_model.pb.
        feeds: "signature/argument" to the array to call it with; strings as NumPy's bytes.
        scratch: an existing folder for the arrays that travel between the processes.

    Returns:
        "signature/output" to what came back; strings as NumPy's bytes.

    Raises:
        ExportError: the process failed or was killed.
        OSError: `scratch` cannot be written to.
    """
    inputs, outputs = scratch / "inputs.npz", scratch / "outputs.npz"
    np.savez(inputs, **feeds)  # type: ignore[arg-type]  # its stub takes the arrays' names for its own options
    # This process may hold all memory of the GPU already.
    environment = os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": "-1"}
    command = [sys.executable, run_signatures.__file__, str(saved_model), str(inputs), str(outputs)]
    finished = subprocess.run(
        command, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace"
    )
    if finished.returncode < 0:
        cause = f"it was killed by {signal.Signals(-finished.returncode).name}"
        raise ExportError(f"the process that tries the SavedModel before it is published died: {cause}")
    if finished.returncode > 0:
        cause = (finished.stderr.strip().splitlines() or [f"exit code {finished.returncode}"])[-1]
        raise ExportError(f"the SavedModel failed when it was tried in a fresh process: {cause}")
    with np.load(outputs) as results:
        return dict(results)


def _model_features(model: keras.Model, images: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    import keras

    return _on_cpu(keras.Model(model.input, model.get_layer("logits").input), images)


def _on_cpu(model: keras.Model, images: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    import tensorflow as tf

    with tf.device("/CPU:0"):
        parts = [images[start : start + _BATCH] for start in range(0, len(images), _BATCH)]
        return np.concatenate([model(tf.cast(part, tf.float32), training=False).numpy() for part in parts])


def _of(signature: str, results: dict[str, npt.NDArray[Any]]) -> dict[str, npt.NDArray[Any]]:
    prefix = f"{signature}/"
    return {key.removeprefix(prefix): value for key, value in results.items() if key.startswith(prefix)}
