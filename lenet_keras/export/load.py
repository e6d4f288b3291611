"""An exported model, loaded back for evaluation and prediction, without Keras."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from lenet_keras.errors import InvalidArgument, LenetKerasError, first_line
from lenet_keras.export import layout

_LARGEST_SIDE = 4096  # a stranger's model may not ask for all memory


class ExportedModel:
    """A SavedModel that `export_model` wrote.

    Attributes:
        path: its version folder.
        class_names: one a class, in the order of the probabilities.
        image_shape: height, width and channels of an image.
    """

    def __init__(
        self, path: Path, class_names: tuple[str, ...], image_shape: tuple[int, int, int], loaded: Any
    ) -> None:
        self.path = path
        self.class_names = class_names
        self.image_shape = image_shape
        self._loaded = loaded  # a signature does not keep its variables alive by itself

    def predict(
        self, images: npt.NDArray[np.uint8] | npt.NDArray[np.float32], batch: int = 1000
    ) -> npt.NDArray[np.float32]:
        """Compute class probabilities, float32 [N, classes], for pixels 0..255, uint8 or float32 [N, *image_shape].

        `batch` images are computed at a time, which bounds the memory used.

        Raises:
            InvalidArgument: images of another type or shape, or a batch below 1.
        """
        if images.dtype not in (np.uint8, np.float32) or images.shape[1:] != self.image_shape:
            wanted = ", ".join(map(str, self.image_shape))
            raise InvalidArgument(
                f"images must be uint8 or float32 [N, {wanted}]. Received: {images.dtype} {list(images.shape)}"
            )
        if batch < 1:
            raise InvalidArgument(f"batch must be at least 1. Received: {batch}")
        serve = self._loaded.signatures["serving_default"]
        probabilities = np.empty((len(images), len(self.class_names)), np.float32)
        for start in range(0, len(images), batch):
            part = slice(start, start + batch)
            probabilities[part] = serve(images=images[part].astype(np.float32))["probabilities"].numpy()
        return probabilities


def load_exported(path: Path) -> ExportedModel:
    """Load a SavedModel that `export_model` wrote: a version folder, or a model's folder for its newest version.

    Raises:
        LenetKerasError: there is no SavedModel, it is damaged, or another program wrote it.
    """
    folder = _version_folder(path)
    import tensorflow as tf

    try:
        loaded = tf.saved_model.load(str(folder))
    except Exception as error:  # damage shows as nearly any type: OSError, ValueError, KeyError, DecodeError, OpError
        raise _damaged(folder, error) from error

    try:
        signature = loaded.signatures["serving_default"]
        images = signature.structured_input_signature[1]["images"]
        batch, *image_shape = images.shape.as_list()
        rows, classes = signature.structured_outputs["probabilities"].shape.as_list()
        if images.dtype != tf.float32 or (batch, rows) != (None, None) or not _is_image_shape(image_shape):
            raise ValueError(f"{images} is no batch of images")
        class_names = layout.read_labels(folder)
    except (AttributeError, KeyError, OSError, TypeError, ValueError) as error:
        raise LenetKerasError(
            f"{folder} is not a model that this program exported: its serving_default must take images and return "
            "probabilities, and assets/labels.txt must name the classes"
        ) from error
    if len(class_names) != classes:
        raise LenetKerasError(f"{folder} is damaged: assets/labels.txt names {len(class_names)} of {classes} classes")

    height, width, channels = image_shape
    model = ExportedModel(folder, class_names, (height, width, channels), loaded)
    try:
        model.predict(np.zeros((1, *model.image_shape), np.float32))  # some damage shows only when the graph runs
    except Exception as error:  # as above
        raise _damaged(folder, error) from error
    return model


def _is_image_shape(shape: Sequence[int | None]) -> bool:
    return len(shape) == 3 and all(side is not None and 1 <= side <= _LARGEST_SIDE for side in shape)


def _version_folder(path: Path) -> Path:
    if (path / "saved_model.pb").is_file():
        return path
    try:
        versions = layout.version_folders(path)
    except OSError as error:
        raise LenetKerasError(f"{path} is not a SavedModel: {error.strerror}") from error
    if not versions:
        raise LenetKerasError(
            f"{path} is not a SavedModel: expected saved_model.pb or numbered version folders in it; "
            "export a model first"
        )
    newest = versions[-1]
    if not (newest / "saved_model.pb").is_file():
        raise LenetKerasError(f"{newest} is damaged: it holds no saved_model.pb; remove it or export the model again")
    return newest


def _damaged(folder: Path, error: Exception) -> LenetKerasError:
    cause = first_line(error)
    return LenetKerasError(f"{folder} is damaged ({cause}); remove it or export the model again")
