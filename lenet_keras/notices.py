"""One-line notices to whoever waits: which data source, which device."""

from collections.abc import Callable

Notify = Callable[[str], None]


def ignore(_notice: str) -> None:
    """Take no notice."""
