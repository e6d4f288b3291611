"""The sources of a dataset, and the order in which they are tried."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from lenet_keras.data.arrays import Dataset
from lenet_keras.data.catalogue import SAMPLE_DATASET
from lenet_keras.data.load import SAMPLE_FOLDER, Availability, availability, load, prepare
from lenet_keras.errors import DatasetDamaged, DatasetNotFound, InvalidArgument

from .conftest import in_new_process


@pytest.fixture
def unreachable(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make TFDS's site and apt unreachable."""

    def fail(*_: object) -> None:
        raise DatasetNotFound("not today")

    monkeypatch.setattr("lenet_keras.data.load.download_with_tfds", fail)
    monkeypatch.setattr("lenet_keras.data.load.fetch_debian_package", fail)


def test_the_sources_are_listed_in_the_order_they_are_tried(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lenet_keras.data.load.apt_problem", lambda: None)
    rows = availability("fashion_mnist")
    assert [row.source for row in rows] == [
        "dataset prepared by TFDS",
        "Debian package's IDX files",
        "IDX files fetched earlier",
        "TFDS download",
        "Debian package fetched by apt",
    ]
    assert [row.available for row in rows] == [False, False, False, None, None]
    assert rows[0].detail == f"not in {home}/tfds"
    monkeypatch.setattr("lenet_keras.data.load.apt_problem", lambda: "this machine has no apt-get")
    assert availability("fashion_mnist")[-1] == Availability(
        "Debian package fetched by apt", False, "this machine has no apt-get"
    )


@pytest.mark.parametrize("name", ["mnist", "kmnist", "emnist/balanced"])
def test_the_other_datasets_come_from_tfds_alone(name: str) -> None:
    assert [row.source for row in availability(name)] == ["dataset prepared by TFDS", "TFDS download"]


@pytest.mark.usefixtures("unreachable")
def test_damaged_idx_files_are_an_error_and_no_other_source_is_tried(home: Path) -> None:
    installed = home / "datasets" / "fashion-mnist"
    shutil.copytree(SAMPLE_FOLDER, installed)  # intact files of another dataset: only the checksums differ
    with pytest.raises(DatasetDamaged, match=rf"{installed}/train-images.*expected c59f468a.*apt-get install --reinst"):
        load("fashion_mnist")
    (installed / "t10k-labels-idx1-ubyte.gz").unlink()
    with pytest.raises(
        DatasetDamaged, match=r"found no t10k-labels-idx1-ubyte\[\.gz\]; run .*apt-get install --reinst"
    ):
        load("fashion_mnist")


def test_an_empty_data_dir_is_an_error_that_says_what_was_looked_for(tmp_path: Path) -> None:
    expected = (
        rf"{tmp_path}: expected fashion_mnist/<version>/dataset_info.json \(prepared by TFDS\) or "
        rf"train-images-idx3-ubyte\[\.gz\] .*found neither\."
    )
    with pytest.raises(DatasetNotFound, match=expected) as caught:
        load("fashion_mnist", tmp_path)
    assert (caught.value.dataset, caught.value.data_dir, caught.value.tried) == ("fashion_mnist", tmp_path, ())


def test_a_data_dir_that_does_not_exist_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DatasetNotFound, match=rf"{tmp_path}/typo: .*found nothing there\.") as caught:
        load("fashion_mnist", tmp_path / "typo")
    assert caught.value.data_dir == tmp_path / "typo"


@pytest.fixture
def homeless(monkeypatch: pytest.MonkeyPatch) -> None:
    """Give this user neither a home folder nor a name, as in a container started with any user's number."""

    def unknown(number: int) -> None:
        raise KeyError(number)

    monkeypatch.setattr("pwd.getpwuid", unknown)
    for name in ("HOME", "TFDS_DATA_DIR", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.usefixtures("homeless")
def test_without_a_home_folder_what_needs_none_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for root in (None, "relative"):
        if root:
            monkeypatch.setenv("HOME", root)
        assert [row.source for row in availability("mnist")] == ["TFDS download"]
    assert len(load(SAMPLE_DATASET).train) == 500
    assert not (tmp_path / "~").exists()


@pytest.mark.usefixtures("homeless")
def test_without_a_home_folder_the_variables_that_help_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lenet_keras.data.load.DEBIAN_DATASETS", Path("/nowhere"))
    with pytest.raises(DatasetNotFound) as caught:
        load("fashion_mnist")
    assert "this user has no home folder" in caught.value.tried[-2]
    assert "TFDS_DATA_DIR can name" in caught.value.tried[-2]
    assert "XDG_CACHE_HOME can name" in caught.value.tried[-1]


@pytest.mark.usefixtures("unreachable")
def test_when_all_sources_fail_the_message_lists_each_and_the_command_that_helps(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lenet_keras.data.load.apt_problem", lambda: None)
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(DatasetNotFound) as caught:
        load("fashion_mnist")
    tried = (
        f"dataset prepared by TFDS: none in {home}/tfds",
        f"Debian package's IDX files: none in {home}/datasets/fashion-mnist",
        f"IDX files fetched earlier: none in {home}/cache/lenet-keras/fashion-mnist",
        "TFDS download (fashion-mnist.s3-website.eu-central-1.amazonaws.com): not today",
        "Debian package dataset-fashion-mnist: not today",
    )
    assert str(caught.value).splitlines() == [
        "Fashion-MNIST could not be found or fetched. `sudo apt-get install dataset-fashion-mnist` installs it. Tried:",
        *(f"  {each}" for each in tried),
    ]
    assert caught.value.tried == tried


@pytest.mark.usefixtures("unreachable")
def test_without_apt_no_command_is_suggested(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lenet_keras.data.load.apt_problem", lambda: "this machine has no apt-get")
    for name in ("fashion_mnist", "mnist"):
        with pytest.raises(DatasetNotFound, match=r"could not be found or fetched\. Tried:\n") as caught:
            load(name)
        assert (caught.value.dataset, caught.value.data_dir) == (name, None)
        assert "not today" in caught.value.tried[-1]


@pytest.mark.parametrize("function", [load, prepare, availability])
def test_an_unknown_name_is_rejected_by_all(function: object) -> None:
    with pytest.raises(InvalidArgument, match="Unknown dataset 'cifar'"):
        function("cifar")  # type: ignore[operator]


def test_preparing_what_exists_checks_it_and_returns_its_folder(
    sample_copy: Path, notices: pytest.LogCaptureFixture
) -> None:
    assert prepare(SAMPLE_DATASET) == SAMPLE_FOLDER
    assert notices.messages == [f"{SAMPLE_DATASET}: sample shipped with lenet-keras in {SAMPLE_FOLDER}"]
    (sample_copy / "train-labels-idx1-ubyte.gz").write_bytes(b"")
    with pytest.raises(DatasetDamaged, match="train-labels"):
        prepare(SAMPLE_DATASET, sample_copy)


def test_folders_without_read_permission_count_as_empty(home: Path) -> None:
    home.chmod(0)
    code = (
        "import os; from pathlib import Path; from lenet_keras.data import load; "
        f"load.DEBIAN_DATASETS = Path({str(home / 'datasets')!r}); load.load({SAMPLE_DATASET!r}); "
        "os.geteuid() or os.setresuid(65534, 65534, 65534); "  # root may read everything
        "print([row.available for row in load.availability('fashion_mnist')][:3])"
    )
    try:
        assert in_new_process(code) == "[False, False, False]"
    finally:
        home.chmod(0o700)


@pytest.mark.full_data
@pytest.mark.usefixtures("full_dataset")
def test_the_full_dataset_is_in_memory_after_three_seconds_of_processor_time() -> None:
    code = (
        "import sys, time; start = time.process_time(); from lenet_keras.data.load import load; "
        "dataset = load('fashion_mnist'); "
        "print(time.process_time() - start, len(dataset.train), len(dataset.test), 'tensorflow' in sys.modules)"
    )
    seconds, *rest = in_new_process(code).split()
    assert rest == ["60000", "10000", "False"]
    assert float(seconds) < 3


@pytest.mark.full_data
def test_the_package_s_files_are_the_dataset(full_dataset: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lenet_keras.data.load.DEBIAN_DATASETS", full_dataset.parent)
    dataset: Dataset = load("fashion_mnist")
    assert dataset.source == f"Debian package's IDX files in {full_dataset}"
    assert dataset.train.images.shape == (60_000, 28, 28, 1)
    assert np.bincount(dataset.train.labels).tolist() == [6_000] * 10
    assert np.bincount(dataset.test.labels).tolist() == [1_000] * 10
