"""A home of its own for every test, and folders that TFDS really prepared."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from lenet_keras.data import folders, load

FULL_SET = Path("/usr/share/datasets/fashion-mnist")

# TFDS writes the folders in one process of its own: importing TensorFlow takes seconds.
WRITE_PREPARED_SETS = """
import sys
import numpy as np
import tensorflow_datasets as tfds
from lenet_keras.data import folders
from lenet_keras.data.idx import read_idx_folder

root = sys.argv[1]

def write(folder, name, config, num_classes, splits):
    tfds.dataset_builders.store_as_tfds_dataset(
        name=name,
        config=config,
        version="1.0.0",
        data_dir=f"{root}/{folder}",
        features=tfds.features.FeaturesDict({
            "image": tfds.features.Image(shape=(28, 28, 1)),
            "label": tfds.features.ClassLabel(num_classes=num_classes),
        }),
        split_datasets={
            split: list(enumerate({"image": image[..., None], "label": label} for image, label in zip(images, labels)))
            for split, (images, labels) in splits.items()
        },
    )

sample = read_idx_folder(folders.SAMPLE, "", None)
write("good", "fashion_mnist_sample", None, 10, sample)
swapped = {split: (images, labels.copy()) for split, (images, labels) in sample.items()}
swapped["test"][1][[0, 1]] = swapped["test"][1][[1, 0]]
write("wrong", "fashion_mnist_sample", None, 10, swapped)
# As TFDS's EMNIST: labels 1 to 26, rows and columns swapped. Here the upright picture of label n is a bar in row n.
labels = np.arange(1, 27)
pictures = np.zeros((26, 28, 28), np.uint8)
pictures[np.arange(26), :, labels] = 255
write("good", "emnist", "letters", 37, {"train": (pictures, labels), "test": (pictures[:5], labels[:5])})
"""


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty home folder, where no data set is installed and no proxy is set."""
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("XDG_CACHE_HOME", str(home / "cache"))
    monkeypatch.setenv("TFDS_DATA_DIR", str(home / "tfds"))
    for name in ("http_proxy", "https_proxy", "no_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    monkeypatch.setattr(folders, "DEBIAN_DATASETS", home / "datasets")
    return home


@pytest.fixture(scope="session")
def written_by_tfds(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`good` holds the sample, also as IDX files, and an EMNIST of 26 + 5 images; `wrong` has two labels exchanged."""
    root = tmp_path_factory.mktemp("prepared")
    environment = {**os.environ, "PYTHONPATH": str(Path(folders.__file__).parents[2]), "TFDS_DATA_DIR": str(root)}
    subprocess.run([sys.executable, "-c", WRITE_PREPARED_SETS, str(root)], env=environment, check=True)
    for file in folders.SAMPLE.glob("*.gz"):
        shutil.copy(file, root / "good")
    return root


@pytest.fixture
def prepared(written_by_tfds: Path, tmp_path: Path) -> Path:
    """A copy of `written_by_tfds` to do as one likes with."""
    return Path(shutil.copytree(written_by_tfds, tmp_path / "prepared"))


@pytest.fixture(scope="session")
def first_reading(written_by_tfds: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    """The cache and the notices after the prepared sample was read once: each reading with TFDS takes seconds."""
    cache = tmp_path_factory.mktemp("cache")
    notices: list[str] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(cache))
        load("fashion_mnist_sample", written_by_tfds / "good", notices.append)
    return cache, notices


@pytest.fixture
def read_before(first_reading: tuple[Path, list[str]], written_by_tfds: Path, home: Path) -> Path:
    """The folder of the sample that TFDS prepared, which has been read in this home before."""
    shutil.copytree(first_reading[0], home / "cache")
    return written_by_tfds / "good"


@pytest.fixture
def sample_copy(tmp_path: Path) -> Path:
    """A copy of the sample's IDX files to do as one likes with."""
    return Path(shutil.copytree(folders.SAMPLE, tmp_path / "sample"))


@pytest.fixture
def full_set() -> Path:
    """The whole Fashion-MNIST as Debian's package installs it."""
    if not FULL_SET.is_dir():
        pytest.skip(f"needs the whole Fashion-MNIST in {FULL_SET}: apt-get install dataset-fashion-mnist")
    return FULL_SET
