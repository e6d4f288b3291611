"""TensorFlow as the command line sets it up, and one small finished run that many tests look at."""

from __future__ import annotations

from pathlib import Path

import pytest

from lenet_keras import runtime

runtime.load_tensorflow()

import tensorflow as tf  # noqa: E402

# Settled when TensorFlow runs its first operation; four, so that each test may train on one, two or four.
tf.config.set_logical_device_configuration(
    tf.config.list_physical_devices("CPU")[0], [tf.config.LogicalDeviceConfiguration()] * 4
)


@pytest.fixture(scope="session")
def sample_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder of three epochs on the sample, with everything that a run leaves. Not to be changed."""
    from lenet_keras import TrainConfig, train

    run_dir = tmp_path_factory.mktemp("runs") / "fashion_mnist_sample" / "none" / "7"
    config = TrainConfig(dataset="fashion_mnist_sample", epochs=3, learning_rate=1e-3, batch_size=32, seed=7)
    train(config, run_dir)
    return run_dir
