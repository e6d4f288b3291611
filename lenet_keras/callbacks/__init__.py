"""What TensorBoard shows of a run: curves while it trains, and a report on the test images at its end."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import keras
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["tensorboard", "write_test_report"]


def tensorboard(run_dir: Path, histograms: bool = False) -> keras.callbacks.Callback:
    """Return the Keras callback that logs each epoch for TensorBoard; see `epoch_log.EpochLog`.

    Args:
        run_dir: the run folder; events go to its subfolders `train` and `validation`, made when first needed.
        histograms: also log a histogram of every weight after every epoch.
    """
    from .epoch_log import EpochLog

    return EpochLog(run_dir, histograms=histograms)


def write_test_report(
    run_dir: Path,
    *,
    settings: Mapping[str, bool | int | float | str],
    images: NDArray[np.uint8],
    labels: NDArray[np.int64],
    probabilities: NDArray[np.float32],
    class_names: Sequence[str],
    loss: float,
    step: int,
) -> None:
    """Write the test results of a finished run for TensorBoard, into the run's subfolder `test`.

    It holds loss and accuracy, the confusion matrix and the most confident mistakes (tags `test/...`), and one session
    for the HParams tab: the settings, with test loss and accuracy as its metrics. A report that is there already is
    replaced.

    Args:
        run_dir: the run folder.
        settings: what distinguishes this run from others, shown as columns of the HParams tab.
        images: uint8 [N, H, W, 1], 0 to 255: the test images.
        labels: int64 [N]: their classes, 0 to C-1.
        probabilities: float32 [N, C]: the model's softmax outputs for `images`, dropout off.
        class_names: C names, in the order of the classes.
        loss: mean loss over the test images.
        step: the last epoch, counted from 0 as on the axes of the curves.

    Raises:
        InvalidArgument: the arrays disagree in length, there are no images, or a label is not among the classes.
        TypeError: a setting is no bool, number or string.
        OSError: the folder cannot be written to.
    """
    from .report import write

    write(run_dir, settings, images, labels, probabilities, class_names, loss, step)
