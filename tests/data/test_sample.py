"""The sample in lenet_keras/data/fashion_mnist_sample, and how it was made from the full dataset.

The rule: of each split, the first 50 images of each of the ten classes in the order of the publisher's files, kept in
that order. To make it again: call `write_sample` with the folder of the full dataset's IDX files.
"""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest

from lenet_keras.data.catalogue import dataset_spec
from lenet_keras.data.idx import IDX_FILES, IDX_NAMES, idx_bytes, read_idx_folder
from lenet_keras.data.load import SAMPLE_FOLDER, load

PER_CLASS = 50


def write_sample(full: Path, target: Path) -> None:
    """Write the sample's four IDX .gz files to the folder `target`, from those of the full dataset in `full`."""
    spec = dataset_spec("fashion_mnist")
    for split, (images, labels) in read_idx_folder(full, "get an intact copy", spec.idx_sha256).items():
        first = [np.flatnonzero(labels == label)[:PER_CLASS] for label in range(spec.num_classes)]
        chosen = np.sort(np.concatenate(first))
        for name, array in zip(IDX_FILES[split], (images[chosen], labels[chosen]), strict=True):
            # Without a time in its header, the file depends on its contents alone.
            (target / f"{name}.gz").write_bytes(gzip.compress(idx_bytes(array), mtime=0))


def test_the_sample_has_fifty_images_of_each_class() -> None:
    dataset = load("fashion_mnist_sample")
    for split in (dataset.train, dataset.test):
        assert split.images.shape == (500, 28, 28, 1)
        assert split.images.dtype == np.uint8
        assert split.labels.dtype == np.int64
        assert np.bincount(split.labels).tolist() == [50] * 10
    assert dataset.spec.is_sample
    assert str(SAMPLE_FOLDER) in dataset.source


def test_the_sample_names_its_copyright_holder() -> None:
    licence = (SAMPLE_FOLDER / "LICENSE").read_text()
    assert "Copyright (c) 2017 Zalando SE" in licence
    assert "MIT License" in licence


@pytest.mark.full_data
def test_the_sample_follows_its_rule(full_dataset: Path, tmp_path: Path) -> None:
    write_sample(full_dataset, tmp_path)
    for name in IDX_NAMES:
        made, shipped = ((folder / f"{name}.gz").read_bytes() for folder in (tmp_path, SAMPLE_FOLDER))
        assert gzip.decompress(made) == gzip.decompress(shipped)
        assert shipped[4:8] == bytes(4)  # no time in the header
