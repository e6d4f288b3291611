"""Standard streams that are closed, full or gone do not end a command; lost results are an error at its end."""

from __future__ import annotations

import io
import os
import select
import sys
from typing import Any, TextIO


class _Stream(io.FileIO):
    """Takes everything that is written to a descriptor, and keeps the first error instead of raising it."""

    error: OSError | None = None

    def write(self, data: Any) -> int:
        try:
            while (written := super().write(data)) is None:  # somebody has made the other end non-blocking
                select.select([], [self], [])
            return written
        except OSError as error:
            self.error = self.error or error
            return memoryview(data).nbytes


def prepare() -> None:
    """Make standard output and standard error streams that never raise an error.

    Closed descriptors are opened, or the next file or socket would receive their numbers, and messages with it. What is
    written to a closed standard output stays an error.
    """
    for number, mode in enumerate((os.O_RDONLY, os.O_RDONLY, os.O_WRONLY)):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, mode)  # it receives the lowest number that is free, this one
    sys.stdout = _text(_Stream(1, "w", closefd=False), sys.stdout, "strict")
    sys.stderr = _text(_Stream(2, "w", closefd=False), sys.stderr, "backslashreplace")


def output_error() -> OSError | None:
    """Return why results could not be written to standard output, or None."""
    sys.stdout.flush()
    raw = sys.stdout.buffer.raw if isinstance(sys.stdout, io.TextIOWrapper) else None
    return raw.error if isinstance(raw, _Stream) else None


def _text(stream: _Stream, former: TextIO | None, errors: str) -> TextIO:
    encoding = former.encoding if former else "utf-8"
    errors = (former and former.errors) or errors
    return io.TextIOWrapper(
        io.BufferedWriter(stream), encoding, errors, line_buffering=errors == "backslashreplace" or stream.isatty()
    )
