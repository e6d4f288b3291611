"""One state as one file: a NumPy archive that carries its format's version and a checksum."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from lenet_keras.checkpoint.state import EpochProgress, TrainingState
from lenet_keras.errors import LenetKerasError, first_line

STATE_FORMAT = 2

Arrays = Mapping[str, npt.NDArray[Any]]


class DamagedState(LenetKerasError):
    """A file does not hold what was written to it, or cannot be read."""


def encode(state: TrainingState) -> bytes:
    """`state` as the content of an .npz file.

    Arrays "variables/…" and "best/…"; "meta", JSON text; "sha256", the checksum of them all in hexadecimal digits.
    The archive's own CRC-32 guards each array, the checksum also that they are of one state and none is missing.
    """
    meta = {
        "format": STATE_FORMAT,
        "history": state.history,
        "progress": dataclasses.asdict(state.progress),
    }
    arrays = {
        "meta": np.array(json.dumps(meta)),
        **{f"variables/{key}": value for key, value in state.variables.items()},
        **{f"best/{key}": value for key, value in state.best.items()},
    }
    content = io.BytesIO()
    np.savez(content, allow_pickle=False, sha256=np.array(_checksum(arrays)), **arrays)
    return content.getvalue()


def read_state(path: Path) -> TrainingState:
    """Read a file of what `encode` made.

    Raises:
        DamagedState: the file cannot be read, or its content is not what was written.
        LenetKerasError: it is of another format.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DamagedState(f"{path} cannot be read: {first_line(error)}") from error
    return decode(content, str(path))


def decode(content: bytes, path: str) -> TrainingState:
    """The inverse of `encode`; `path` names the content in messages.

    Raises:
        DamagedState: the content is not what was written.
        LenetKerasError: it is of another format.
    """
    try:
        with np.load(io.BytesIO(content), allow_pickle=False) as archive:
            arrays = {key: archive[key] for key in archive.files}
        checksum = str(arrays.pop("sha256", ""))
        meta = json.loads(str(arrays["meta"]))
        written = meta["format"]
    except Exception as error:  # damage shows as OSError, BadZipFile, ValueError, zlib.error, KeyError and more
        raise DamagedState(f"{path} cannot be read: {first_line(error)}") from error
    if written != STATE_FORMAT:
        raise LenetKerasError(
            f"{path} has format {written!r}, this version reads {STATE_FORMAT}. "
            "Use the version of lenet-keras that wrote it."
        )
    if checksum != _checksum(arrays):
        raise DamagedState(f"{path} is damaged: its checksum is not that of its content")
    return TrainingState(
        variables=_under("variables/", arrays),
        history=meta["history"],
        progress=EpochProgress(**meta["progress"]),
        best=_under("best/", arrays),
    )


def _checksum(arrays: Arrays) -> str:
    digest = hashlib.sha256()
    for name, array in sorted(arrays.items()):
        digest.update(f"{name} {array.dtype.str} {array.shape}\n".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()


def _under(prefix: str, arrays: Arrays) -> dict[str, npt.NDArray[Any]]:
    return {key.removeprefix(prefix): value for key, value in arrays.items() if key.startswith(prefix)}
