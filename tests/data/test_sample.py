from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest

from lenet_keras.data import folders, load
from lenet_keras.data.idx import IDX_NAMES
from lenet_keras.data.sample import write_sample


def test_the_sample_has_fifty_images_of_each_class() -> None:
    dataset = load("fashion_mnist_sample")
    for split in (dataset.train, dataset.test):
        assert split.images.shape == (500, 28, 28, 1)
        assert split.images.dtype == np.uint8
        assert split.labels.dtype == np.int64
        assert np.bincount(split.labels).tolist() == [50] * 10
    assert dataset.spec.is_sample
    assert str(folders.SAMPLE) in dataset.source


def test_the_sample_names_its_copyright_holder() -> None:
    licence = (folders.SAMPLE / "LICENSE").read_text()
    assert "Copyright (c) 2017 Zalando SE" in licence
    assert "MIT License" in licence


@pytest.mark.full_data
def test_the_sample_follows_its_rule(full_set: Path, tmp_path: Path) -> None:
    write_sample(full_set, tmp_path)
    for name in IDX_NAMES:
        made, shipped = ((folder / f"{name}.gz").read_bytes() for folder in (tmp_path, folders.SAMPLE))
        assert gzip.decompress(made) == gzip.decompress(shipped)
        assert shipped[4:8] == bytes(4)  # no time in the header
