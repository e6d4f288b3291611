"""The errors that a caller can act on, and the checks of values that raise them.

Each message is one line that says what is wrong, to which `DatasetNotFound` adds one for each place that was tried,
after two spaces. Which option of the command line helps is for the command line to say.
"""

from __future__ import annotations

import difflib
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TypeGuard, TypeVar

LARGEST_INTEGER = 2**63 - 1  # TensorFlow's and TensorBoard's integers
_LARGEST_FLOAT32 = (2 - 2**-23) * 2.0**127
_LONGEST_EXCERPT = 100  # characters

_Value = TypeVar("_Value")


class LenetKerasError(Exception):
    """A valid request that could not be carried out: a missing file, a damaged run, an unreachable site."""


class InvalidArgument(LenetKerasError, ValueError):
    """An invalid request: a name that does not exist, a number out of range."""


class RunExists(InvalidArgument):
    """A new run was requested in a folder that already holds one."""


class NotARunFolder(InvalidArgument):
    """A new run was requested in a folder that holds something else."""


class SettingsDiffer(InvalidArgument):
    """A run was to be resumed with settings that would make it a different run."""


class DatasetRequired(InvalidArgument):
    """A model does not say which dataset it was trained on, and none was named."""


class RunNotFound(InvalidArgument):
    """A folder holds no run."""


class RunInUse(LenetKerasError):
    """Another process is training in the run folder."""


class RunUnfinished(LenetKerasError):
    """The run has no final metrics yet."""


class RunDamaged(LenetKerasError):
    """A file of the run is missing, cannot be read, or does not hold what was written to it."""


class Diverged(LenetKerasError):
    """The loss or a weight became infinite or NaN; the last good state is kept, if there is one."""


class InvalidCluster(InvalidArgument):
    """TF_CONFIG is set to something that this process cannot train with."""


class ClusterError(LenetKerasError):
    """The workers of a cluster could not start together."""


class ClusterTimeout(ClusterError):
    """A worker did not join in time."""


class WorkerLost(ClusterError):
    """A worker of the cluster ended during training; the last saved state is kept."""


class NoHomeFolder(LenetKerasError):
    """The user has no home folder, and no environment variable names another place for what belongs there."""


class DatasetNotFound(LenetKerasError):
    """A dataset was in none of the places searched, and could not be fetched.

    Attributes:
        dataset: its name.
        data_dir: the only folder that was to be searched; None if there was no such restriction.
        tried: each source and why it did not help, if the dataset was to be fetched. The message shows each on a line
            of its own, after that of `args`.
    """

    def __init__(
        self, message: str, dataset: str = "", data_dir: Path | None = None, tried: Sequence[str] = ()
    ) -> None:
        super().__init__(message)
        self.dataset = dataset
        self.data_dir = data_dir
        self.tried = tuple(tried)

    def __str__(self) -> str:
        return "\n  ".join([super().__str__(), *self.tried])


class DatasetDamaged(LenetKerasError):
    """A file of a dataset is missing, cannot be read, or does not hold what the dataset's publisher released."""


class ModelNotFound(LenetKerasError):
    """A path holds neither a run nor a SavedModel."""


class ModelDamaged(LenetKerasError):
    """A saved model cannot be loaded, or is not one that this package wrote."""


class ExportError(LenetKerasError):
    """A model could not be exported; nothing was published."""


class ServerUnavailable(LenetKerasError):
    """A server does not answer, or not for the requested model; it may do so later."""


def first_line(error: BaseException) -> str:
    """Return the first line of the error's message, or its type if there is no message.

    >>> first_line(ValueError("no such file"))
    'no such file'
    """
    return next(iter(str(error).splitlines()), type(error).__name__)


def excerpt(value: object) -> str:
    """Return the `repr` of `value` on one line, cut off after 100 characters.

    >>> excerpt("relu")
    "'relu'"
    """
    try:
        text = " ".join(repr(value).splitlines())
    except (ValueError, RecursionError):  # an integer of thousands of digits; lists nested without end
        return f"a {type(value).__name__} too large to show"
    return text if len(text) <= _LONGEST_EXCERPT else f"{text[:_LONGEST_EXCERPT]}…"


def python_value(value: _Value) -> _Value:
    """Return a NumPy scalar as the Python number, boolean or string that it equals, and anything else as it is.

    >>> import numpy as np
    >>> python_value(np.int64(3)), python_value(np.bool_(True)), python_value("all")
    (3, True, 'all')
    """
    numpy = sys.modules.get("numpy")  # without it, nothing is NumPy's
    return value.item() if numpy and isinstance(value, numpy.generic) else value


def is_number(value: object) -> TypeGuard[float]:
    """Return whether `value` is an int or float that is finite in float32, the precision of the models.

    >>> is_number(0.25), is_number(float("nan")), is_number(True)
    (True, False, False)
    """
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) <= _LARGEST_FLOAT32


def check_type(name: str, value: object, expected: type, description: str) -> None:
    """Raise `InvalidArgument` unless `value` is an instance of `expected`, which messages call `description`.

    >>> check_type("xla", True, bool, "true or false")
    """
    if not isinstance(value, expected):
        raise InvalidArgument(f"{name} must be {description}. Received: {excerpt(value)}")


def check_choice(name: str, value: str, choices: Sequence[str]) -> None:
    """Raise `InvalidArgument` unless `value` is among `choices`.

    >>> check_choice("pooling", "max", ("max", "average"))
    """
    if value not in choices:
        guess = did_you_mean(value, choices)
        raise InvalidArgument(f"{name} must be one of {', '.join(choices)}.{guess} Received: {excerpt(value)}")


def did_you_mean(value: str, choices: Iterable[str]) -> str:
    """Return a sentence, to follow another, that names the choice which `value` resembles; "" if there is none.

    >>> did_you_mean("droput", ["none", "dropout"])
    " Did you mean 'dropout'?"
    """
    close = difflib.get_close_matches(value, choices, n=1) if len(value) <= _LONGEST_EXCERPT else []
    return f" Did you mean {close[0]!r}?" if close else ""


def check_integer(name: str, value: object, minimum: int, maximum: int | None = None) -> None:
    """Raise `InvalidArgument` unless `value` is an integer from `minimum` to `maximum`, 2**63 - 1 by default.

    >>> check_integer("epochs", 50, minimum=1)
    """
    allowed = f"{minimum} or more" if maximum is None else f"{minimum} to {maximum}"
    if not isinstance(value, int) or isinstance(value, bool):
        raise InvalidArgument(f"{name} must be an integer, {allowed}. Received: {excerpt(value)}")
    if value < minimum or (maximum is not None and value > maximum):
        raise InvalidArgument(f"{name} must be {allowed}. Received: {excerpt(value)}")
    if value > LARGEST_INTEGER:
        raise InvalidArgument(f"{name} must be {LARGEST_INTEGER} or less. Received: {excerpt(value)}")
