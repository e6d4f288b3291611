"""States of a training with a few variables."""

from __future__ import annotations

import numpy as np
import pytest

from lenet_keras.checkpoint import EpochProgress, TrainingState


def make_state(epoch: int) -> TrainingState:
    """Return the state after that many epochs, three steps into the next."""
    variables = {
        "000:kernel": np.arange(6, dtype=np.float32).reshape(2, 3) + epoch,
        "001:seed": np.array([epoch, 2], np.uint32),
    }
    history = [{"epoch": i + 1, "loss": 0.1 + 0.2 / (i + 1)} for i in range(epoch)]
    return TrainingState(
        variables, history, EpochProgress(3, 0.1 + 0.2, 7, 1.5), {"000:kernel": np.ones((2, 3), np.float32)}
    )


@pytest.fixture
def state() -> TrainingState:
    """The state after two epochs."""
    return make_state(2)
