"""The IDX format of MNIST's files: big-endian magic 0x000008DD (DD dimensions of unsigned bytes), sizes, bytes.

Format: http://yann.lecun.com/exdb/mnist/, "THE IDX FILE FORMAT".
"""

from __future__ import annotations

import gzip
import hashlib
import math
import struct
import zlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt

from lenet_keras.errors import LenetKerasError

Bytes = npt.NDArray[np.uint8]

IDX_FILES: Mapping[str, tuple[str, str]] = {
    "train": ("train-images-idx3-ubyte", "train-labels-idx1-ubyte"),
    "test": ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"),
}
IDX_NAMES = tuple(name for pair in IDX_FILES.values() for name in pair)


def holds_idx(folder: Path) -> bool:
    """Whether any of the four files is in `folder`; one alone makes it a damaged copy, not an absent one."""
    return any(_stored(folder, name) for name in IDX_NAMES)


def read_idx_folder(
    folder: Path, mend: str, sha256: Mapping[str, str] | None, of_gz: bool = False
) -> dict[str, tuple[Bytes, Bytes]]:
    """Read the four files of a data set, each raw or with `.gz`.

    Args:
        folder: holds the files.
        mend: what to do about a file that is wrong, for the message.
        sha256: the expected sum of each, by its name without `.gz`; None to check the format only.
        of_gz: the sums are of the compressed files, so only those will do; otherwise of the decompressed contents.

    Returns:
        (images uint8 [N, rows, columns], labels uint8 [N]) under "train" and "test".

    Raises:
        LenetKerasError: a file is missing, truncated, damaged or not the one expected; names it and what to do.
    """
    paths = {name: _stored(folder, name, gz_only=of_gz) for name in IDX_NAMES}
    missing = ", ".join(name + (".gz" if of_gz else "[.gz]") for name, path in paths.items() if path is None)
    if missing:
        raise LenetKerasError(f"{folder}: expected the four IDX files of the data set, found no {missing}; {mend}.")

    def read(name: str) -> Bytes:
        path = paths[name]
        assert path is not None  # looked for above
        return read_idx(path, mend, sha256[name] if sha256 else None, of_gz)

    return {split: (read(images), read(labels)) for split, (images, labels) in IDX_FILES.items()}


def read_idx(path: Path, mend: str, sha256: str | None = None, of_gz: bool = False) -> Bytes:
    """Read one IDX file of unsigned bytes, raw or gzip by its suffix, as an array of the shape that its header gives.

    The sum is checked last where it can be: a truncated file is better called that than one with a wrong sum.

    Raises:
        LenetKerasError: the file cannot be read, or is not the one expected.
    """

    def expect(what: str, expected: object, found: object) -> None:
        if found != expected:
            raise LenetKerasError(f"{path}: {what}: expected {expected}, found {found}; {mend}.")

    try:
        content = path.read_bytes()
    except OSError as error:
        raise LenetKerasError(f"{path}: expected a readable file, found: {error.strerror}; {mend}.") from error
    compressed = content
    if path.suffix == ".gz":
        try:
            content = gzip.decompress(content)
        except (EOFError, OSError, zlib.error) as error:  # gzip reports a truncated file as EOFError
            raise LenetKerasError(f"{path}: expected a whole gzip file, found: {error}; {mend}.") from error

    dimensions = 3 if "idx3" in path.name else 1
    magic = 0x0800 + dimensions
    header = 4 + 4 * dimensions
    expect("magic number", f"{magic:08x}", content[:4].hex() or "an empty file")
    if len(content) < header:
        expect("length", f"at least {header} bytes", f"{len(content)} bytes")
    shape = struct.unpack_from(f">{dimensions}I", content, 4)
    expect("length (decompressed)", f"{header + math.prod(shape)} bytes", f"{len(content)} bytes")
    if sha256 is not None:
        summed, of_what = (compressed, "compressed") if of_gz else (content, "decompressed")
        expect(f"SHA-256 of the {of_what} file", sha256, hashlib.sha256(summed).hexdigest())
    return np.frombuffer(content, dtype=np.uint8, offset=header).reshape(shape)


def idx_bytes(array: Bytes) -> bytes:
    """The contents of an IDX file that holds `array`."""
    return struct.pack(f">I{array.ndim}I", 0x0800 + array.ndim, *array.shape) + array.tobytes()


def _stored(folder: Path, name: str, gz_only: bool = False) -> Path | None:
    names = (f"{name}.gz",) if gz_only else (name, f"{name}.gz")
    return next((folder / each for each in names if present(folder / each)), None)


def present(path: Path) -> bool:
    """Whether `path` exists and may be looked at: another user's home folder holds nothing for this one."""
    try:
        return path.exists()
    except OSError:
        return False
