"""Files and folders that appear whole or not at all."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def replaced(path: Path) -> Iterator[Path]:
    """Yield a dot-named file name beside `path`, with its suffix, to write to; on success it replaces `path`.

    A process killed at any instant leaves the old file or the new one, never a part.

    Raises:
        OSError: the folder cannot be written to; the old file is intact and no other one is left.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = _beside(path)
    try:
        yield aside
        sync(aside)
        aside.replace(path)
    except BaseException:
        aside.unlink(missing_ok=True)
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
    aside = _beside(target)
    aside.mkdir()
    try:
        yield aside
        aside.rename(target)
    except BaseException:
        shutil.rmtree(aside, ignore_errors=True)
        raise
    sync(target.parent)


def sync(path: Path) -> None:
    """Make the content of the file `path`, or the names in the folder `path`, survive a power cut."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _beside(path: Path) -> Path:
    return path.with_name(f".{secrets.token_hex(4)}.{path.name}")
