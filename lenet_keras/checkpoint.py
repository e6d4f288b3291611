"""The state of a training between two epochs: written as one file that is replaced atomically, restored exactly."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import keras
import numpy as np
import numpy.typing as npt

from lenet_keras.errors import LenetKerasError
from lenet_keras.files import write_atomically

STATE_FORMAT = 1

Arrays = dict[str, npt.NDArray[Any]]


@dataclass
class TrainingState:
    """What continues a training.

    Attributes:
        variables: every variable of model and optimizer by name; statistics of batch normalisation, seeds of dropout
            and the optimizer's moments and step count are among them.
        history: a row for each finished epoch, as in history.csv. Its length is the epoch to go on with; when to stop
            early follows from it, so no counters are kept.
        best: the model's variables after the epoch of least validation loss; empty without early stopping.
    """

    variables: Arrays
    history: list[dict[str, float]] = field(default_factory=list)
    best: Arrays = field(default_factory=dict)


def capture(variables: Sequence[keras.Variable]) -> Arrays:
    """A copy of the values of `variables`, by their position and name (a name alone is not unique)."""
    return {_key(i, variable): variable.numpy() for i, variable in enumerate(variables)}


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


def write_state(path: Path, state: TrainingState) -> None:
    """Write `state` as a NumPy archive: arrays "variables/…" and "best/…", and "meta", JSON text.

    Raises:
        OSError: the file cannot be written; an earlier state is intact.
    """
    meta = json.dumps({"format": STATE_FORMAT, "history": state.history})
    arrays = {"meta": np.array(meta)}
    arrays |= {f"variables/{key}": value for key, value in state.variables.items()}
    arrays |= {f"best/{key}": value for key, value in state.best.items()}
    content = io.BytesIO()
    np.savez(content, allow_pickle=False, **arrays)
    write_atomically(path, content.getvalue())


def read_state(path: Path) -> TrainingState:
    """Read what `write_state` wrote.

    Raises:
        LenetKerasError: the file is missing, damaged, or of another format.
    """
    try:
        with np.load(path, allow_pickle=False) as archive:
            arrays = {key: archive[key] for key in archive.files}
        meta = json.loads(str(arrays.pop("meta")))
        written = meta["format"]
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise LenetKerasError(
            f"{path}: the saved state cannot be read ({error}). Begin anew with --overwrite."
        ) from error
    if written != STATE_FORMAT:
        raise LenetKerasError(f"{path}: the saved state has format {written!r}, this version reads {STATE_FORMAT}.")
    return TrainingState(_under("variables/", arrays), meta["history"], _under("best/", arrays))


def _key(position: int, variable: keras.Variable) -> str:
    # Not its path: Keras numbers the optimizers and seed generators of a process in it.
    return f"{position:03d}:{variable.name}"


def _under(prefix: str, arrays: Arrays) -> Arrays:
    return {key.removeprefix(prefix): value for key, value in arrays.items() if key.startswith(prefix)}
