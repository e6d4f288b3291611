"""A run's model.keras, loaded so that an untrusted file can run no code."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lenet_keras.data.catalogue import IMAGE_SHAPE, dataset_spec
from lenet_keras.errors import RunDamaged, excerpt, first_line
from lenet_keras.runs import RunFolder

if TYPE_CHECKING:
    import keras

# Everything that this program's models consist of. Keras's safe mode rejects what is known to bring in code; a file
# that asks for anything else is not loaded at all.
KERAS_CLASSES = frozenset(
    {
        "Functional", "__keras_tensor__", "DTypePolicy",
        "InputLayer", "Rescaling", "Conv2D", "MaxPooling2D", "AveragePooling2D", "Flatten", "Dense", "Activation",
        "BatchNormalization", "Dropout", "GlorotUniform", "Zeros", "Ones", "L2",
        "Adam", "SparseCategoricalCrossentropy",
    }
)  # fmt: skip


def load_run_model(folder: RunFolder) -> keras.Model:
    """Load the trained model of a finished run, without its optimizer; an untrusted file can run no code.

    Raises:
        RunNotFound, RunUnfinished: there is no finished run.
        RunDamaged: a file of the run is missing or damaged, or model.keras is not one of this program's models.
    """
    folder.read_metrics()
    classes = dataset_spec(folder.read_config().dataset).num_classes
    try:
        return _load(folder.model_keras, classes)
    except RunDamaged:
        raise
    except Exception as error:  # damage raises nearly any type: OSError, ValueError, KeyError, BadZipFile, zlib.error
        raise RunDamaged(f"{folder.model_keras} is damaged ({first_line(error)}).") from error


def _load(path: Path, classes: int) -> keras.Model:
    import keras

    foreign = [name for name in _class_names(path) if name not in KERAS_CLASSES]
    if foreign:
        raise _refusal(path, f"it holds {excerpt(foreign[-1])}, so it was not loaded")
    model = keras.saving.load_model(path, compile=False, safe_mode=True)
    if (model.input_shape, model.output_shape) != ((None, *IMAGE_SHAPE), (None, classes)):
        raise _refusal(path, f"it takes {excerpt(model.input_shape)} and returns {excerpt(model.output_shape)}")
    model(np.zeros((1, *IMAGE_SHAPE), np.float32))  # some damage shows only when it runs
    return model


def _class_names(path: Path) -> list[str]:
    """List the classes that Keras would instantiate: its own by name, all others with their module."""
    found = []

    def collect(config: dict[str, Any]) -> dict[str, Any]:
        if "class_name" in config:
            module, name = config.get("module"), config["class_name"]
            is_keras = module is None or str(module).split(".")[0] == "keras"
            found.append(f"{name}" if is_keras else f"{module}.{name}")
        return config

    with zipfile.ZipFile(path) as archive:
        json.loads(archive.read("config.json"), object_hook=collect)
    return found


def _refusal(path: Path, reason: str) -> RunDamaged:
    return RunDamaged(f"{path} is not one of this program's models: {reason}.")
