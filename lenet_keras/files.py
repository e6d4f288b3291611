"""Files and folders: written completely or not at all, locked, and read within bounds."""

from __future__ import annotations

import contextlib
import errno
import io
import logging
import os
import platform
import re
import secrets
import shutil
import stat
import time
import zipfile
from collections.abc import Container, Iterator
from pathlib import Path

from filelock import lock_descriptor

from lenet_keras.errors import RunInUse

# The names of files and folders that are being written. No reader looks at them.
_TEMPORARY = re.compile(r"\.[0-9a-f]{8}\.(.+)")
# Nothing here takes this long to write: anything older was left behind by a process that was killed.
_ABANDONED = 3600.0  # seconds
# How file systems say that they cannot do something, as opposed to that it failed.
_UNSUPPORTED = frozenset({errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EINVAL})
_NO_LOCKS = _UNSUPPORTED | {errno.ENOLCK}
# CIFS and FUSE may also refuse to open a folder, or to sync what was opened for reading.
_NO_SYNC = _UNSUPPORTED | {errno.EBADF, errno.EACCES, errno.EPERM, errno.EISDIR}


logger = logging.getLogger(__name__)
_warned: set[tuple[str, int]] = set()


def read_bounded(path: Path, limit: int, *, pipes: bool = False) -> bytes:
    """Read a file that a stranger may have written: never more than `limit` bytes of it, and without waiting for it.

    >>> read_bounded(Path(__file__), 2**20)[3:8]
    b'Files'

    Args:
        path: of a regular file.
        limit: in bytes.
        pipes: whether to read a pipe as well, if somebody writes to it: a shell makes one of `<(command)`.

    Raises:
        OSError: it cannot be read; with `errno.EINVAL`, it is a device or a pipe; with `errno.EFBIG`, it is too large.
    """
    # Opened without blocking, a named pipe that nobody writes to is at its end.
    with open(path, "rb", opener=lambda name, flags: os.open(name, flags | getattr(os, "O_NONBLOCK", 0))) as file:
        status = os.fstat(file.fileno())
        is_pipe = pipes and stat.S_ISFIFO(status.st_mode)
        if is_pipe:
            os.set_blocking(file.fileno(), True)
        content = io.BytesIO()
        if is_pipe or (stat.S_ISREG(status.st_mode) and status.st_size <= limit):
            while chunk := file.read(min(2**20, limit + 1 - content.tell())):
                content.write(chunk)
    if max(content.tell(), status.st_size) > limit:
        raise OSError(errno.EFBIG, f"File larger than {limit} bytes", str(path))
    if content.tell() == 0 and not stat.S_ISREG(status.st_mode):
        raise OSError(errno.EINVAL, "Not a regular file", str(path))
    return content.getvalue()


def check_unpacked_size(archive: zipfile.ZipFile, limit: int) -> None:
    """Check that everything in `archive` is at most `limit` bytes together; `zipfile` reads no more than it declares.

    >>> with zipfile.ZipFile(io.BytesIO(), "w") as archive:
    ...     check_unpacked_size(archive, 2**20)

    Raises:
        ValueError: it is more.
    """
    size = sum(member.file_size for member in archive.infolist())
    if size > limit:
        raise ValueError(f"it unpacks to {size} bytes; the limit is {limit}")


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
            raise _named(error, path) from error
        raise
    sync(path.parent)  # so that the new name survives a power cut as well


def write_atomically(path: Path, content: bytes) -> None:
    """Replace the content of the file `path` with `content`, as `replacing` does."""
    with replacing(path) as temporary:
        temporary.write_bytes(content)


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the operating system's lock on the file `path` in a run folder. It is created if missing, and stays.

    Where the file system has no locks, a warning is logged once.

    Raises:
        RunInUse: another process holds it.
        OSError: the file cannot be written to.
    """
    is_new = not os.path.lexists(path)
    with contextlib.ExitStack() as stack:
        try:
            with naming(path):
                descriptor = _open_and_lock(path)
                stack.callback(_release, descriptor)
                now = time.strftime("%Y-%m-%d %H:%M:%S")
                os.ftruncate(descriptor, 0)
                os.pwrite(descriptor, f"process {os.getpid()} on {platform.node()} since {now}\n".encode(), 0)
        except OSError:
            if is_new:
                path.unlink(missing_ok=True)
            raise
        yield


def is_own_lock(path: Path) -> bool:
    """Return whether the file `path`, which exists, may be one that `locked` left."""
    status = path.lstat()
    return stat.S_ISREG(status.st_mode) and status.st_size < 1000 and path.read_bytes()[:8] in (b"", b"process ")


@contextlib.contextmanager
def creating_folder(target: Path) -> Iterator[Path]:
    """Yield a temporary folder next to `target` to fill; on success it is renamed to `target`, otherwise removed.

    Raises:
        FileExistsError: `target` already exists.
        OSError: the folder cannot be written to, or another process has created `target` in the meantime.
    """
    if os.path.lexists(target):
        raise FileExistsError(errno.EEXIST, "it exists already, and is not replaced", str(target))
    target.parent.mkdir(parents=True, exist_ok=True)
    with temporary_folder(target.parent, target.name) as temporary:
        yield temporary
        temporary.rename(target)
    sync(target.parent)


@contextlib.contextmanager
def temporary_folder(parent: Path, name: str) -> Iterator[Path]:
    """Yield a new temporary folder in `parent`, which must exist; at the end it is removed, if it is still there.

    What killed processes left behind in `parent` under `name` an hour or more ago is removed as well.

    Raises:
        OSError: `parent` cannot be written to.
    """
    remove_temporary(parent, {name}, _ABANDONED)
    temporary = _temporary_path(parent / name)
    temporary.mkdir()
    try:
        yield temporary
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def is_temporary(path: Path, names: Container[str] | None = None) -> bool:
    """Return whether `path` has the name of a file or folder that is being written; one of `names`, if they are given.

    >>> is_temporary(Path("run/.0123abcd.state.npz"))
    True
    """
    match = _TEMPORARY.fullmatch(path.name)
    return match is not None and (names is None or match[1] in names)


def remove_temporary(folder: Path, names: Container[str], seconds: float = 0.0) -> None:
    """Remove the temporary files in `folder` that were to become one of `names`, unchanged for at least `seconds`.

    Anything that cannot be removed stays: it does no harm.
    """
    for path in folder.iterdir():
        with contextlib.suppress(OSError):
            if is_temporary(path, names) and time.time() - path.lstat().st_mtime >= seconds:
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
    """Make the content of the file `path`, or the names in the folder `path`, survive a power cut.

    Where the file system cannot do that, a warning is logged once.

    Raises:
        OSError: it failed, and names `path`.
    """
    try:
        with naming(path):
            descriptor = os.open(path, os.O_RDONLY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
    except OSError as error:
        if error.errno not in _NO_SYNC:
            raise
        warn_once(path, f"{error.strerror}. What is written to this file system may not survive a power cut.")


def warn_once(path: Path, message: str) -> None:
    """Log a warning about `path`, unless the same was said of another path on its file system."""
    key = message, path.stat().st_dev
    if key not in _warned:
        _warned.add(key)
        logger.warning("%s: %s", path, message)


@contextlib.contextmanager
def naming(name: Path | str) -> Iterator[None]:
    """Give an `OSError` from the body that names nothing, such as a descriptor's or a socket's, this name."""
    try:
        yield
    except OSError as error:
        if error.filename is None:
            raise _named(error, name) from error
        raise


def _open_and_lock(path: Path) -> int:
    while True:
        # Through a link, the text for people would replace the content of any file.
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o666)
        try:
            if not _lock(descriptor, path):
                holder = os.pread(descriptor, 200, 0).decode(errors="replace").strip() or "another process"
                raise RunInUse(f"{path.parent} is in use by {holder}.")
            with contextlib.suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(descriptor), path.stat()):
                    return descriptor
            # Its last holder removed it between our two calls.
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)


def _release(descriptor: int) -> None:
    with contextlib.suppress(OSError):  # the text is for people only
        os.ftruncate(descriptor, 0)
    with contextlib.suppress(OSError):
        os.close(descriptor)


def _lock(descriptor: int, path: Path) -> bool:
    try:
        return lock_descriptor(descriptor, blocking=False)
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise
        warn_once(path, f"{error.strerror}. Nothing keeps a second process from training here at the same time.")
        return True


def _named(error: OSError, name: Path | str) -> OSError:
    return OSError(error.errno, error.strerror or str(error), str(name))


def _temporary_path(path: Path) -> Path:
    return path.with_name(f".{secrets.token_hex(4)}.{path.name}")
