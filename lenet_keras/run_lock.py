"""One process at a time in a run folder."""

from __future__ import annotations

import contextlib
import os
import platform
import time
from collections.abc import Iterator
from pathlib import Path

from filelock import lock_descriptor

from lenet_keras.errors import LenetKerasError

LOCK_NAME = ".lock"


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the lock of `folder`, which must exist: the operating system's, on the file `.lock` in it.

    A process that ends gives it up, however it ends. The file stays; what it says of its holder is only for people.

    Raises:
        LenetKerasError: another process holds it; the message names it.
        OSError: the file cannot be written.
    """
    path = folder / LOCK_NAME
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        if not lock_descriptor(descriptor, blocking=False):
            holder = os.pread(descriptor, 200, 0).decode(errors="replace").strip() or "another process"
            raise LenetKerasError(
                f"{folder} is in use by {holder}. Wait until it has ended, or name another folder with --run-dir."
            )
        now = time.strftime("%Y-%m-%d %H:%M:%S")
        try:
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, f"process {os.getpid()} on {platform.node()} since {now}\n".encode(), 0)
        except OSError as error:  # from a descriptor it names no path
            raise OSError(error.errno, error.strerror, str(path)) from error
        try:
            yield
        finally:
            os.ftruncate(descriptor, 0)
    finally:
        os.close(descriptor)
