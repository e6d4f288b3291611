"""Options of the suite, TensorFlow as the command line sets it up, and a small finished run that many tests read."""

from __future__ import annotations

import random
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from lenet_keras import runtime

runtime.load_tensorflow()

import keras  # noqa: E402
import tensorflow as tf  # noqa: E402

# Fixed when TensorFlow runs its first operation; four, so that each test can train on one, two or four.
tf.config.set_logical_device_configuration(
    tf.config.list_physical_devices("CPU")[0], [tf.config.LogicalDeviceConfiguration()] * 4
)

FULL_DATASET = Path("/usr/share/datasets/fashion-mnist")  # where Debian's package dataset-fashion-mnist puts it


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options of this suite."""
    parser.addoption("--seed", type=int, help="Seed of what is random in tests.  [default: a new one, shown]")
    parser.addoption(
        "--repeats", type=int, default=1, help="Multiplies what is tried many times: kills, hostile requests."
    )
    parser.addoption("--full", action="store_true", help="Run the tutorial on the whole Fashion-MNIST: half an hour.")


def pytest_configure(config: pytest.Config) -> None:
    """Choose the seed, once for all processes: pytest-xdist passes it on."""
    if config.option.seed is None:
        config.option.seed = random.randrange(2**32)


def pytest_report_header(config: pytest.Config) -> str:
    """Show the seed."""
    return f"seed: {config.option.seed}, repeats: {config.option.repeats}"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Start with the files that take longest, so that both processes end at about the same time."""
    rank = {"training": 0, "cli": 1, "docs": 2, "data": 3, "distribution": 4, "export": 5}
    items.sort(key=lambda item: rank.get(item.path.parent.name, len(rank)))


@pytest.fixture(scope="session")
def repeats(request: pytest.FixtureRequest) -> int:
    """The factor of what is tried many times."""
    return int(request.config.option.repeats)


@pytest.fixture
def chance(request: pytest.FixtureRequest) -> random.Random:
    """A random generator that depends on --seed and on the test."""
    return random.Random(f"{request.config.option.seed} {request.node.nodeid}")


@pytest.fixture(scope="session")
def sample_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder of three epochs on the sample, with everything that a run leaves. Do not change it."""
    from lenet_keras import TrainConfig, train

    run_dir = tmp_path_factory.mktemp("runs") / "fashion_mnist_sample" / "none" / "7"
    config = TrainConfig(dataset="fashion_mnist_sample", epochs=3, learning_rate=1e-3, batch_size=32, seed=7)
    train(config, run_dir)
    return run_dir


@pytest.fixture(scope="session")
def full_dataset() -> Path:
    """Return the folder of the full Fashion-MNIST as Debian's package installs it."""
    if not FULL_DATASET.is_dir():
        pytest.skip(f"needs the full Fashion-MNIST in {FULL_DATASET}: apt-get install dataset-fashion-mnist")
    return FULL_DATASET


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Callable[..., Path]]:
    """A function that mounts a file system with some options, or remounts it, and returns its folder."""
    folder = tmp_path / "disk"
    folder.mkdir()

    def with_options(*options: str) -> Path:
        command = ["mount", "-t", "tmpfs", "-o", ",".join(options), "tmpfs", str(folder)]
        done = subprocess.run(command, capture_output=True, check=False)
        if done.returncode:
            pytest.skip(f"mounting is not permitted here: {done.stderr.decode().strip()}")
        return folder

    yield with_options
    subprocess.run(["umount", "--lazy", folder], capture_output=True, check=False)


@pytest.fixture
def foreign_globals() -> Iterator[None]:
    """Keras as another part of a user's program has set it, before this package is used; it must stay so."""
    config = keras.config
    mine = (config.floatx(), config.epsilon(), config.image_data_format(), config.dtype_policy())
    theirs = ("float16", 1e-2, "channels_first", keras.DTypePolicy("mixed_float16"))

    def tell(values: tuple[str, float, str, keras.DTypePolicy]) -> None:
        config.set_floatx(values[0])
        config.set_epsilon(values[1])
        config.set_image_data_format(values[2])
        config.set_dtype_policy(values[3])

    tell(theirs)
    tf.random.set_seed(1)
    tf.config.run_functions_eagerly(True)
    try:
        yield
        assert (config.floatx(), config.epsilon(), config.image_data_format(), config.dtype_policy()) == theirs
        assert tf.config.functions_run_eagerly()
    finally:
        tf.config.run_functions_eagerly(False)
        tell(mine)
