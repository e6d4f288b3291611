"""The progress of training on stderr: bars in a terminal, one line per epoch elsewhere."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator, Mapping

import click
import keras
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn


@contextlib.contextmanager
def epoch_progress(epochs: int, is_shown: bool = True) -> Iterator[keras.callbacks.Callback]:
    """Yield a Keras callback that shows the progress of `epochs` epochs, or does nothing unless `is_shown`."""
    if not is_shown:
        yield keras.callbacks.Callback()
        return
    if not sys.stderr.isatty():
        yield EpochLines(epochs)
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, TextColumn("{task.fields[metrics]}"), console=Console(stderr=True)) as bars:
        yield EpochBars(bars, epochs)


class EpochLines(keras.callbacks.Callback):  # type: ignore[misc]  # Keras ships no types
    """Prints one line per epoch."""

    def __init__(self, epochs: int) -> None:
        super().__init__()
        self._epochs = epochs

    def on_epoch_end(self, epoch: int, logs: Mapping[str, float] | None = None) -> None:
        logs = logs or {}
        click.echo(
            f"epoch {epoch + 1}/{self._epochs}: {format_metrics(logs)}, {logs['images_per_second']:,.0f} images/s",
            err=True,
        )


class EpochBars(keras.callbacks.Callback):  # type: ignore[misc]
    """Shows a bar for the epochs, and one for the steps of the current epoch."""

    def __init__(self, bars: Progress, epochs: int) -> None:
        super().__init__()
        self._bars = bars
        self._epochs = bars.add_task("epochs", total=epochs, metrics="", start=False)
        self._steps = bars.add_task("steps", total=None, metrics="", start=False)

    def on_epoch_begin(self, epoch: int, logs: Mapping[str, float] | None = None) -> None:  # noqa: ARG002
        self._bars.start_task(self._epochs)
        self._bars.reset(self._steps, total=self.params["steps"])
        self._bars.update(self._epochs, completed=epoch)

    def on_train_batch_end(self, batch: int, logs: Mapping[str, float] | None = None) -> None:
        self._bars.update(self._steps, completed=batch + 1, metrics=format_metrics(logs or {}))

    def on_epoch_end(self, epoch: int, logs: Mapping[str, float] | None = None) -> None:
        self._bars.update(self._epochs, completed=epoch + 1, metrics=format_metrics(logs or {}))


def format_metrics(logs: Mapping[str, float]) -> str:
    """Return the metrics of an epoch in one line."""
    line = f"loss {logs['loss']:.4f}, accuracy {100 * logs['accuracy']:.2f} %"
    if "val_loss" in logs:
        line += f", validation {logs['val_loss']:.4f}, {100 * logs['val_accuracy']:.2f} %"
    return line
