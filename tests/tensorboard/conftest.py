"""Read event files back with TensorBoard's own readers."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import pytest
from tensorboard.backend.event_processing.event_accumulator import TENSORS, EventAccumulator
from tensorboard.util import tensor_util

Read = Callable[[Path], EventAccumulator]
Series = Callable[[Path, str], list[tuple[int, Any]]]


@pytest.fixture
def read() -> Read:
    def read(folder: Path) -> EventAccumulator:
        return EventAccumulator(str(folder), size_guidance={TENSORS: 0}).Reload()

    return read


@pytest.fixture
def series(read: Read) -> Series:
    """Return [(step, value)] of one tag, in the order in which TensorBoard has it."""

    def series(folder: Path, tag: str) -> list[tuple[int, Any]]:
        return [(event.step, tensor_util.make_ndarray(event.tensor_proto)) for event in read(folder).Tensors(tag)]

    return series
