"""Training: `train`, from settings to a finished run folder."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lenet_keras.lazy import lazy_names

if TYPE_CHECKING:
    from lenet_keras.training.run import RunResult, train

__all__ = ["RunResult", "train"]

__getattr__ = lazy_names(__name__, {"run": ["RunResult", "train"]})
