"""What continues a training, and how it is taken from variables and given back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from lenet_keras.errors import LenetKerasError

if TYPE_CHECKING:
    import keras

Arrays = dict[str, npt.NDArray[Any]]


@dataclass(frozen=True)
class EpochProgress:
    """How far an epoch is.

    Attributes:
        step: the steps that are done, the number of the next one.
        loss_sum: their summed cross-entropy in nats over every image.
        correct: the images among them that were classified right.
        seconds: the time they took.
    """

    step: int = 0
    loss_sum: float = 0.0
    correct: int = 0
    seconds: float = 0.0


@dataclass(frozen=True)
class TrainingState:
    """What continues a training.

    Attributes:
        variables: every variable of model and optimizer by name; statistics of batch normalisation, seeds of dropout
            and the optimizer's moments and step count are among them.
        history: a row for each finished epoch, as in history.csv. Its length is the epoch to go on with; when to stop
            early follows from it, so no counters are kept.
        progress: how far the epoch behind those is.
        best: the model's variables after the epoch of least validation loss; empty without early stopping.
    """

    variables: Arrays
    history: list[dict[str, float]] = field(default_factory=list)
    progress: EpochProgress = EpochProgress()
    best: Arrays = field(default_factory=dict)


def capture(variables: Sequence[keras.Variable]) -> Arrays:
    """A copy of the values of `variables`, by their position and name (a name alone is not unique)."""
    return {_key(i, variable): np.array(variable) for i, variable in enumerate(variables)}


def restore(variables: Sequence[keras.Variable], values: Mapping[str, npt.NDArray[Any]]) -> None:
    """Give `variables` what `capture` took from the same ones.

    Raises:
        LenetKerasError: names or shapes differ.
    """
    expected = {_key(i, variable): tuple(variable.shape) for i, variable in enumerate(variables)}
    found = {key: value.shape for key, value in values.items()}
    if expected != found:
        odd = next(iter(sorted(set(expected.items()) ^ set(found.items()))))
        raise LenetKerasError(f"the saved state is of another model or optimizer: {odd[0]} of shape {odd[1]} differs.")
    for i, variable in enumerate(variables):
        variable.assign(values[_key(i, variable)])


def _key(position: int, variable: keras.Variable) -> str:
    # Not its path: Keras numbers the optimizers and seed generators of a process in it.
    return f"{position:03d}:{variable.name}"
