"""A pseudo-terminal whose screen is read back."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import struct
import termios
import threading
import time

import pyte

ROWS = 24


class Terminal:
    """A terminal of so many columns; what is written to the descriptor `inner` appears on its screen."""

    def __init__(self, columns):
        self._outer, self.inner = pty.openpty()
        fcntl.ioctl(self.inner, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, columns, 0, 0))
        self._screen = pyte.Screen(columns, ROWS)
        self._stream = pyte.ByteStream(self._screen)
        self._lock = threading.Lock()
        self.screens = []  # each that was different, as lines without those that are empty
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self):
        while True:
            try:
                written = os.read(self._outer, 65536)
            except OSError:  # the inner end is closed
                os.close(self._outer)
                return
            with self._lock:
                self._stream.feed(written)
                self.screens.append([line.rstrip() for line in self._screen.display if line.strip()])

    def wait_for(self, *lines):
        """Wait until the screen consists of lines that match these regular expressions."""
        deadline = time.monotonic() + 30
        while not any(re.fullmatch("\n".join(lines), "\n".join(screen)) for screen in self.screens):
            assert time.monotonic() < deadline, self.screens[-1:]
            time.sleep(0.01)

    def close(self):
        """Return what is on the screen in the end; the inner end has been closed."""
        self._reader.join()
        return self.screens[-1]
