"""Files and folders that appear complete or not at all, and the package's place in the user's cache."""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

from platformdirs import user_cache_path

# The names of files and folders that are being written. No reader looks at them.
_TEMPORARY = re.compile(r"\.[0-9a-f]{8}\..+")
# Nothing here takes this long to write: anything older was left behind by a process that was killed.
_ABANDONED = 3600.0  # seconds


def cache_folder() -> Path:
    """Return the package's folder in the user's cache: `$XDG_CACHE_HOME`, else `~/.cache`, on Linux.

    >>> cache_folder().name
    'lenet-keras'
    """
    return user_cache_path("lenet-keras")


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path next to `path`, with the same suffix, to write to; on success it replaces `path`.

    A process killed at any instant leaves the old file or the new one, never a part of one.

    Raises:
        OSError: it names `path`. The folder is missing or cannot be written to; the old file is intact, and no other
            file is left behind.
    """
    temporary = _temporary_path(path)
    try:
        yield temporary
        sync(temporary)
        temporary.replace(path)
    except BaseException as error:
        # This fails as well on a file system that has become read-only; that must not hide the cause.
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise OSError(error.errno, error.strerror or str(error), str(path)) from error
        raise
    sync(path.parent)  # so that the new name survives a power cut as well


def write_atomically(path: Path, content: bytes) -> None:
    """Replace the content of the file `path` with `content`, as `replacing` does."""
    with replacing(path) as temporary:
        temporary.write_bytes(content)


@contextlib.contextmanager
def creating_folder(target: Path) -> Iterator[Path]:
    """Yield a temporary folder next to `target` to fill; on success it is renamed to `target`, otherwise removed.

    Raises:
        FileExistsError: `target` already exists.
        OSError: the folder cannot be written to, or another process has created `target` in the meantime.
    """
    if target.exists():
        raise FileExistsError(f"{target} already exists")
    target.parent.mkdir(parents=True, exist_ok=True)
    with temporary_folder(target.parent, target.name) as temporary:
        yield temporary
        temporary.rename(target)
    sync(target.parent)


@contextlib.contextmanager
def temporary_folder(parent: Path, name: str) -> Iterator[Path]:
    """Yield a new temporary folder in `parent`, which must exist; at the end it is removed, if it is still there.

    Anything that killed processes left behind in `parent` an hour or more ago is removed as well.

    Raises:
        OSError: `parent` cannot be written to.
    """
    remove_temporary(parent, _ABANDONED)
    temporary = _temporary_path(parent / name)
    temporary.mkdir()
    try:
        yield temporary
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def is_temporary(path: Path) -> bool:
    """Return whether `path` has the name of a file or folder that is being written.

    >>> is_temporary(Path("run/.0123abcd.state.npz"))
    True
    """
    return _TEMPORARY.fullmatch(path.name) is not None


def remove_temporary(folder: Path, seconds: float = 0.0) -> None:
    """Remove the temporary files in `folder` that have not changed for at least `seconds`.

    Anything that cannot be removed stays: it does no harm.
    """
    for path in filter(is_temporary, folder.iterdir()):
        with contextlib.suppress(OSError):
            if time.time() - path.stat().st_mtime >= seconds:
                remove(path)


def remove(path: Path) -> None:
    """Remove a file, or a folder with everything in it.

    Raises:
        OSError: it does not exist, or cannot be removed completely.
    """
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()


def sync(path: Path) -> None:
    """Make the content of the file `path`, or the names in the folder `path`, survive a power cut."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _temporary_path(path: Path) -> Path:
    return path.with_name(f".{secrets.token_hex(4)}.{path.name}")
