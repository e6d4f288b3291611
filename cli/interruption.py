"""Ctrl-C, and SIGTERM, which schedulers send some seconds before they kill: both end a command in good order."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator
from types import FrameType


class Interruption:
    """Makes `KeyboardInterrupt` of both signals, at once or, while it is held back, when there is a good moment."""

    def __init__(self) -> None:
        """Nothing is handled yet."""
        self._received: int | None = None
        self._is_held_back = False

    @property
    def exit_code(self) -> int:
        """What an interrupted command exits with: 128 and the signal's number, so 130 or 143."""
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
        """From now on a first signal waits for `check`; a second one does not wait."""
        self.check()
        self._is_held_back = True

    def check(self) -> None:
        """Raise `KeyboardInterrupt` if a signal waits."""
        if self._received is not None:
            raise KeyboardInterrupt

    def let_through(self) -> None:
        """From now on a signal does not wait; one that has waited raises `KeyboardInterrupt`."""
        self._is_held_back = False
        self.check()

    def _on_signal(self, number: int, _frame: FrameType | None) -> None:
        is_first = self._received is None
        self._received = number
        if not (is_first and self._is_held_back):
            raise KeyboardInterrupt


interruption = Interruption()  # one, as a process has one handler for a signal
