"""Does a SavedModel say what the model says? Asked in a fresh process, on real images."""

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

from lenet_keras.errors import LenetKerasError
from lenet_keras.export import run_signatures
from lenet_keras.metrics import softmax

if TYPE_CHECKING:
    import keras

# Probabilities may differ by this much. Both sides compute in float32 on the same CPU, but a graph fuses operations
# that eager calls do not: 6e-8 was seen for LeNet-5.
TOLERANCE = 1e-5


class ExportError(LenetKerasError):
    """A model could not be exported; nothing was published."""


def model_probabilities(model: keras.Model, images: npt.NDArray[np.uint8]) -> npt.NDArray[np.float64]:
    """Compute the model's own class probabilities [N, classes] for pixels 0..255 [N, height, width, channels].

    On the CPU, as the fresh process does: a GPU's reduced precision (TF32) would differ by more than the tolerance.

    Raises:
        ExportError: a value is not finite.
    """
    import tensorflow as tf

    with tf.device("/CPU:0"):
        logits = model(tf.cast(images, tf.float32), training=False).numpy()
    if not np.isfinite(logits).all():
        raise ExportError("the model's logits are not finite (did training diverge?): it was not exported")
    return softmax(logits)


def run_fresh(saved_model: Path, feeds: dict[str, npt.NDArray[Any]], scratch: Path) -> dict[str, npt.NDArray[Any]]:
    """Call signatures of `saved_model` in a fresh process that has TensorFlow, but neither Keras nor a GPU.

    Args:
        saved_model: the folder that holds saved_model.pb.
        feeds: "signature/argument" to the array to call it with.
        scratch: an existing folder for the arrays that travel between the processes.

    Returns:
        "signature/output" to what came back; strings as NumPy's str.

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


def check_outputs(
    outputs: dict[str, npt.NDArray[Any]], expected: npt.NDArray[np.float64], class_names: Sequence[str]
) -> None:
    """Compare what a signature returned for some images with the model's own probabilities for them.

    Args:
        outputs: `probabilities` [N, classes], `class_id` [N] and `class_name` [N].
        expected: probabilities [N, classes].
        class_names: one a class.

    Raises:
        ExportError: a shape or type is wrong, a probability differs by more than `TOLERANCE`, a class is not the most
            probable one (of two within twice the tolerance either will do), or a name is not that of its class.
    """
    count = len(expected)
    wanted = {
        "probabilities": ("f", 4, expected.shape),
        "class_id": ("i", 8, (count,)),
        "class_name": ("U", None, (count,)),
    }
    for name, (kind, size, shape) in wanted.items():
        found = outputs.get(name)
        if (
            found is None
            or found.dtype.kind != kind
            or size not in (None, found.dtype.itemsize)
            or found.shape != shape
        ):
            described = "nothing" if found is None else f"{found.dtype} {list(found.shape)}"
            raise ExportError(f"the SavedModel returned {described} as {name} for {count} images: it was not published")

    worst = float(np.max(np.abs(outputs["probabilities"] - expected)))
    if not worst <= TOLERANCE:  # so that NaN fails too
        raise ExportError(
            f"the SavedModel disagrees with the model: probabilities differ by up to {worst:.2g}, "
            f"at most {TOLERANCE:g} is expected: it was not published"
        )
    for index, (class_id, name) in enumerate(zip(outputs["class_id"], outputs["class_name"], strict=True)):
        if not 0 <= class_id < len(class_names) or expected[index].max() - expected[index, class_id] > 2 * TOLERANCE:
            raise ExportError(
                f"the SavedModel disagrees with the model: image {index} is class {expected[index].argmax()} to the "
                f"model and {class_id} to the SavedModel: it was not published"
            )
        if name != class_names[class_id]:
            raise ExportError(
                f"the SavedModel calls class {class_id} {str(name)!r}, expected {class_names[class_id]!r}: "
                "it was not published"
            )
