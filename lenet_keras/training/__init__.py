"""Training: `train` from settings to a finished run folder."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lenet_keras.training.run import RunResult as RunResult
    from lenet_keras.training.run import train as train


def __getattr__(name: str) -> Any:
    if name in ("train", "RunResult"):
        from lenet_keras.training import run

        return getattr(run, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
