"""Ctrl-C in a program that trains: it waits until no step is lost."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType


class CtrlC:
    """Holds back a first Ctrl-C, which Python would raise as `KeyboardInterrupt` between any two instructions.

    Attributes:
        is_waiting: whether one was held back.
    """

    def __init__(self) -> None:
        """Hold nothing back yet."""
        self.is_waiting = False

    @contextlib.contextmanager
    def held_back(self) -> Iterator[None]:
        """Hold back a first Ctrl-C in the body, and raise it at the end if nothing has; a second one does not wait.

        A program that handles SIGINT itself, or trains in another thread than the main one, is left to it.
        """
        is_main = threading.current_thread() is threading.main_thread()
        if not is_main or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
            yield
            return
        self.is_waiting = False
        signal.signal(signal.SIGINT, self._on_signal)
        try:
            yield
        finally:
            if signal.getsignal(signal.SIGINT) == self._on_signal:  # a callback may have put its own in place
                signal.signal(signal.SIGINT, signal.default_int_handler)
        if self.is_waiting:
            raise KeyboardInterrupt

    def _on_signal(self, _number: int, _frame: FrameType | None) -> None:
        if self.is_waiting:
            raise KeyboardInterrupt
        self.is_waiting = True
