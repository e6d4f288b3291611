"""The callback that logs each epoch of training for TensorBoard."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf

from .event_files import discard_from, event_files


class EpochLog(keras.callbacks.Callback):  # type: ignore[misc]  # Keras ships no types
    """Logs metrics after each epoch, the graph of layers at the start, and weight histograms if asked.

    A metric `val_x` is written to the run `validation` under the tag that `x` has in the run `train`, so that both are
    curves of one chart. Steps are epochs counted from 0, and tags are `epoch_<metric>`, both as
    `keras.callbacks.TensorBoard` has them. That one is not used because it leaves the events of up to two minutes in
    memory (a whole epoch takes seconds here, so little could be watched, and a killed run would lose them), and shows
    an epoch twice that was logged, not saved, and trained again after `--resume`.
    """

    def __init__(self, run_dir: Path, *, histograms: bool = False) -> None:
        super().__init__()
        self._run_dir = run_dir
        self._histograms = histograms
        self._first_epoch: int | None = None
        self._writers: dict[str, tf.summary.SummaryWriter] = {}

    def on_train_begin(self, logs: Mapping[str, Any] | None = None) -> None:  # noqa: ARG002
        self._first_epoch = None
        self._writers = {}

    def on_epoch_begin(self, epoch: int, logs: Mapping[str, Any] | None = None) -> None:  # noqa: ARG002
        if self._first_epoch is not None:
            return
        self._first_epoch = epoch
        graph_is_there = epoch > 0 and event_files(self._run_dir / "train")
        writer = self._writer("train")
        if not graph_is_there:
            with writer.as_default():
                _write_graph_of_layers(self.model)
            writer.flush()

    def on_epoch_end(self, epoch: int, logs: Mapping[str, Any] | None = None) -> None:
        for name, value in (logs or {}).items():
            run = "validation" if name.startswith("val_") else "train"
            with self._writer(run).as_default():
                tf.summary.scalar(f"epoch_{name.removeprefix('val_')}", value, step=epoch)
        if self._histograms:
            with self._writer("train").as_default():
                for weight in self.model.weights:
                    tf.summary.histogram(weight.path, weight, step=epoch)
        for writer in self._writers.values():
            writer.flush()

    def on_train_end(self, logs: Mapping[str, Any] | None = None) -> None:  # noqa: ARG002
        for writer in self._writers.values():
            writer.close()

    def _writer(self, run: str) -> tf.summary.SummaryWriter:
        if run not in self._writers:
            folder = self._run_dir / run
            discard_from(folder, self._first_epoch or 0)
            self._writers[run] = tf.summary.create_file_writer(str(folder))
        return self._writers[run]


def _write_graph_of_layers(model: keras.Model) -> None:
    """Write what the Graphs tab shows as the conceptual graph: one box a layer.

    TensorBoard's graph plugin takes the model's JSON under the plugin name `graph_keras_model`, version 1.
    """
    metadata = tf.compat.v1.SummaryMetadata()
    metadata.plugin_data.plugin_name = "graph_keras_model"
    metadata.plugin_data.content = b"1"
    tf.summary.write("keras", model.to_json(), step=0, metadata=metadata)
