"""A run's model.keras, loaded so that an untrusted file can run no code, and takes no more memory than one of ours."""

from __future__ import annotations

import io
import json
import zipfile
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lenet_keras.config import TrainConfig
from lenet_keras.data.catalogue import IMAGE_SHAPE, dataset_spec
from lenet_keras.errors import RunDamaged, excerpt, first_line
from lenet_keras.files import check_unpacked_size, read_bounded
from lenet_keras.models import build_lenet5
from lenet_keras.runs import RunFolder

if TYPE_CHECKING:
    import keras

# Bytes of the file, of what it unpacks to, and of its arrays; with Adam's moments, ours have a million.
_LARGEST = 2**24

# Everything that this program's models consist of; a file that names anything else is refused. Nothing in the file is
# instantiated: the run's settings say what the model is, and the file has to agree with them.
KERAS_CLASSES = frozenset(
    {
        "Functional", "__keras_tensor__", "DTypePolicy",
        "InputLayer", "Rescaling", "Conv2D", "MaxPooling2D", "AveragePooling2D", "Flatten", "Dense", "Activation",
        "BatchNormalization", "Dropout", "GlorotUniform", "Zeros", "Ones", "L2",
        "Adam", "LossScaleOptimizer", "SparseCategoricalCrossentropy",
    }
)  # fmt: skip


def build_run_model(config: TrainConfig) -> keras.Model:
    """Build the untrained model that a run's settings describe, in float32.

    >>> build_run_model(TrainConfig(reg="dropout")).count_params()
    61706
    """
    return build_lenet5(
        reg=config.reg,
        num_classes=dataset_spec(config.dataset).num_classes,
        input_shape=IMAGE_SHAPE,
        activation=config.activation,
        pooling=config.pooling,
        dropout_rate=config.dropout_rate,
        dropout_layers=config.dropout_layers,
        batch_norm_layers=config.batch_norm_layers,
        weight_decay=config.weight_decay,
        seed=config.seed,
    )


def load_run_model(folder: RunFolder) -> keras.Model:
    """Load the trained model of a finished run, without its optimizer; an untrusted file can run no code.

    Raises:
        RunNotFound, RunUnfinished: there is no finished run.
        RunDamaged: a file of the run is missing or damaged, or model.keras is not one of this program's models.
    """
    folder.read_metrics()
    config = folder.read_config()
    try:
        return _load(folder.model_keras, config)
    except RunDamaged:
        raise
    except Exception as error:  # damage raises nearly any type: OSError, ValueError, KeyError, BadZipFile, zlib.error
        raise RunDamaged(f"{folder.model_keras} is damaged ({first_line(error)}).") from error


def _load(path: Path, config: TrainConfig) -> keras.Model:
    with zipfile.ZipFile(io.BytesIO(read_bounded(path, _LARGEST))) as archive:
        check_unpacked_size(archive, _LARGEST)
        described, weights = archive.read("config.json"), archive.read("model.weights.h5")  # their CRC-32 is checked
    foreign = [name for name in _class_names(described) if name not in KERAS_CLASSES]
    if foreign:
        raise _refusal(path, f"it holds {excerpt(foreign[-1])}, so it was not loaded")

    model = build_run_model(config)
    expected = [f"{type(layer).__name__} {layer.name}" for layer in model.layers]
    found = [f"{layer['class_name']} {layer['config']['name']}" for layer in json.loads(described)["config"]["layers"]]
    for ours, theirs in zip_longest(expected, found):
        if ours != theirs:
            raise _refusal(path, f"the run's settings have the layer {ours}, it has {excerpt(theirs)}")
    _check_arrays(weights)
    model.load_weights(path)
    model(np.zeros((1, *IMAGE_SHAPE), np.float32))  # ONNX's converter takes only a model that has been called
    return model


def _class_names(described: bytes) -> list[str]:
    """List the classes that Keras would instantiate: its own by name, all others with their module."""
    found = []

    def collect(config: dict[str, Any]) -> dict[str, Any]:
        if "class_name" in config:
            module, name = config.get("module"), config["class_name"]
            is_keras = module is None or str(module).split(".")[0] == "keras"
            found.append(f"{name}" if is_keras else f"{module}.{name}")
        return config

    json.loads(described, object_hook=collect)
    return found


def _check_arrays(weights: bytes) -> None:
    # An HDF5 file of some kilobytes can declare gigabytes.
    import h5py

    sizes = []
    with h5py.File(io.BytesIO(weights)) as file:
        file.visititems(lambda _, node: sizes.append(node.nbytes) if isinstance(node, h5py.Dataset) else None)
    if sum(sizes) > _LARGEST:
        raise ValueError(f"its arrays have {sum(sizes)} bytes; the limit is {_LARGEST}")


def _refusal(path: Path, reason: str) -> RunDamaged:
    return RunDamaged(f"{path} is not one of this program's models: {reason}.")
