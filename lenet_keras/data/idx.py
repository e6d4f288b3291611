"""The IDX format of MNIST's files: big-endian magic 0x000008DD (DD dimensions of unsigned bytes), sizes, bytes.

Format: http://yann.lecun.com/exdb/mnist/, "THE IDX FILE FORMAT".
"""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import io
import math
import struct
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt

from lenet_keras.errors import DatasetDamaged, LenetKerasError
from lenet_keras.files import creating_folder, read_bounded

Bytes = npt.NDArray[np.uint8]

_LARGEST = 2**30  # bytes, decompressed; the largest dataset, emnist/byclass, has half as many

IDX_FILES: Mapping[str, tuple[str, str]] = {
    "train": ("train-images-idx3-ubyte", "train-labels-idx1-ubyte"),
    "test": ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"),
}
IDX_NAMES = tuple(name for pair in IDX_FILES.values() for name in pair)


def holds_idx(folder: Path) -> bool:
    """Return whether any of the four files is in `folder`; a single one makes it a damaged copy, not a missing one.

    >>> holds_idx(Path("nowhere"))
    False
    """
    return any(_stored(folder, name) for name in IDX_NAMES)


def read_idx_folder(
    folder: Path, remedy: str, sha256: Mapping[str, str] | None, of_gz: bool = False
) -> dict[str, tuple[Bytes, Bytes]]:
    """Read the four files of a dataset, each raw or with `.gz`.

    >>> images, labels = read_idx_folder(Path(__file__).parent / "fashion_mnist_sample", "reinstall", None)["test"]
    >>> images.shape, labels.shape
    ((500, 28, 28), (500,))

    Args:
        folder: holds the files.
        remedy: what to do about a file that is wrong, for the message.
        sha256: the expected checksum of each file, by its name without `.gz`; None to check the format only.
        of_gz: the checksums are of the compressed files, so only those will do; otherwise of the decompressed contents.

    Returns:
        (images uint8 [N, rows, columns], labels uint8 [N]) under "train" and "test".

    Raises:
        DatasetDamaged: a file is missing, truncated, damaged or not the expected one; the message names it.
    """
    paths = {name: _stored(folder, name, gz_only=of_gz) for name in IDX_NAMES}
    missing = ", ".join(name + (".gz" if of_gz else "[.gz]") for name, path in paths.items() if path is None)
    if missing:
        raise DatasetDamaged(f"{folder}: expected the four IDX files of the dataset, found no {missing}; {remedy}.")

    def read(name: str) -> Bytes:
        path = paths[name]
        assert path is not None  # or it would be missing
        return read_idx(path, remedy, sha256[name] if sha256 else None, of_gz)

    return {split: (read(images), read(labels)) for split, (images, labels) in IDX_FILES.items()}


def read_idx(path: Path, remedy: str, sha256: str | None = None, of_gz: bool = False) -> Bytes:
    """Read one IDX file of unsigned bytes, raw or gzip by its suffix, as an array of the shape that its header states.

    The checksum comes last: for a truncated file, the message should say that it is truncated.

    >>> read_idx(Path(__file__).parent / "fashion_mnist_sample" / f"{IDX_NAMES[1]}.gz", "reinstall")[:5].tolist()
    [9, 0, 0, 3, 0]

    Raises:
        DatasetDamaged: the file cannot be read, or is not the expected one.
    """

    def expect(what: str, expected: object, found: object) -> None:
        if found != expected:
            raise DatasetDamaged(f"{path}: {what}: expected {expected}, found {found}; {remedy}.")

    try:
        content = read_bounded(path, _LARGEST)
    except OSError as error:
        raise DatasetDamaged(f"{path}: expected a readable file, found: {error.strerror}; {remedy}.") from error
    compressed = content
    if path.suffix == ".gz":
        try:
            with gzip.open(io.BytesIO(content)) as file:
                content = file.read(_LARGEST + 1)
        except (EOFError, OSError, zlib.error) as error:  # gzip reports a truncated file as EOFError
            raise DatasetDamaged(f"{path}: expected a complete gzip file, found: {error}; {remedy}.") from error
    if len(content) > _LARGEST:
        expect("length (decompressed)", f"at most {_LARGEST} bytes", "more")

    dimensions = 3 if "idx3" in path.name else 1
    magic = 0x0800 + dimensions
    header = 4 + 4 * dimensions
    expect("magic number", f"{magic:08x}", content[:4].hex() or "an empty file")
    if len(content) < header:
        expect("length", f"at least {header} bytes", f"{len(content)} bytes")
    shape = struct.unpack_from(f">{dimensions}I", content, 4)
    expect("length (decompressed)", f"{header + math.prod(shape)} bytes", f"{len(content)} bytes")
    if sha256 is not None:
        hashed, which = (compressed, "compressed") if of_gz else (content, "decompressed")
        expect(f"SHA-256 of the {which} file", sha256, hashlib.sha256(hashed).hexdigest())
    return np.frombuffer(content, dtype=np.uint8, offset=header).reshape(shape)


def idx_bytes(array: Bytes) -> bytes:
    """Return the contents of an IDX file that holds `array`.

    >>> idx_bytes(np.array([7, 9], np.uint8)).hex()
    '00000801000000020709'
    """
    return struct.pack(f">I{array.ndim}I", 0x0800 + array.ndim, *array.shape) + array.tobytes()


@contextlib.contextmanager
def creating_idx_folder(target: Path) -> Iterator[Path]:
    """Yield a temporary folder to fill, which becomes `target`, unless another process has created it in the meantime.

    Raises:
        LenetKerasError: something is there already, or the folder cannot be written to.
    """
    if exists(target):
        raise LenetKerasError(
            f"{target}: expected nothing there yet, found something without the dataset; move it away."
        )
    try:
        with creating_folder(target) as temporary:
            yield temporary
    except OSError as error:
        if not target.is_dir():
            raise LenetKerasError(
                f"{target}: expected a folder that can be written to, found: {error.strerror or error}; "
                "XDG_CACHE_HOME can name another place for the cache."
            ) from error


def exists(path: Path) -> bool:
    """Return whether `path` exists and may be looked at; what is in another user's private folder does not count.

    >>> exists(Path(__file__)), exists(Path("nowhere"))
    (True, False)
    """
    try:
        return path.exists()
    except OSError:
        return False


def _stored(folder: Path, name: str, gz_only: bool = False) -> Path | None:
    names = (f"{name}.gz",) if gz_only else (name, f"{name}.gz")
    return next((folder / each for each in names if exists(folder / each)), None)
