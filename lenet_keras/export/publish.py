"""From a trained model to a published version: written aside, tried in a fresh process, renamed into place."""

from __future__ import annotations

import errno
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from lenet_keras.data import Split
from lenet_keras.errors import InvalidArgument, first_line
from lenet_keras.export import layout
from lenet_keras.export.verify import ExportError, Trial
from lenet_keras.files import scratch, sync

if TYPE_CHECKING:
    import keras


def export_model(
    model: keras.Model,
    model_dir: Path,
    class_names: Sequence[str],
    test: Split,
    *,
    accuracy: float | None = None,
) -> Path:
    """Publish `model` as the next version in `model_dir`, after it ran in a fresh process and agreed with the model.

    The SavedModel has the signatures of `lenet_keras.export.signatures`, and requests on real images with which
    TensorFlow Serving warms up. Versions count up from the largest there. The folder appears by one rename; after any
    failure, Ctrl-C included, there is none.

    Args:
        model: maps float32 pixels 0..255 [N, height, width, 1] to logits [N, classes]; its last layer is called
            "logits", as `build_lenet5` calls it.
        model_dir: the model's folder, made if missing; versions are its numbered children.
        class_names: one a class, in the order of the logits.
        test: real images to compare on, at least one, with their labels.
        accuracy: the model's on `test` as it was measured before, a fraction. None: what it has now.

    Returns:
        The version folder, `<model_dir>/<version>`.

    Raises:
        InvalidArgument: images or class names do not fit the model.
        ExportError: the files cannot be written, the fresh process failed, or its outputs differ from the model's.
    """
    import tensorflow as tf

    from lenet_keras.export.signatures import write_saved_model
    from lenet_keras.export.warmup import write_warmup

    check_request(model, class_names, test.images)
    trial = Trial(model, class_names, test, accuracy)
    try:
        model_dir.mkdir(parents=True, exist_ok=True)
        # TensorFlow Serving ignores names that are not numbers.
        with scratch(model_dir, "export") as aside:
            built = aside / "saved_model"
            write_saved_model(model, class_names, built)
            trial.run(built, aside)
            write_warmup(built, test.images)
            _sync_tree(built)
            version = _rename_to_next_version(built, model_dir)
        sync(model_dir)
    except (OSError, tf.errors.OpError) as error:
        cause = first_line(error)
        raise ExportError(f"cannot export to {model_dir}: {cause}") from error
    return version


def remove_oldest(model_dir: Path, keep: int) -> None:
    """Remove all versions in `model_dir` but the `keep` newest, 1 or more.

    Each vanishes by one rename before its files are removed, so that no server sees a part of it.

    Raises:
        OSError: a version cannot be removed.
    """
    for version in layout.version_folders(model_dir)[:-keep]:
        with scratch(model_dir, "removed") as aside:
            version.rename(aside / version.name)


def check_request(model: keras.Model, class_names: Sequence[str], images: npt.NDArray[np.uint8]) -> None:
    """Raise `InvalidArgument` unless images and class names fit the model."""
    image_shape, classes = tuple(model.input_shape[1:]), model.output_shape[-1]
    if images.dtype != np.uint8 or images.shape[1:] != image_shape or len(images) == 0:
        wanted = ", ".join(map(str, image_shape))
        raise InvalidArgument(
            f"images to compare on must be uint8 [N, {wanted}]. Received: {images.dtype} {list(images.shape)}"
        )
    if len(class_names) != classes or not all(name and "\n" not in name for name in class_names):
        raise InvalidArgument(f"class_names must be {classes} names of one line each. Received: {list(class_names)}")


def _sync_tree(folder: Path) -> None:
    # TensorFlow Serving never tries a version again that failed once, so no power cut may leave a short file under the
    # final name.
    for path in [*folder.rglob("*"), folder]:
        sync(path)


def _rename_to_next_version(built: Path, model_dir: Path) -> Path:
    there = layout.version_folders(model_dir)
    version = int(there[-1].name) if there else 0
    while True:
        version += 1
        target = model_dir / str(version)
        try:
            built.rename(target)
        except OSError as error:
            # Another export took this number since the folder was listed: a rename onto a folder with content fails.
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR):
                raise
        else:
            return target
