"""What TensorBoard reads about the epochs of a training."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from tensorboard.backend.event_processing.event_file_loader import EventFileLoader
from tensorboard.compat.proto.graph_pb2 import GraphDef

from lenet_keras.tensorboard.callback import EpochLog

# Ends as `kill -9` ends a training: after epoch 2 was logged, and before anything was closed.
KILLED = """
import os, signal, sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from test_callback import drive, tiny_model
drive(tiny_model(), Path(sys.argv[1]), range(3), after=lambda: os.kill(os.getpid(), signal.SIGKILL))
"""


def tiny_model():
    images = keras.Input((8, 8, 1), name="images")
    x = keras.layers.Flatten(name="flatten")(images)
    x = keras.layers.Dropout(0.5, name="drop")(x)
    model = keras.Model(images, keras.layers.Dense(3, name="logits")(x), name="tiny")
    model.compile(optimizer=keras.optimizers.Adam(1e-4), loss="sparse_categorical_crossentropy")
    return model


def logs_of(epoch, offset=0.0):
    return {
        "loss": 2.0 - epoch / 8 + offset,
        "accuracy": epoch / 8 + offset,
        "val_loss": 2.5 - epoch / 8 + offset,
        "val_accuracy": epoch / 16 + offset,
        "learning_rate": 0.5**epoch,
        "seconds": 3.0,
        "images_per_second": 1000.0 + epoch,
    }


def history(epochs):
    """The rows of that many epochs, as in history.csv."""
    return [{"epoch": epoch + 1, **logs_of(epoch)} for epoch in range(epochs)]


def drive(model, run_dir, epochs, *, past=(), histograms=False, logs=logs_of, after=lambda: None):
    """Drive the callback like the training loop."""
    callbacks = keras.callbacks.CallbackList([EpochLog(run_dir, past, histograms=histograms)], model=model)
    callbacks.on_train_begin()
    for epoch in epochs:
        callbacks.on_epoch_begin(epoch)
        callbacks.on_train_batch_begin(0)
        callbacks.on_train_batch_end(99, {"loss": 1.0})
        callbacks.on_epoch_end(epoch, logs(epoch))
    after()
    callbacks.on_train_end()


@pytest.fixture(scope="module")
def model():
    return tiny_model()


@pytest.fixture(scope="module")
def run_dir(model, tmp_path_factory):
    run_dir = tmp_path_factory.mktemp("runs") / "fashion_mnist" / "none" / "0"
    drive(model, run_dir, range(12))
    return run_dir


@pytest.mark.parametrize("metric", ["loss", "accuracy"])
def test_train_and_validation_share_a_chart(run_dir, series, metric):
    for run, name in (("train", metric), ("validation", f"val_{metric}")):
        assert series(run_dir / run, f"epoch/{metric}") == [(epoch, logs_of(epoch)[name]) for epoch in range(12)]


@pytest.mark.parametrize("name", ["learning_rate", "images_per_second", "seconds"])
def test_the_course_of_training_is_in_the_train_run_only(run_dir, read, series, name):
    assert series(run_dir / "train", f"training/{name}") == [(epoch, logs_of(epoch)[name]) for epoch in range(12)]
    assert f"training/{name}" not in read(run_dir / "validation").Tags()["tensors"]


def test_only_epochs_are_logged(run_dir, read):
    tags = {"epoch/loss", "epoch/accuracy"}
    assert set(read(run_dir / "validation").Tags()["tensors"]) == tags
    assert set(read(run_dir / "train").Tags()["tensors"]) == tags | {
        "training/learning_rate",
        "training/images_per_second",
        "training/seconds",
    }


def test_without_validation_there_is_no_validation_run(model, tmp_path, series):
    drive(model, tmp_path, range(2), logs=lambda _: {"loss": 0.5, "accuracy": 0.25, "learning_rate": 0.1})
    assert [path.name for path in tmp_path.iterdir()] == ["train"]
    assert series(tmp_path / "train", "epoch/accuracy") == [(0, 0.25), (1, 0.25)]


def test_the_graph_shows_a_box_for_each_layer(run_dir, read):
    graph = GraphDef.FromString(read(run_dir / "train").Graph().SerializeToString())
    names = [node.name for node in graph.node]
    assert len(set(names)) == len(names)
    boxes = {name.split("/")[0] for name in names if "/" in name}
    assert boxes == {"flatten", "drop", "logits"}
    known = set(names)
    assert {source.lstrip("^").split(":")[0] for node in graph.node for source in node.input} <= known


def test_logging_does_not_change_the_model(tmp_path):
    model = tiny_model()
    before = [variable.value.numpy() for variable in model.variables]
    drive(model, tmp_path, range(1), histograms=True)
    assert len(before) == 3  # kernel, bias and the state of dropout
    for variable, value in zip(model.variables, before, strict=True):
        np.testing.assert_array_equal(variable.value.numpy(), value)


def test_histograms_are_an_option(model, run_dir, tmp_path, read, series):
    assert not [tag for tag in read(run_dir / "train").Tags()["tensors"] if tag.startswith("weights/")]
    drive(model, tmp_path, range(3), histograms=True)
    tags = [tag for tag in read(tmp_path / "weights").Tags()["tensors"] if tag.startswith("weights/")]
    assert sorted(tags) == ["weights/logits/bias", "weights/logits/kernel"]
    histograms = series(tmp_path / "weights", "weights/logits/kernel")
    assert [step for step, _ in histograms] == [0, 1, 2]
    # Each row is a bin: left edge, right edge, count.
    np.testing.assert_allclose(histograms[0][1][:, 2].sum(), 8 * 8 * 3)
    assert read(tmp_path / "weights").SummaryMetadata(tags[0]).plugin_data.plugin_name == "histograms"

    drive(model, tmp_path, range(2, 5), past=history(2), histograms=True)
    assert [step for step, _ in series(tmp_path / "weights", "weights/logits/kernel")] == [0, 1, 2, 3, 4]


def test_a_killed_run_resumes_with_no_epoch_twice_or_missing(model, tmp_path, read, series):
    killed = subprocess.run(
        [sys.executable, "-c", KILLED, str(tmp_path), str(Path(__file__).parent)], env=_environment()
    )
    assert killed.returncode == -signal.SIGKILL
    # Epoch 2 was logged, but the last saved state is that after epoch 1.
    for run in ("train", "validation"):
        assert [step for step, _ in series(tmp_path / run, "epoch/loss")] == [0, 1, 2]

    drive(model, tmp_path, range(2, 5), past=history(2), logs=lambda epoch: logs_of(epoch, offset=1.0))

    for run, name in (("train", "loss"), ("validation", "val_loss")):
        expected = [(epoch, logs_of(epoch, offset=float(epoch >= 2))[name]) for epoch in range(5)]
        assert series(tmp_path / run, "epoch/loss") == expected
    read(tmp_path / "train").Graph()  # raises if there is none
    assert _count_graphs(tmp_path / "train") == 1


def test_an_event_truncated_by_a_kill_is_written_again(model, tmp_path, series):
    drive(model, tmp_path, range(3))
    (file,) = (tmp_path / "train").iterdir()
    os.truncate(file, file.stat().st_size - 5)
    drive(model, tmp_path, range(3, 5), past=history(3))
    assert [step for step, _ in series(tmp_path / "train", "epoch/loss")] == [0, 1, 2, 3, 4]
    # This reader raises an error at a truncated event, others are silent.
    (file,) = (tmp_path / "train").iterdir()
    assert len(list(tf.data.TFRecordDataset(str(file)))) > 0


def test_a_restart_in_the_same_folder_replaces_the_curves(model, tmp_path, series):
    drive(model, tmp_path, range(3))
    drive(model, tmp_path, range(2), logs=lambda epoch: logs_of(epoch, offset=1.0))
    assert series(tmp_path / "train", "epoch/loss") == [(0, 3.0), (1, 2.875)]


def test_resuming_a_run_whose_logs_were_removed_writes_the_graph(model, tmp_path):
    drive(model, tmp_path, range(4, 5), past=history(4))
    assert _count_graphs(tmp_path / "train") == 1


def _count_graphs(folder):
    return sum(event.HasField("graph_def") for file in folder.iterdir() for event in EventFileLoader(str(file)).Load())


def _environment():
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
