"""Keras LeNet-5 variants: trained, compared honestly, and exported for TensorFlow Serving.

Importing this package loads neither TensorFlow nor Keras; the first use of a name that needs them does.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from lenet_keras.lazy import lazy_names

if TYPE_CHECKING:
    from lenet_keras.config import TrainConfig
    from lenet_keras.evaluation import evaluate
    from lenet_keras.export.of_run import export_run
    from lenet_keras.models import build_lenet5
    from lenet_keras.training import train

__all__ = ["TrainConfig", "build_lenet5", "evaluate", "export_run", "train"]

__getattr__ = lazy_names(
    __name__,
    {
        "config": ["TrainConfig"],
        "evaluation": ["evaluate"],
        "export.of_run": ["export_run"],
        "models": ["build_lenet5"],
        "training": ["train"],
    },
)
