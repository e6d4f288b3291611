"""The report on the test images that a finished run shows in TensorBoard."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray
from tensorboard.plugins.hparams import api as hp
from tensorboard.plugins.hparams import api_pb2
from tensorboard.plugins.hparams import summary as hparams_summary

from ..errors import InvalidArgument
from .event_files import event_files
from .figures import draw_confusion_matrix, draw_mistakes
from .predictions import confusion_matrix


def write(
    run_dir: Path,
    settings: Mapping[str, bool | int | float | str],
    images: NDArray[np.uint8],
    labels: NDArray[np.int64],
    probabilities: NDArray[np.float32],
    class_names: Sequence[str],
    loss: float,
    step: int,
) -> None:
    """Do what `lenet_keras.callbacks.write_test_report` says."""
    _check(images, labels, probabilities, class_names)
    # All that can fail comes before the first event is written.
    session_start = hp.hparams_pb(dict(settings), trial_id=_trial_id(run_dir))
    session_end = hparams_summary.session_end_pb(api_pb2.STATUS_SUCCESS)
    predicted = probabilities.argmax(axis=1)
    matrix = draw_confusion_matrix(confusion_matrix(labels, predicted, len(class_names)), class_names)
    mistakes = draw_mistakes(images, labels, probabilities, class_names)

    folder = run_dir / "test"
    earlier = event_files(folder)
    writer = tf.summary.create_file_writer(str(folder))
    with writer.as_default(step):
        tf.summary.experimental.write_raw_pb(session_start.SerializeToString(), step=0)
        tf.summary.scalar("test/loss", loss)
        tf.summary.scalar("test/accuracy", np.mean(predicted == labels))
        tf.summary.image("test/confusion matrix", matrix[np.newaxis])
        tf.summary.image("test/most confident mistakes", mistakes[np.newaxis])
        tf.summary.experimental.write_raw_pb(session_end.SerializeToString(), step=0)
    writer.close()
    for file in earlier:
        file.unlink()


def _trial_id(run_dir: Path) -> str:
    """Name the run for the HParams tab, which merges runs of one name into one row.

    The end of the path is what a reader knows the run by, and all that the column has room for; the digits keep apart
    runs whose paths end alike.
    """
    path = run_dir.resolve()
    return f"{'/'.join(path.parts[-2:])} ({hashlib.sha256(str(path).encode()).hexdigest()[:4]})"


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
