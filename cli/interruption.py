"""Requests to stop: Ctrl-C, a scheduler's SIGTERM some seconds before it kills, and SIGHUP from a terminal that closes.

A handler notes the signal, and nothing withdraws the note: however the command then ends, its exit code is that of the
signal. What makes it end is a `KeyboardInterrupt`, raised where it costs neither work nor tidying up. Python discards
exceptions in destructors and in callbacks from C, and some libraries catch all of them. So as long as the command has
not ended and no exception is on its way, a timer raises another one.
"""

from __future__ import annotations

import os
import signal
import sys
import weakref
from types import FrameType

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_PERIOD = 0.1  # seconds, of the timer


class _Stop(KeyboardInterrupt):
    """A `KeyboardInterrupt` that a weak reference can follow: it is gone once somebody has discarded it."""


class Interruption:
    """A request to stop: taken note of at any time, and obeyed at once or, while it is held back, at a safe point."""

    def __init__(self) -> None:
        """Start without handling the signals."""
        self._received: int | None = None
        self._is_held_back = False
        self._has_arrived = False
        self._on_its_way: weakref.ref[_Stop] | None = None

    @property
    def is_requested(self) -> bool:
        """Whether a signal was received."""
        return self._received is not None

    @property
    def exit_code(self) -> int:
        """The exit code of an interrupted command: 128 plus the signal's number, so 129, 130 or 143."""
        return 128 + (self._received or signal.SIGINT)

    def handle_signals(self) -> None:
        """Handle the signals from now on. One that this process was started to ignore, as by nohup, stays ignored."""
        signal.signal(signal.SIGALRM, self._on_timer)
        for number in _SIGNALS:
            if signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, self._on_signal)
        show = sys.unraisablehook

        def show_others(unraisable: sys.UnraisableHookArgs) -> None:
            if not isinstance(unraisable.exc_value, _Stop):
                show(unraisable)

        sys.unraisablehook = show_others

    def hold_back(self) -> None:
        """Make a request wait for `check`; a second Ctrl-C does not wait."""
        self.check()
        self._is_held_back = True

    def check(self) -> None:
        """Raise `KeyboardInterrupt` if a request is waiting."""
        if self.is_requested:
            raise self._stop()

    def let_through(self) -> None:
        """Stop holding requests back; one that is waiting raises `KeyboardInterrupt`."""
        self._is_held_back = False
        self.check()

    def arrive(self) -> None:
        """Raise nothing more, as the command has ended or has begun to; a further signal ends the process at once."""
        self._has_arrived = True
        signal.setitimer(signal.ITIMER_REAL, 0)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        is_first = self._received is None
        self._received = self._received or number
        if self._has_arrived:
            os._exit(self.exit_code)
        if not is_first and number == signal.SIGINT:
            raise self._stop()
        # Not so for others: a terminal that closes may send SIGHUP twice, itself and through its shell.
        signal.setitimer(signal.ITIMER_REAL, _PERIOD, _PERIOD)
        self._on_timer(number, frame)

    def _on_timer(self, _number: int, frame: FrameType | None) -> None:
        is_on_its_way = self._on_its_way is not None and self._on_its_way() is not None
        if not (self._has_arrived or self._is_held_back or is_on_its_way or _is_tidying_up(frame)):
            raise self._stop()

    def _stop(self) -> _Stop:
        # Not in the frame that raises it: the traceback would keep the frame, and the frame the exception.
        stop = _Stop()
        self._on_its_way = weakref.ref(stop)
        return stop


def _is_tidying_up(frame: FrameType | None) -> bool:
    # An exception here would leave a temporary folder, or be discarded.
    while frame is not None:
        if frame.f_code.co_name in ("__exit__", "__del__") or frame.f_globals.get("__name__") == "lenet_keras.files":
            return True
        frame = frame.f_back
    return False


interruption = Interruption()  # one, as a process has one handler per signal
