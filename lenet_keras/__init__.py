"""Keras LeNet-5 variants: trained, compared honestly, and exported for TensorFlow Serving.

Importing this package loads neither TensorFlow nor Keras; the first use of a name that needs them does.

Progress, such as the source of a dataset, is reported to the standard library's logger "lenet_keras", which is silent
until a program gives it a handler.
"""

from __future__ import annotations

import importlib
import logging
from typing import TYPE_CHECKING, Any

from lenet_keras.errors import (
    ClusterError,
    ClusterTimeout,
    DatasetDamaged,
    DatasetNotFound,
    DatasetRequired,
    Diverged,
    ExportError,
    InvalidArgument,
    InvalidCluster,
    LenetKerasError,
    ModelDamaged,
    ModelNotFound,
    NoHomeFolder,
    NotARunFolder,
    RunDamaged,
    RunExists,
    RunInUse,
    RunNotFound,
    RunUnfinished,
    ServerUnavailable,
    SettingsDiffer,
    WorkerLost,
)

if TYPE_CHECKING:
    from lenet_keras.config import TrainConfig
    from lenet_keras.export.publish import export_run
    from lenet_keras.inference.classifier import evaluate, predict
    from lenet_keras.models import build_lenet5
    from lenet_keras.training.train import TrainResult, train

    __version__: str

__all__ = [
    "ClusterError",
    "ClusterTimeout",
    "DatasetDamaged",
    "DatasetNotFound",
    "DatasetRequired",
    "Diverged",
    "ExportError",
    "InvalidArgument",
    "InvalidCluster",
    "LenetKerasError",
    "ModelDamaged",
    "ModelNotFound",
    "NoHomeFolder",
    "NotARunFolder",
    "RunDamaged",
    "RunExists",
    "RunInUse",
    "RunNotFound",
    "RunUnfinished",
    "ServerUnavailable",
    "SettingsDiffer",
    "TrainConfig",
    "TrainResult",
    "WorkerLost",
    "__version__",
    "build_lenet5",
    "evaluate",
    "export_run",
    "predict",
    "train",
]

_HOME_OF = {
    "TrainConfig": "config",
    "TrainResult": "training.train",
    "build_lenet5": "models",
    "evaluate": "inference.classifier",
    "export_run": "export.publish",
    "predict": "inference.classifier",
    "train": "training.train",
}

logging.getLogger(__name__).addHandler(logging.NullHandler())


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib import metadata

        return metadata.version("lenet-keras")
    if name not in _HOME_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOME_OF[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
