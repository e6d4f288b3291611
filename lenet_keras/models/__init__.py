"""LeNet-5 variants. Importing this loads no TensorFlow; the first use of `build_lenet5` does."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lenet_keras.lazy import lazy_names

if TYPE_CHECKING:
    from lenet_keras.models.lenet5 import build_lenet5

__all__ = ["build_lenet5"]

__getattr__ = lazy_names(__name__, {"lenet5": ["build_lenet5"]})
