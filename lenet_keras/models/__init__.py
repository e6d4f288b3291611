"""LeNet-5 variants. Importing this loads no TensorFlow; the first use of `build_lenet5` does."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lenet_keras.models.lenet5 import build_lenet5 as build_lenet5


def __getattr__(name: str) -> Any:
    if name == "build_lenet5":
        from lenet_keras.models.lenet5 import build_lenet5

        return build_lenet5
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
