"""A trained model from a run folder or a SavedModel: one way to ask either for probabilities."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from lenet_keras.data.catalogue import dataset_spec
from lenet_keras.errors import LenetKerasError
from lenet_keras.export.layout import model_folders, version_folders
from lenet_keras.export.load import load_exported
from lenet_keras.metrics import softmax
from lenet_keras.run_folder import RunFolder
from lenet_keras.run_model import load_run_model


@dataclass(frozen=True)
class Classifier:
    """A model that can be asked.

    Attributes:
        path: the run folder or the SavedModel's version folder.
        class_names: in the order of the probabilities.
        image_shape: height, width and channels of an image.
        dataset: the data set that a run was trained on; None for a SavedModel, which does not say.
        probabilities: from images uint8 [N, *image_shape], N >= 1, to floating point [N, classes].
    """

    path: Path
    class_names: tuple[str, ...]
    image_shape: tuple[int, int, int]
    dataset: str | None
    probabilities: Callable[[npt.NDArray[np.uint8]], npt.NDArray[np.float64] | npt.NDArray[np.float32]]


def load_classifier(path: Path) -> Classifier:
    """The model of the run folder or SavedModel at `path`; of a SavedModel's folder of versions, the newest.

    Raises:
        LenetKerasError: there is no finished run and no SavedModel, or its files are damaged.
    """
    folder = RunFolder(path)
    if not folder.is_run:
        exported = load_exported(path)
        return Classifier(exported.path, exported.class_names, exported.image_shape, None, exported.predict)

    from lenet_keras.training.predictor import Predictor

    dataset = folder.read_config().dataset
    model = load_run_model(folder)
    predict = Predictor(model)
    return Classifier(
        path,
        dataset_spec(dataset).class_names,
        model.input_shape[1:],
        dataset,
        lambda images: softmax(predict(images)),
    )


def newest_export(export_dir: Path) -> Path:
    """The version folder that was exported last, over all models in `export_dir`.

    Raises:
        LenetKerasError: there is none.
    """
    folders = model_folders(export_dir) if export_dir.is_dir() else []
    versions = [version for folder in folders for version in version_folders(folder)]
    if not versions:
        raise LenetKerasError(f"{export_dir} holds no exported model. Train one, or name a run or SavedModel.")
    return max(versions, key=lambda version: version.stat().st_mtime_ns)
