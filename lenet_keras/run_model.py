"""The trained model of a run, from its model.keras."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

import keras
import numpy as np

from lenet_keras.data.catalogue import dataset_spec
from lenet_keras.errors import LenetKerasError, first_line
from lenet_keras.models.variants import shown
from lenet_keras.run_folder import RunFolder

_IMAGE_SHAPE = (28, 28, 1)  # of every data set

# All that the models of this program are made of. Keras's safe mode refuses what is known to bring code along; a file
# that asks for anything but these is not loaded at all.
_PARTS = frozenset(
    {
        "Functional", "__keras_tensor__", "DTypePolicy",
        "InputLayer", "Rescaling", "Conv2D", "MaxPooling2D", "AveragePooling2D", "Flatten", "Dense", "Activation",
        "BatchNormalization", "Dropout", "GlorotUniform", "Zeros", "Ones", "L2",
        "Adam", "SparseCategoricalCrossentropy",
    }
)  # fmt: skip


def load_run_model(folder: RunFolder) -> keras.Model:
    """The trained model of a run; a file from a stranger can run no code of theirs.

    Raises:
        LenetKerasError: the run is not finished, or its model.keras is missing, damaged or no model of this program.
    """
    folder.read_metrics()
    classes = dataset_spec(folder.read_config().dataset).num_classes
    try:
        return _load(folder.model_keras, classes)
    except LenetKerasError:
        raise
    except Exception as error:  # damage shows as nearly any type: OSError, ValueError, KeyError, BadZipFile, zlib.error
        raise LenetKerasError(
            f"{folder.model_keras} is damaged ({first_line(error)}). Train the run again with --overwrite."
        ) from error


def _load(path: Path, classes: int) -> keras.Model:
    foreign = [part for part in _parts(path) if part not in _PARTS]
    if foreign:
        raise _refusal(path, f"it holds {shown(foreign[-1])}, so it was not loaded")
    model = keras.saving.load_model(path, compile=False, safe_mode=True)
    if (model.input_shape, model.output_shape) != ((None, *_IMAGE_SHAPE), (None, classes)):
        raise _refusal(path, f"it takes {shown(model.input_shape)} and returns {shown(model.output_shape)}")
    model(np.zeros((1, *_IMAGE_SHAPE), np.float32))  # some damage shows only when it runs
    return model


def _parts(path: Path) -> list[str]:
    """What Keras would make of the file: its own classes by name, all others with their module."""
    found = []

    def note(config: dict[str, Any]) -> dict[str, Any]:
        if "class_name" in config:
            module, name = config.get("module"), config["class_name"]
            is_keras = module is None or str(module).split(".")[0] == "keras"
            found.append(f"{name}" if is_keras else f"{module}.{name}")
        return config

    with zipfile.ZipFile(path) as archive:
        json.loads(archive.read("config.json"), object_hook=note)
    return found


def _refusal(path: Path, why: str) -> LenetKerasError:
    return LenetKerasError(f"{path} is not a model of this program: {why}. Train the run again with --overwrite.")
