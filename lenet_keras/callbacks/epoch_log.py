"""The callback that logs each epoch of training for TensorBoard."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf

from lenet_keras.callbacks.event_files import discard_from, event_files, writing_to

# What says how training ran, not how good the model is; TensorBoard shows them in a section of their own.
_COURSE = frozenset({"learning_rate", "seconds", "images_per_second"})


class EpochLog(keras.callbacks.Callback):  # type: ignore[misc]  # Keras ships no types
    """Logs metrics after each epoch, the model's graph at the start, and weight histograms if asked.

    Tags, at steps that are epochs counted from 0:

    - `epoch/<metric>`, as `epoch/loss`: in the run `train`, and in the run `validation` for what arrives as
      `val_<metric>`. One tag in two runs makes two curves of one chart.
    - `training/learning_rate`, `training/images_per_second`, `training/seconds`.
    - `weights/<layer>/<variable>`: histograms.

    `keras.callbacks.TensorBoard` is not used for three reasons. An epoch that was logged, not yet saved, and trained
    again on resume, it leaves in the logs twice. Without `fit` it writes no graph of operations, and the Graphs tab
    opens with an error. And its tags, `epoch_loss` and so on, make a section of each chart, of which TensorBoard opens
    the first two: the loss would be out of sight.
    """

    def __init__(self, run_dir: Path, *, histograms: bool = False) -> None:
        """Log the run in `run_dir`, into its subfolders `train` and `validation`, which are made when first needed.

        `run_dir` itself is made when the training begins, if it is missing. Should it vanish later, an `OSError` that
        names it is raised, and it is not made anew.
        """
        super().__init__()
        self._run_dir = run_dir
        self._histograms = histograms
        self._first_epoch: int | None = None
        self._writers: dict[str, tf.summary.SummaryWriter] = {}

    def on_train_begin(self, logs: Mapping[str, Any] | None = None) -> None:  # noqa: ARG002
        """Forget an earlier training."""
        self._run_dir.mkdir(parents=True, exist_ok=True)
        self._first_epoch = None
        self._writers = {}

    def on_epoch_begin(self, epoch: int, logs: Mapping[str, Any] | None = None) -> None:  # noqa: ARG002
        """Write the graph, unless the process that this one resumes wrote it."""
        if self._first_epoch is not None:
            return
        self._first_epoch = epoch
        if epoch == 0 or not event_files(self._run_dir / "train"):
            graph = _graph_of_layers(self.model)
            with self._writing("train"):
                tf.summary.graph(graph)

    def on_epoch_end(self, epoch: int, logs: Mapping[str, float] | None = None) -> None:
        """Write all that is known of the epoch. TensorFlow flushes a writer each time it leaves `as_default`."""
        for name, value in (logs or {}).items():
            run = "validation" if name.startswith("val_") else "train"
            section = "training" if name in _COURSE else "epoch"
            with self._writing(run):
                tf.summary.scalar(f"{section}/{name.removeprefix('val_')}", value, step=epoch)
        if self._histograms:
            with self._writing("train"):
                for weight in self.model.weights:
                    tf.summary.histogram(f"weights/{weight.path}", weight, step=epoch)

    def on_train_end(self, logs: Mapping[str, Any] | None = None) -> None:  # noqa: ARG002
        """Close the event files."""
        for run, writer in self._writers.items():
            with writing_to(self._run_dir / run):
                writer.close()

    @contextlib.contextmanager
    def _writing(self, run: str) -> Iterator[None]:
        folder = self._run_dir / run
        with writing_to(folder):
            if run not in self._writers:
                folder.mkdir(exist_ok=True)  # TensorFlow would make the folders above it too
                discard_from(folder, self._first_epoch or 0)
                self._writers[run] = tf.summary.create_file_writer(str(folder))
            with self._writers[run].as_default():
                yield


def _graph_of_layers(model: keras.Model) -> tf.compat.v1.GraphDef:
    """Trace `model` as it trains (so that dropout is in it); nothing is run and no variable changes.

    All operations bear the model's name as their outermost scope, a box that one would have to open to see the
    layers. Without it the Graphs tab shows one box a layer at once.
    """
    images = tf.TensorSpec(model.input.shape, model.input.dtype, "images")
    traced = tf.function(lambda images: model(images, training=True)).get_concrete_function(images)
    graph = traced.graph.as_graph_def(add_shapes=True)
    outermost = re.compile(rf"^(\^?){re.escape(model.name)}(_\d+)?/")  # "^" marks a control dependency
    for node in graph.node:
        node.name = outermost.sub(r"\1", node.name)
        node.input[:] = [outermost.sub(r"\1", name) for name in node.input]
    return graph
