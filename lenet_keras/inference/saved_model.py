"""An exported SavedModel, loaded back without Keras, and the files that go with its graph: class names and origin."""

from __future__ import annotations

import json
import stat
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from lenet_keras.errors import InvalidArgument, ModelDamaged, ModelNotFound, first_line
from lenet_keras.files import read_bounded
from lenet_keras.inference.measure import in_batches
from lenet_keras.serving.config import check_saved_model_path, version_folders

_GRAPH = "saved_model.pb"
_LABELS = Path("assets", "labels.txt")
_ORIGIN = Path("assets", "origin.json")
_LARGEST_ORIGIN = 10_000  # bytes
_LARGEST = 2**28  # bytes of all files together; ours have one million
_LARGEST_LABELS = 2**20  # bytes
_LARGEST_SIDE = 4096  # pixels; an untrusted model must not be able to demand all memory


@dataclass(frozen=True)
class Origin:
    """What a SavedModel says about where it comes from.

    Attributes:
        dataset: the name of the dataset that it was trained on.
        weights_sha256: the checksum of its weights, by which an export of the same model is known; as
            `lenet_keras.export.publish.export_run` computes it.
    """

    dataset: str
    weights_sha256: str


class ExportedModel:
    """A SavedModel that `lenet_keras.export.publish.export_model` wrote.

    Attributes:
        path: its version folder.
        class_names: one per class, in the order of the probabilities.
        image_shape: height, width and channels of an image.
        dataset: the one that it was trained on; None: it does not say.
    """

    def __init__(
        self,
        path: Path,
        class_names: tuple[str, ...],
        image_shape: tuple[int, int, int],
        dataset: str | None,
        loaded: Any,
    ) -> None:
        """Take what `open_saved_model` has loaded and checked."""
        self.path = path
        self.dataset = dataset
        self.class_names = class_names
        self.image_shape = image_shape
        self._loaded = loaded  # a signature does not keep its variables alive on its own

    def probabilities(self, images: npt.NDArray[np.uint8] | npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Compute class probabilities, float32 [N, classes], for pixels 0..255, uint8 or float32 [N, *image_shape].

        Raises:
            InvalidArgument: images of another type or shape.
        """
        if images.dtype not in (np.uint8, np.float32) or images.shape[1:] != self.image_shape:
            expected = ", ".join(map(str, self.image_shape))
            raise InvalidArgument(
                f"images must be uint8 or float32 [N, {expected}]. Received: {images.dtype} {list(images.shape)}"
            )
        if len(images) == 0:
            return np.zeros((0, len(self.class_names)), np.float32)
        serve = self._loaded.signatures["serving_default"]

        def compute(part: npt.NDArray[Any]) -> dict[str, npt.NDArray[Any]]:
            return {"probabilities": serve(images=part.astype(np.float32))["probabilities"].numpy()}

        return in_batches(compute, images)["probabilities"]


def open_saved_model(path: Path) -> ExportedModel:
    """Load a SavedModel that `export_model` wrote: a version folder, or the newest version in a model's folder.

    Raises:
        InvalidArgument: TensorFlow cannot load a SavedModel from this path.
        ModelNotFound: `path` holds no SavedModel.
        ModelDamaged: the SavedModel is damaged, or another program wrote it.
    """
    folder = _version_folder(path)
    check_saved_model_path(folder)
    import tensorflow as tf

    try:
        _check_files(folder)
        loaded = tf.saved_model.load(str(folder))
    except Exception as error:  # damage raises nearly any type: OSError, ValueError, KeyError, DecodeError, OpError
        raise _damaged(folder, error) from error

    try:
        signature = loaded.signatures["serving_default"]
        images = signature.structured_input_signature[1]["images"]
        batch, *image_shape = images.shape.as_list()
        rows, classes = signature.structured_outputs["probabilities"].shape.as_list()
        if images.dtype != tf.float32 or (batch, rows) != (None, None) or not _is_image_shape(image_shape):
            raise ValueError(f"{images} is not a batch of images")
        class_names = read_labels(folder)
    except (AttributeError, KeyError, OSError, TypeError, ValueError) as error:
        raise ModelDamaged(
            f"{folder} is not a model that this program exported: its serving_default must take images and return "
            "probabilities, and assets/labels.txt must name the classes"
        ) from error
    if len(class_names) != classes:
        raise ModelDamaged(f"{folder} is damaged: assets/labels.txt names {len(class_names)} of {classes} classes")

    try:
        origin = read_origin(folder)
    except (OSError, TypeError, ValueError, RecursionError) as error:
        raise ModelDamaged(f"{folder} is damaged: {_ORIGIN} cannot be read ({first_line(error)})") from error

    height, width, channels = image_shape
    dataset = None if origin is None else origin.dataset
    model = ExportedModel(folder, class_names, (height, width, channels), dataset, loaded)
    try:
        model.probabilities(np.zeros((1, *model.image_shape), np.float32))  # some damage shows only when the graph runs
    except Exception as error:  # as above
        raise _damaged(folder, error) from error
    return model


def write_labels(saved_model: Path, class_names: Sequence[str]) -> None:
    """Write the class names to the folder of saved_model.pb, one per line in the order of the classes (UTF-8).

    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     write_labels(Path(folder), ["Trouser", "Ångström"])
    ...     read_labels(Path(folder))
    ('Trouser', 'Ångström')

    Raises:
        OSError: the file cannot be written.
    """
    file = saved_model / _LABELS
    file.parent.mkdir(exist_ok=True)
    file.write_text("".join(f"{name}\n" for name in class_names), encoding="utf-8")


def read_labels(saved_model: Path) -> tuple[str, ...]:
    """Read what `write_labels` wrote.

    Raises:
        OSError: the file is missing or cannot be read.
        UnicodeDecodeError: the file is not UTF-8.
    """
    return tuple(read_bounded(saved_model / _LABELS, _LARGEST_LABELS).decode().split("\n")[:-1])


def write_origin(saved_model: Path, origin: Origin) -> None:
    """Write `origin` to the folder of saved_model.pb, as JSON.

    Raises:
        OSError: the file cannot be written.
    """
    file = saved_model / _ORIGIN
    file.parent.mkdir(exist_ok=True)
    file.write_text(json.dumps(asdict(origin), indent=2) + "\n")


def read_origin(saved_model: Path) -> Origin | None:
    """Read what `write_origin` wrote; None: there is no such file.

    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     write_origin(Path(folder), Origin("mnist", "0" * 64))
    ...     read_origin(Path(folder)).dataset
    'mnist'

    Raises:
        OSError: the file cannot be read.
        TypeError, ValueError, RecursionError: it does not hold what was written.
    """
    file = saved_model / _ORIGIN
    if not file.is_file():
        return None
    origin = Origin(**json.loads(read_bounded(file, _LARGEST_ORIGIN)))
    if not (isinstance(origin.dataset, str) and isinstance(origin.weights_sha256, str)):
        raise ValueError("dataset and weights_sha256 must be strings")
    return origin


def is_saved_model(path: Path) -> bool:
    """Return whether `path` is a folder that holds a SavedModel.

    >>> is_saved_model(Path("no such folder"))
    False
    """
    return (path / _GRAPH).is_file()


def _version_folder(path: Path) -> Path:
    if is_saved_model(path):
        return path
    try:
        versions = version_folders(path)
    except OSError as error:
        raise ModelNotFound(f"{path} is not a SavedModel: {error.strerror}") from error
    if not versions:
        raise ModelNotFound(
            f"{path} is not a SavedModel: expected {_GRAPH} or numbered version folders in it; export a model first"
        )
    newest = versions[-1]
    if not is_saved_model(newest):
        raise ModelDamaged(f"{newest} is damaged: it holds no {_GRAPH}; remove it or export the model again")
    return newest


def _check_files(folder: Path) -> None:
    # TensorFlow would wait for a pipe, read a device without end, and take memory for whatever a file holds.
    size = 0
    for file in [*folder.glob("*"), *folder.glob("variables/*"), *folder.glob("assets/*")]:
        status = file.stat()
        if not (stat.S_ISREG(status.st_mode) or stat.S_ISDIR(status.st_mode)):
            raise ValueError(f"{file.relative_to(folder)} is not a regular file")
        size += status.st_size
    if size > _LARGEST:
        raise ValueError(f"it has {size} bytes; the limit is {_LARGEST}")


def _is_image_shape(shape: Sequence[int | None]) -> bool:
    return len(shape) == 3 and all(side is not None and 1 <= side <= _LARGEST_SIDE for side in shape)


def _damaged(folder: Path, error: Exception) -> ModelDamaged:
    return ModelDamaged(f"{folder} is damaged ({first_line(error)}); remove it or export the model again")
