"""The memory that requests under way may hold, all of them together."""

from __future__ import annotations

import threading
from types import TracebackType

from grpc import StatusCode

from lenet_keras.serving.embedded.signatures import ServingError


class Budget:
    """A number of bytes that requests take from and give back to, on any thread."""

    def __init__(self, size: int) -> None:
        """Take the most bytes that may be held."""
        self._size = size
        self._held = 0
        self._lock = threading.Lock()

    @property
    def held(self) -> int:
        """The bytes that are held now."""
        return self._held

    def change(self, count: int) -> None:
        """Take `count` bytes, or give them back if it is negative.

        Raises:
            ServingError: RESOURCE_EXHAUSTED: there are not as many left.
        """
        with self._lock:
            if count > 0 and self._held + count > self._size:
                raise ServingError(
                    StatusCode.RESOURCE_EXHAUSTED,
                    f"the requests under way hold {self._held} of {self._size} bytes; try again later",
                )
            self._held += count


class Holding:
    """What one request holds of a budget; all is given back at the end of the context, or by `release`."""

    def __init__(self, budget: Budget) -> None:
        """Hold nothing yet."""
        self._budget = budget
        self._held = 0

    def add(self, count: int) -> None:
        """Hold `count` bytes more.

        Raises:
            ServingError: RESOURCE_EXHAUSTED: there are not as many left.
        """
        self._budget.change(count)
        self._held += count

    def release(self) -> None:
        """Give everything back; doing so twice does no harm."""
        self._budget.change(-self._held)
        self._held = 0

    def __enter__(self) -> Holding:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()
