"""Files and folders that appear whole or not at all."""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

# A name as `_beside` makes it. No reader looks at such a file or folder.
_UNFINISHED = re.compile(r"\.[0-9a-f]{8}\..+")
# Nothing here takes so long to write: what is older was left by a process that was killed.
_ABANDONED = 3600.0  # seconds


@contextlib.contextmanager
def replaced(path: Path) -> Iterator[Path]:
    """Yield a dot-named file name beside `path`, with its suffix, to write to; on success it replaces `path`.

    A process killed at any instant leaves the old file or the new one, never a part.

    Raises:
        OSError: it names `path`. The folder is not there or cannot be written to; the old file is intact and no other
            one is left.
    """
    aside = _beside(path)
    try:
        yield aside
        sync(aside)
        aside.replace(path)
    except BaseException as error:
        # A file system that has become read-only refuses this too, which must not hide the cause.
        with contextlib.suppress(OSError):
            aside.unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise OSError(error.errno, error.strerror or str(error), str(path)) from error
        raise
    sync(path.parent)  # the new name too survives a power cut


def write_atomically(path: Path, content: bytes) -> None:
    """Replace `path` by a file of `content`, as `replaced` does."""
    with replaced(path) as aside:
        aside.write_bytes(content)


@contextlib.contextmanager
def built_aside(target: Path) -> Iterator[Path]:
    """Yield a dot-named folder beside `target` to build in; on success it is renamed to `target`, else removed.

    TensorFlow Serving ignores dot-named folders, and so does whatever reads a cache, so neither sees a half-built one.

    Raises:
        FileExistsError: `target` exists already.
        OSError: the folder cannot be written to, or `target` has come into being meanwhile and is not empty.
    """
    if target.exists():
        raise FileExistsError(f"{target} exists already")
    target.parent.mkdir(parents=True, exist_ok=True)
    with scratch(target.parent, target.name) as aside:
        yield aside
        aside.rename(target)
    sync(target.parent)


@contextlib.contextmanager
def scratch(folder: Path, name: str) -> Iterator[Path]:
    """Yield a new dot-named folder in `folder`, which must exist; in the end it is removed, if it is still there.

    So is what killed processes left in `folder` an hour ago or earlier.

    Raises:
        OSError: the folder cannot be written to.
    """
    remove_unfinished(folder, _ABANDONED)
    aside = _beside(folder / name)
    aside.mkdir()
    try:
        yield aside
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def is_unfinished(path: Path) -> bool:
    """Whether `path` has a name as `replaced`, `built_aside` and `scratch` give to what is being written."""
    return _UNFINISHED.fullmatch(path.name) is not None


def remove_unfinished(folder: Path, seconds: float = 0.0) -> None:
    """Remove what killed processes were writing in `folder` and nobody has changed for so many seconds.

    What cannot be removed stays: it does no harm but to the eye.
    """
    for path in filter(is_unfinished, folder.iterdir()):
        with contextlib.suppress(OSError):
            if time.time() - path.stat().st_mtime >= seconds:
                remove(path)


def remove(path: Path) -> None:
    """Remove a file, or a folder with all that is in it.

    Raises:
        OSError: it is not there, or cannot be removed whole.
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


def _beside(path: Path) -> Path:
    return path.with_name(f".{secrets.token_hex(4)}.{path.name}")
