"""Standard error: everything said about the work goes through one Rich console, so that no line breaks a live bar."""

from __future__ import annotations

import contextlib
import functools
import logging
from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console

_logger = logging.getLogger("lenet_keras")  # of the library, and the parent of the command line's own


@functools.cache
def console() -> Console:
    """Return the console of standard error. It is made, and Rich imported, when something is first shown."""
    from rich.console import Console

    return Console(stderr=True, markup=False, highlight=False, emoji=False)  # names of files may look like any of them


def silence() -> None:
    """Show no notices and progress from now on; warnings remain."""
    _logger.setLevel(logging.WARNING)


def is_silent() -> bool:
    """Return whether notices and progress are not to be shown."""
    return not _logger.isEnabledFor(logging.INFO)


def printable(message: str) -> str:
    r"""Return a message as it can be shown: on one line, apart from further ones that begin with two spaces.

    A file name may contain line breaks, bytes that are not text, and sequences that control the terminal.

    >>> print(printable("tried:\n  a folder\r"))
    tried:
      a folder\r
    """
    lines = message.split("\n  ")
    return "\n  ".join(
        "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in line)
        for line in lines
    )


class _Stderr(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        console().print(printable(self.format(record)), soft_wrap=True)


@contextlib.contextmanager
def notices_on_stderr() -> Iterator[None]:
    """Show what the library and the command line log, notices and warnings, on stderr while the body runs."""
    handler = _Stderr()
    _logger.setLevel(logging.INFO)
    _logger.addHandler(handler)
    _logger.propagate = False  # the root logger, once some library has given it a handler, would show warnings again
    try:
        yield
    finally:
        _logger.propagate = True
        _logger.removeHandler(handler)
