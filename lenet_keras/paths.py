"""Paths as people write them, and the places in the user's home folder."""

from __future__ import annotations

import contextlib
import os
import re
from pathlib import Path

from platformdirs import user_cache_path

from lenet_keras.errors import InvalidArgument, NoHomeFolder

# "gs://bucket" and, as pathlib writes it, "gs:/bucket". A single letter would be a drive.
_URL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):/+")
AnyPath = str | os.PathLike[str]  # wherever a path is taken

_NO_HOME = "this user has no home folder: HOME is not an absolute path, and no user of this number is known."


def local_path(path: AnyPath, variable: str = "") -> Path:
    """Return the path of a file or folder of this machine, with `~` and `~user` expanded.

    >>> local_path("~/runs") == Path.home() / "runs", local_path("runs/a")
    (True, PosixPath('runs/a'))

    Args:
        path: as people write it.
        variable: the environment variable that holds it, for messages.

    Raises:
        InvalidArgument: it is a URL, or the home directory in it is not known.
    """
    text, name = os.fspath(path), f"{variable}: " if variable else ""
    if url := _URL.match(text):
        remedy = f"write /{text[url.end() :]}" if url[1].lower() == "file" else "copy it to this machine, or mount it"
        raise InvalidArgument(f"{name}{text} is a URL, and only files and folders of this machine will do: {remedy}.")
    expanded = os.path.expanduser(text)  # noqa: PTH111  # `Path.expanduser` fails for a file called ~$notes
    if expanded.startswith("~") and not os.path.lexists(expanded):
        raise InvalidArgument(f"{name}{text} cannot be used: no home directory is known for {Path(text).parts[0]}.")
    found = Path(expanded)
    # "./~" and "./gs:/a", files of this folder, would lose the mark of that.
    return found.absolute() if str(found).startswith("~") or _URL.match(str(found)) else found


def check_text(path: Path) -> None:
    """Raise `InvalidArgument` unless the path is text, as TensorFlow needs it; on Linux a name is any bytes.

    >>> check_text(Path("runs/Ångström"))
    """
    try:
        str(path).encode()
    except UnicodeEncodeError as error:
        raise InvalidArgument(f"{path} cannot be used: its name is not UTF-8, which TensorFlow needs.") from error


def cache_folder() -> Path:
    """Return the package's folder in the user's cache: `$XDG_CACHE_HOME`, else `~/.cache`, on Linux.

    >>> cache_folder().name
    'lenet-keras'

    Raises:
        NoHomeFolder: neither is known.
    """
    try:
        return user_cache_path("lenet-keras")
    except RuntimeError as error:
        raise NoHomeFolder(f"{_NO_HOME} XDG_CACHE_HOME can name a place for the cache.") from error


def home_folder(variable: str) -> Path:
    """Return the user's home folder; `variable` is what can name another place, for the message.

    >>> home_folder("TFDS_DATA_DIR").is_absolute()
    True

    Raises:
        NoHomeFolder: there is none.
    """
    with contextlib.suppress(RuntimeError):
        if (home := Path.home()).is_absolute():
            return home
    raise NoHomeFolder(f"{_NO_HOME} {variable} can name another place.")
