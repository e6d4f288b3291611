"""The report on the test images that a finished run shows in TensorBoard."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from lenet_keras.errors import InvalidArgument
from lenet_keras.runs import event_files
from lenet_keras.tensorboard.callback import raising_os_errors


def write_test_report(
    run_dir: Path,
    *,
    images: NDArray[np.uint8],
    labels: NDArray[np.int64],
    probabilities: NDArray[np.float32],
    history: Sequence[Mapping[str, float]],
    class_names: Sequence[str],
    step: int,
) -> None:
    """Write the test results of a finished run for TensorBoard, to the run's subfolder `test`.

    They are the confusion matrix and the most confident mistakes (tags `test/...`), and curves if the test images were
    measured after every epoch. An earlier report is replaced.

    Args:
        run_dir: the run folder, which must exist.
        images: uint8 [N, H, W, 1], 0 to 255: the test images.
        labels: int64 [N]: their classes, 0 to C-1.
        probabilities: float32 [N, C]: the model's softmax outputs for `images`, dropout off.
        history: the rows of all epochs; what they record of the test images is drawn as curves.
        class_names: C names, in the order of the classes.
        step: the last epoch, counted from 0 as on the axes of the curves.

    Raises:
        InvalidArgument: the arrays disagree in length, there are no images, or a label is not among the classes.
        OSError: the folder cannot be written to.
    """
    # Matplotlib: the first step of a training need not wait for it.
    from lenet_keras.tensorboard.figures import confusion_matrix, draw_confusion_matrix, draw_mistakes

    _check(images, labels, probabilities, class_names)
    # Everything that can fail comes before the first event is written.
    predicted = probabilities.argmax(axis=1)
    matrix = draw_confusion_matrix(confusion_matrix(labels, predicted, len(class_names)), class_names)
    mistakes = draw_mistakes(images, labels, probabilities, class_names)

    folder = run_dir / "test"
    folder.mkdir(exist_ok=True)  # TensorFlow would create a vanished run folder again
    earlier = event_files(folder)
    with raising_os_errors(folder):
        writer = tf.summary.create_file_writer(str(folder))
        with writer.as_default(step):
            for epoch, row in enumerate(history):
                for name in ("loss", "accuracy"):
                    if f"test_{name}" in row:
                        tf.summary.scalar(f"epoch/{name}", row[f"test_{name}"], step=epoch)
            tf.summary.image("test/confusion matrix", matrix[np.newaxis])
            tf.summary.image("test/most confident mistakes", mistakes[np.newaxis])
        writer.close()
    for file in earlier:
        file.unlink()


def _check(
    images: NDArray[np.uint8],
    labels: NDArray[np.int64],
    probabilities: NDArray[np.float32],
    class_names: Sequence[str],
) -> None:
    expected = (len(labels), len(class_names))
    if len(labels) == 0 or len(images) != len(labels) or probabilities.shape != expected:
        raise InvalidArgument(
            "A test report needs one image, one label and one row of probabilities for each test image. "
            f"Received: {len(images)} images, {len(labels)} labels, probabilities of shape {probabilities.shape}, "
            f"{len(class_names)} class names"
        )
    if labels.min() < 0 or labels.max() >= len(class_names):
        raise InvalidArgument(
            f"Labels must be from 0 to {len(class_names) - 1}. Received: {labels.min()} to {labels.max()}"
        )
