"""Runs on the sample, and whether two of them are the same one."""

import csv
import json

import numpy as np

from lenet_keras import TrainConfig
from lenet_keras.checkpoint import StateStore


def config(**settings):
    """Return the settings of a short training, on one device: with two, TensorFlow takes twice as long to start it."""
    short = {"dataset": "fashion_mnist_sample", "epochs": 3, "learning_rate": 1e-3, "strategy": "one_device"}
    return TrainConfig(**{**short, **settings})


def variables(run_dir):
    """Return the variables of the newest state, and the best ones."""
    state = StateStore(run_dir).read()
    return {**state.variables, **{f"best/{name}": value for name, value in state.best.items()}}


def without_times(path):
    """Return the rows of history.csv, without times."""
    with path.open() as file:
        rows = list(csv.DictReader(file))
    return [{k: v for k, v in row.items() if k not in ("seconds", "images_per_second")} for row in rows]


def assert_same_run(first, second):
    """Assert bit-identical weights, optimizer, seeds, best weights, history and metrics."""
    ours, theirs = variables(first), variables(second)
    assert ours.keys() == theirs.keys()
    for name in ours:
        np.testing.assert_array_equal(ours[name], theirs[name], err_msg=name)
    assert without_times(first / "history.csv") == without_times(second / "history.csv")
    assert json.loads((first / "metrics.json").read_text()) == json.loads((second / "metrics.json").read_text())
