"""The state of training: captured, written so that a damaged file costs one state and not the run, restored exactly.

It knows variables and files, not models or loops; a state can be read without TensorFlow.
"""

from __future__ import annotations

import dataclasses
import hashlib
import io
import json
import logging
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from lenet_keras.errors import LenetKerasError, RunDamaged, first_line
from lenet_keras.files import check_unpacked_size, read_bounded, replacing, sync

if TYPE_CHECKING:
    import keras

STATE_FORMAT = 2
_LARGEST = 2**26  # bytes of the file and of what it unpacks to; ours have one million, and a thousand for each epoch

Arrays = dict[str, npt.NDArray[Any]]

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class EpochProgress:
    """The progress of an epoch.

    Attributes:
        step: steps done, which is also the number of the next one.
        loss_sum: their summed cross-entropy over every image, in nats.
        correct: images classified correctly.
        seconds: time spent.
    """

    step: int = 0
    loss_sum: float = 0.0
    correct: int = 0
    seconds: float = 0.0


@dataclass(frozen=True)
class TrainingState:
    """Everything needed to resume training.

    Attributes:
        variables: every variable of model and optimizer by name, including the statistics of batch normalisation, the
            seeds of dropout, and the optimizer's moments and step count.
        history: a row per finished epoch, as in history.csv. Its length is the epoch to resume with; when to stop
            early follows from it, so there are no counters.
        progress: of the epoch after those.
        best: the model's variables after the epoch with the lowest validation loss; empty without early stopping.
        stopped_of: how many epochs were requested when a callback stopped the training after those of `history`; None:
            none did.
    """

    variables: Arrays
    history: list[dict[str, float]] = field(default_factory=list)
    progress: EpochProgress = EpochProgress()
    best: Arrays = field(default_factory=dict)
    stopped_of: int | None = None


class StateDamaged(RunDamaged):
    """A state does not hold what was written, or cannot be read."""


def capture(variables: Sequence[keras.Variable]) -> Arrays:
    """Copy the values of `variables`, keyed by position and name (a name alone is not unique).

    >>> import keras
    >>> capture([keras.Variable(1.0, name="rate")])
    {'000:rate': array(1., dtype=float32)}
    """
    return {_key(i, variable): np.array(variable) for i, variable in enumerate(variables)}


def restore(variables: Sequence[keras.Variable], values: Mapping[str, npt.NDArray[Any]]) -> None:
    """Assign to `variables` what `capture` copied from the same ones.

    Raises:
        LenetKerasError: names or shapes differ.
    """
    expected = {_key(i, variable): tuple(variable.shape) for i, variable in enumerate(variables)}
    found = {key: value.shape for key, value in values.items()}
    if expected != found:
        key, shape = min(set(expected.items()) ^ set(found.items()))
        raise LenetKerasError(f"the saved state belongs to another model or optimizer: {key} of shape {shape} differs.")
    for i, variable in enumerate(variables):
        variable.assign(values[_key(i, variable)])


def _key(position: int, variable: keras.Variable) -> str:
    # Not its path, in which Keras numbers the optimizers and seed generators of a process.
    return f"{position:03d}:{variable.name}"


def encode(state: TrainingState) -> bytes:
    """Return `state` as the content of an .npz file.

    Arrays "variables/…" and "best/…"; "meta", JSON text; "sha256", the checksum of all of them in hexadecimal. The
    archive's own CRC-32 protects each array; the checksum also proves that they belong together and none is missing.
    """
    meta = {
        "format": STATE_FORMAT,
        "history": state.history,
        "progress": dataclasses.asdict(state.progress),
        "stopped_of": state.stopped_of,
    }
    arrays = {
        "meta": np.array(json.dumps(meta)),
        **{f"variables/{key}": value for key, value in state.variables.items()},
        **{f"best/{key}": value for key, value in state.best.items()},
    }
    content = io.BytesIO()
    np.savez(content, allow_pickle=False, sha256=np.array(checksum(arrays)), **arrays)
    return content.getvalue()


def read_state(path: Path) -> TrainingState:
    """Read a file that holds what `encode` returned.

    Raises:
        StateDamaged: the file cannot be read, or its content is not what was written.
        LenetKerasError: it has the format of another version.
    """
    try:
        content = read_bounded(path, _LARGEST)
    except OSError as error:
        raise StateDamaged(f"{path} cannot be read: {first_line(error)}") from error
    return decode(content, str(path))


def decode(content: bytes, name: str) -> TrainingState:
    """Return the state that `encode` wrote; `name` is what messages call the content.

    Raises:
        StateDamaged: the content is not what was written.
        LenetKerasError: it has the format of another version.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as members:
            check_unpacked_size(members, _LARGEST)
        with np.load(io.BytesIO(content), allow_pickle=False) as archive:
            arrays = {key: archive[key] for key in archive.files}
        written_sum = str(arrays.pop("sha256", ""))
        meta = json.loads(str(arrays["meta"]))
        written = meta["format"]
    except Exception as error:  # damage raises OSError, BadZipFile, ValueError, zlib.error, KeyError and more
        raise StateDamaged(f"{name} cannot be read: {first_line(error)}") from error
    if written != STATE_FORMAT:
        raise LenetKerasError(
            f"{name} has format {written!r}, this version reads {STATE_FORMAT}. "
            "Use the version of lenet-keras that wrote it."
        )
    if written_sum != checksum(arrays):
        raise StateDamaged(f"{name} is damaged: its checksum does not match its content")
    return TrainingState(
        variables=_with_prefix("variables/", arrays),
        history=meta["history"],
        progress=EpochProgress(**meta["progress"]),
        best=_with_prefix("best/", arrays),
        stopped_of=meta.get("stopped_of"),  # absent where an earlier version wrote it
    )


def checksum(arrays: Mapping[str, npt.NDArray[Any]]) -> str:
    """Return the SHA-256 of names, types, shapes and values in hexadecimal.

    >>> checksum({"rate": np.zeros(1)}) == checksum({"rate": np.ones(1)})
    False
    """
    digest = hashlib.sha256()
    for name, array in sorted(arrays.items()):
        digest.update(f"{name} {array.dtype.str} {array.shape}\n".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()


def _with_prefix(prefix: str, arrays: Mapping[str, npt.NDArray[Any]]) -> Arrays:
    return {key.removeprefix(prefix): value for key, value in arrays.items() if key.startswith(prefix)}


class StateStore:
    """Writes and reads `state.npz`, the newest state, and `state.previous.npz`, the one before.

    The one before is kept until the newest is known to be intact.
    """

    def __init__(self, folder: Path) -> None:
        """Take the states in `folder`. Nothing is read or created yet."""
        self.newest = folder / "state.npz"
        self.previous = folder / "state.previous.npz"
        self._newest_is_intact = False

    def write(self, state: TrainingState) -> None:
        """Make `state` the newest.

        A process killed at any instant leaves at least the states that were intact before, under either name.

        Raises:
            OSError: the file cannot be written; the earlier states are intact.
        """
        content = encode(state)
        with replacing(self.newest) as temporary:
            temporary.write_bytes(content)
            sync(temporary)
            if temporary.read_bytes() != content:
                raise OSError(None, "the file system returned different bytes from those written")
            if self._newest_is_intact:  # a damaged one must not replace the intact one before it
                self._newest_is_intact = False  # nor may one be missed here that an interruption has moved already
                self.newest.replace(self.previous)
        self._newest_is_intact = True

    def read(self) -> TrainingState | None:
        """Read the newest intact state, and log a warning if it is not the last one written.

        Returns:
            None if no state has been written yet.

        Raises:
            StateDamaged: both states are damaged.
            LenetKerasError: one has the format of another version.
        """
        damage = []
        for path in (self.newest, self.previous):
            if not path.exists():  # a kill between the two renames leaves `previous` alone
                continue
            try:
                state = read_state(path)
            except StateDamaged as error:
                damage.append(str(error))
                continue
            if damage:
                logger.warning("%s. Resuming from the state before it, %s", damage[0], path.name)
            self._newest_is_intact = path == self.newest
            return state
        if damage:
            raise StateDamaged(f"{'; '.join(damage)}. No state is left to resume from.")
        return None
