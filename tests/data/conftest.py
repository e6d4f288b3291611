"""An empty home for every test, folders that TFDS has really prepared, and stand-ins for what is out of reach."""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

import lenet_keras
from lenet_keras.data.load import SAMPLE_FOLDER, load

PACKAGE_ROOT = Path(lenet_keras.__file__).parents[1]

# TFDS writes the folders in a process of its own: importing TensorFlow takes seconds.
WRITE_PREPARED_DATASETS = """
import sys
import numpy as np
import tensorflow_datasets as tfds
from lenet_keras.data.idx import read_idx_folder
from lenet_keras.data.load import SAMPLE_FOLDER

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

sample = read_idx_folder(SAMPLE_FOLDER, "", None)
write("good", "fashion_mnist_sample", None, 10, sample)
swapped = {split: (images, labels.copy()) for split, (images, labels) in sample.items()}
swapped["test"][1][[0, 1]] = swapped["test"][1][[1, 0]]
write("wrong", "fashion_mnist_sample", None, 10, swapped)
# Like TFDS's EMNIST: labels 1 to 26, rows and columns swapped. Here the upright image of label n is a bar in row n.
labels = np.arange(1, 27)
images = np.zeros((26, 28, 28), np.uint8)
images[np.arange(26), :, labels] = 255
write("good", "emnist", "letters", 37, {"train": (images, labels), "test": (images[:5], labels[:5])})
"""


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Move to an empty home folder, where no dataset is installed and no proxy is set."""
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("XDG_CACHE_HOME", str(home / "cache"))
    monkeypatch.setenv("TFDS_DATA_DIR", str(home / "tfds"))
    for name in ("http_proxy", "https_proxy", "no_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    monkeypatch.setattr("lenet_keras.data.load.DEBIAN_DATASETS", home / "datasets")
    return home


@pytest.fixture
def notices(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    """Record what the package reports; `messages` lists it."""
    caplog.set_level("INFO", "lenet_keras")
    return caplog


@pytest.fixture(scope="session")
def written_by_tfds(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write to `good` the sample, also as IDX files, and an EMNIST; to `wrong` the sample with two labels exchanged."""
    root = tmp_path_factory.mktemp("prepared")
    environment = {**os.environ, "PYTHONPATH": str(PACKAGE_ROOT), "TFDS_DATA_DIR": str(root)}
    subprocess.run([sys.executable, "-c", WRITE_PREPARED_DATASETS, str(root)], env=environment, check=True)
    for file in SAMPLE_FOLDER.glob("*.gz"):
        shutil.copy(file, root / "good")
    return root


@pytest.fixture
def prepared(written_by_tfds: Path, tmp_path: Path) -> Path:
    """Copy `written_by_tfds`, so that it may be changed."""
    return Path(shutil.copytree(written_by_tfds, tmp_path / "prepared"))


@pytest.fixture(scope="session")
def first_reading(written_by_tfds: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    """Read the prepared sample once, as TFDS takes seconds for it; return the cache and the notices."""
    cache = tmp_path_factory.mktemp("cache")
    messages: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: messages.append(record.getMessage())  # type: ignore[method-assign]
    logger = logging.getLogger("lenet_keras")
    level = logger.level
    logger.setLevel(logging.INFO)
    logger.addHandler(handler)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(cache))
        load("fashion_mnist_sample", written_by_tfds / "good")
    logger.removeHandler(handler)
    logger.setLevel(level)
    return cache, messages


@pytest.fixture
def read_before(first_reading: tuple[Path, list[str]], written_by_tfds: Path, home: Path) -> Path:
    """Return the folder of the sample that TFDS prepared; it has been read in this home before."""
    shutil.copytree(first_reading[0], home / "cache")
    return written_by_tfds / "good"


@pytest.fixture
def sample_copy(tmp_path: Path) -> Path:
    """Copy the sample's IDX files, so that they may be changed."""
    return Path(shutil.copytree(SAMPLE_FOLDER, tmp_path / "sample"))


def script(folder: Path, name: str, text: str) -> None:
    """Write an executable shell script."""
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(f"#!/bin/sh\n{text}\n")
    (folder / name).chmod(0o755)


def in_new_process(code: str) -> str:
    """Return what `code` prints in a new interpreter."""
    environment = {**os.environ, "PYTHONPATH": str(PACKAGE_ROOT)}
    command = [sys.executable, "-c", code]
    result = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    return result.stdout.strip()


@contextlib.contextmanager
def proxy(files: Mapping[str, bytes], status: int = 200) -> Iterator[str]:
    """Run a web proxy that answers for any site with the file of that name; yield its address."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            content = files.get(self.path.rpartition("/")[2], b"")
            self.send_response(status)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(content)

        do_HEAD = do_GET

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
