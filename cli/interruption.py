"""Ctrl-C and SIGTERM, which schedulers send some seconds before they kill a process: both end a command gracefully."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator
from types import FrameType


class Interruption:
    """Turns both signals into `KeyboardInterrupt`: at once or, while they are held back, at a safe point."""

    def __init__(self) -> None:
        """Start without handling the signals."""
        self._received: int | None = None
        self._is_held_back = False

    @property
    def exit_code(self) -> int:
        """The exit code of an interrupted command: 128 plus the signal's number, so 130 or 143."""
        return 128 + (self._received or signal.SIGINT)

    @contextlib.contextmanager
    def handled(self) -> Iterator[None]:
        """Handle the signals in the body. A signal that this process was started to ignore stays ignored."""
        earlier = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
        for number, handler in earlier.items():
            if handler is not signal.SIG_IGN:
                signal.signal(number, self._on_signal)
        try:
            yield
        finally:
            for number, handler in earlier.items():
                signal.signal(number, handler)

    def hold_back(self) -> None:
        """Make a first signal wait for `check`; a second one does not wait."""
        self.check()
        self._is_held_back = True

    def check(self) -> None:
        """Raise `KeyboardInterrupt` if a signal is waiting."""
        if self._received is not None:
            raise KeyboardInterrupt

    def let_through(self) -> None:
        """Stop holding signals back; one that is waiting raises `KeyboardInterrupt`."""
        self._is_held_back = False
        self.check()

    def _on_signal(self, number: int, _frame: FrameType | None) -> None:
        is_first = self._received is None
        self._received = number
        if not (is_first and self._is_held_back):
            raise KeyboardInterrupt


interruption = Interruption()  # one, as a process has one handler per signal
