"""The progress of training on stderr: a line per epoch, and in a terminal live bars below the lines."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping

import keras
from rich.progress import Progress, TaskID, TimeRemainingColumn
from rich.table import Column

from .bars import live_bars
from .console import console, is_silent
from .options import notice

_WIDE = 72  # columns that bars with metrics need


@contextlib.contextmanager
def epoch_progress(epochs: int, has_bars: bool) -> Iterator[keras.callbacks.Callback]:
    """Yield a Keras callback that shows the progress of `epochs` epochs, unless notices are silenced.

    Args:
        epochs: to train.
        has_bars: whether to show bars as well, if stderr is a terminal.
    """
    if is_silent():
        yield keras.callbacks.Callback()
    elif has_bars and console().is_interactive:
        with live_bars("count", TimeRemainingColumn(table_column=Column(no_wrap=True)), "metrics") as bars:
            yield EpochBars(epochs, bars)
    else:
        yield EpochLines(epochs)


class EpochLines(keras.callbacks.Callback):  # type: ignore[misc]  # Keras ships no types
    """Shows one line per epoch."""

    def __init__(self, epochs: int) -> None:
        super().__init__()
        self.epochs = epochs

    def on_epoch_end(self, epoch: int, logs: Mapping[str, float] | None = None) -> None:
        logs = logs or {}
        speed = f"{logs['images_per_second']:,.0f} images/s"
        notice(f"epoch {epoch + 1}/{self.epochs}: {format_metrics(logs)}, {speed}")


class EpochBars(EpochLines):
    """Shows a bar for the steps of the current epoch as well, and one for all epochs."""

    def __init__(self, epochs: int, bars: Progress) -> None:
        super().__init__(epochs)
        self._bars = bars
        self._all = bars.add_task("all epochs", total=None, count="", metrics="")
        self._current: TaskID | None = None
        self._epoch = 0

    def on_epoch_begin(self, epoch: int, logs: Mapping[str, float] | None = None) -> None:  # noqa: ARG002
        steps, self._epoch = self.params["steps"], epoch
        title = f"epoch {epoch + 1}/{self.epochs}"
        if self._current is None:  # the first one, or the first after a resume
            # In steps: the time left follows from the last half minute, within which no epoch may end.
            self._bars.reset(self._all, total=self.epochs * steps, completed=epoch * steps)
            self._current = self._bars.add_task(title, total=steps, count="", metrics="")
        self._bars.reset(self._current, description=title, count=f"0/{steps}", metrics="")
        self._bars.update(self._all, count=f"{epoch}/{self.epochs}")

    def on_train_batch_end(self, batch: int, logs: Mapping[str, float] | None = None) -> None:
        assert self._current is not None
        steps, done = self.params["steps"], batch + 1
        metrics = format_metrics(logs or {}) if self._bars.console.width >= _WIDE else ""
        self._bars.update(self._current, completed=done, count=f"{done}/{steps}", metrics=metrics)
        self._bars.update(self._all, completed=self._epoch * steps + done)


def format_metrics(logs: Mapping[str, float]) -> str:
    """Return the metrics of an epoch in one line."""
    line = f"loss {logs['loss']:.4f}, accuracy {100 * logs['accuracy']:.2f} %"
    if "val_loss" in logs:
        line += f", validation {logs['val_loss']:.4f}, {100 * logs['val_accuracy']:.2f} %"
    return line
