"""The callback that logs each epoch of training for TensorBoard, and how event files are written."""

from __future__ import annotations

import contextlib
import errno
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from tensorboard.plugins.histogram import summary_v2

from lenet_keras.backend import keras
from lenet_keras.errors import first_line
from lenet_keras.runs import event_files

# They describe the course of training rather than the model; TensorBoard shows them in a section of their own.
_COURSE = frozenset({"learning_rate", "seconds", "images_per_second"})
_ERRNO = {
    tf.errors.ResourceExhaustedError: errno.ENOSPC,
    tf.errors.PermissionDeniedError: errno.EACCES,
    tf.errors.NotFoundError: errno.ENOENT,
}


class EpochLog(keras.callbacks.Callback):  # type: ignore[misc]  # Keras ships no types
    """Log the metrics of each epoch, the model's graph, and, on request, histograms of the weights.

    Tags, at steps that are epochs counted from 0:

    - `epoch/<metric>`, such as `epoch/loss`: in the run `train`, and in the run `validation` for what arrives as
      `val_<metric>`, or `test` for `test_<metric>`. One tag in several runs makes several curves in one chart.
    - `training/learning_rate`, `training/images_per_second`, `training/seconds`, in the run `train`.
    - `weights/<layer>/<variable>`: histograms, in the run `weights`.

    A process that was killed may have logged an epoch that the resumed one trains again. So a resumed run writes the
    curves again from its history, and histograms, which cannot be derived from it, have a file per epoch.

    `keras.callbacks.TensorBoard` is not used for three reasons. After a resume, an epoch that was trained twice appears
    in its logs twice. Without `fit` it writes no graph of operations, and the Graphs tab opens with an error. And its
    tags, such as `epoch_loss`, make every chart a section of its own, and TensorBoard opens only the first two.
    """

    def __init__(self, run_dir: Path, history: Sequence[Mapping[str, float]] = (), *, histograms: bool = False) -> None:
        """Log the run in `run_dir` to its subfolders, which are created when they are first needed.

        Args:
            run_dir: the run folder. It is created at the start of training if it is missing; if it vanishes later,
                an `OSError` that names it is raised.
            history: the rows of the epochs before this training, as in history.csv.
            histograms: whether to log histograms.
        """
        super().__init__()
        self._run_dir = run_dir
        self._history = tuple(history)
        self._histograms = histograms
        self._writers: dict[str, tf.summary.SummaryWriter] = {}

    def on_train_begin(self, logs: Mapping[str, Any] | None = None) -> None:  # noqa: ARG002
        """Start without writers."""
        self._run_dir.mkdir(parents=True, exist_ok=True)
        self._writers = {}

    def on_epoch_begin(self, epoch: int, logs: Mapping[str, Any] | None = None) -> None:  # noqa: ARG002
        """Write the graph of a new run; that of a resumed one is written with its curves."""
        if epoch == 0:
            self._writer("train")

    def on_epoch_end(self, epoch: int, logs: Mapping[str, float] | None = None) -> None:
        """Write everything known about the epoch."""
        for run, metrics in _by_run(logs or {}).items():
            self._write(run, self._writer(run), epoch, metrics)
        if self._histograms:
            write_histograms(self._run_dir / "weights", epoch, self.model.weights)

    def on_train_end(self, logs: Mapping[str, Any] | None = None) -> None:  # noqa: ARG002
        """Close the event files."""
        for run, writer in self._writers.items():
            with raising_os_errors(self._run_dir / run):
                writer.close()

    def _writer(self, run: str) -> tf.summary.SummaryWriter:
        if run not in self._writers:
            folder = self._run_dir / run
            folder.mkdir(exist_ok=True)  # TensorFlow would create missing parents as well
            for file in event_files(folder):
                file.unlink()
            with raising_os_errors(folder):
                writer = tf.summary.create_file_writer(str(folder))
                if run == "train":
                    with writer.as_default():
                        tf.summary.graph(_graph_of_layers(self.model))
            for epoch, row in enumerate(self._history):
                self._write(run, writer, epoch, _by_run(row).get(run, {}))
            self._writers[run] = writer
        return self._writers[run]

    def _write(self, run: str, writer: tf.summary.SummaryWriter, epoch: int, metrics: Mapping[str, float]) -> None:
        # TensorFlow flushes a writer each time it leaves `as_default`.
        with raising_os_errors(self._run_dir / run), writer.as_default():
            for name, value in metrics.items():
                section = "training" if name in _COURSE else "epoch"
                tf.summary.scalar(f"{section}/{name}", value, step=epoch)


@contextlib.contextmanager
def raising_os_errors(folder: Path) -> Iterator[None]:
    """Raise TensorFlow's error that events cannot be written to `folder` as the `OSError` that caused it."""
    try:
        yield
    except tf.errors.OpError as error:
        # "{{node}} PATH; No space left on device", and further lines.
        cause = first_line(error).rpartition("; ")[2]
        raise OSError(_ERRNO.get(type(error), errno.EIO), cause, str(folder)) from error


def write_histograms(folder: Path, epoch: int, weights: Sequence[keras.Variable]) -> None:
    """Write histograms of `weights` to the file for `epoch` in `folder`, which is created; an earlier file is replaced.

    Raises:
        OSError: the folder cannot be written to.
    """
    folder.mkdir(exist_ok=True)
    now = time.time()
    events = [tf.compat.v1.Event(wall_time=now, file_version="brain.Event:2")]
    for weight in weights:
        summary = summary_v2.histogram_pb(f"weights/{weight.path}", np.asarray(weight)).SerializeToString()
        events.append(tf.compat.v1.Event(wall_time=now, step=epoch, summary=tf.compat.v1.Summary.FromString(summary)))
    with raising_os_errors(folder), tf.io.TFRecordWriter(str(folder / f"events.out.tfevents.{epoch:010d}")) as writer:
        for event in events:
            writer.write(event.SerializeToString())


_RUNS = {"val_": "validation", "test_": "test"}  # by the prefix of a metric's name


def _by_run(metrics: Mapping[str, float]) -> dict[str, dict[str, float]]:
    runs: dict[str, dict[str, float]] = {}
    for name, value in metrics.items():
        if name != "epoch":
            prefix = next((prefix for prefix in _RUNS if name.startswith(prefix)), "")
            runs.setdefault(_RUNS.get(prefix, "train"), {})[name.removeprefix(prefix)] = value
    return runs


def _graph_of_layers(model: keras.Model) -> tf.compat.v1.GraphDef:
    # The model in training mode, so that dropout is included. Tracing runs nothing and changes no variable. All
    # operations have the model's name as their outermost scope, a box that one would have to open to see the layers.
    # Without it the Graphs tab shows a box per layer at once. Keras opens a layer's scope twice, so TensorFlow numbers
    # the second, which holds the operations.
    images = tf.TensorSpec(model.input.shape, model.input.dtype, "images")
    traced = tf.function(lambda images: model(images, training=True), autograph=False).get_concrete_function(images)
    graph = traced.graph.as_graph_def(add_shapes=True)
    layers = "|".join(re.escape(layer.name) for layer in model.layers)
    scopes = re.compile(rf"^(\^?){re.escape(model.name)}(?:_\d+)?/(?:({layers})_\d+/)?")  # "^": a control dependency
    for node in graph.node:
        node.name = scopes.sub(_layer_first, node.name)
        node.input[:] = [scopes.sub(_layer_first, name) for name in node.input]
    return graph


def _layer_first(scopes: re.Match[str]) -> str:
    return scopes[1] + (f"{scopes[2]}/" if scopes[2] else "")
