from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from lenet_keras.data import Availability, Dataset, availability, folders, load, prepare, remote
from lenet_keras.errors import InvalidArgument, LenetKerasError

SAMPLE = "fashion_mnist_sample"


def in_own_process(code: str, **environment: str) -> str:
    """What a fresh interpreter prints."""
    result = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": str(Path(folders.__file__).parents[2]), **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    return result.stdout.strip()


def refuse(*_: object) -> None:
    raise LenetKerasError("not today")


@pytest.fixture
def unreachable(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither TFDS's site nor apt can be reached."""
    monkeypatch.setattr(remote, "download_with_tfds", refuse)
    monkeypatch.setattr(remote, "fetch_debian_package", refuse)


def test_the_sources_are_listed_in_the_order_they_are_tried(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote, "apt_problem", lambda: None)
    rows = availability("fashion_mnist")
    assert [row.source for row in rows] == [
        "set prepared by TFDS",
        "Debian package's IDX files",
        "IDX files fetched earlier",
        "TFDS download",
        "Debian package fetched by apt",
    ]
    assert [row.available for row in rows] == [False, False, False, None, None]
    assert rows[0].detail == f"not in {home}/tfds"
    monkeypatch.setattr(remote, "apt_problem", lambda: "this machine has no apt-get")
    assert availability("fashion_mnist")[-1] == Availability(
        "Debian package fetched by apt", False, "this machine has no apt-get"
    )


@pytest.mark.parametrize("name", ["mnist", "kmnist", "emnist/balanced"])
def test_the_other_sets_come_from_tfds_alone(name: str) -> None:
    assert [row.source for row in availability(name)] == ["set prepared by TFDS", "TFDS download"]


def test_a_data_dir_is_searched_for_both_kinds_and_a_prepared_set_goes_first(
    read_before: Path, sample_copy: Path
) -> None:
    rows = availability(SAMPLE, read_before)
    assert [(row.source, row.available) for row in rows] == [("set prepared by TFDS", True), ("IDX files", True)]
    assert rows[0].detail == str(read_before / SAMPLE / "1.0.0")
    assert load(SAMPLE, read_before).source == f"set prepared by TFDS in {rows[0].detail}"
    assert [row.available for row in availability(SAMPLE, sample_copy)] == [False, True]
    assert load(SAMPLE, sample_copy).source == f"IDX files in {sample_copy}"


@pytest.mark.usefixtures("unreachable")
def test_damaged_idx_files_are_an_error_and_no_other_source_is_tried(home: Path) -> None:
    installed = home / "datasets" / "fashion-mnist"
    shutil.copytree(folders.SAMPLE, installed)  # whole files of another data set: only the sums tell
    with pytest.raises(
        LenetKerasError, match=rf"{installed}/train-images.*expected c59f468a.*apt-get install --reinst"
    ):
        load("fashion_mnist")
    (installed / "t10k-labels-idx1-ubyte.gz").unlink()
    with pytest.raises(
        LenetKerasError, match=r"found no t10k-labels-idx1-ubyte\[\.gz\]; run .*apt-get install --reinst"
    ):
        load("fashion_mnist")


def test_an_empty_data_dir_is_an_error_that_says_what_was_looked_for(tmp_path: Path) -> None:
    expected = (
        rf"{tmp_path}: expected fashion_mnist/<version>/dataset_info.json \(prepared by TFDS\) or "
        rf"train-images-idx3-ubyte\[\.gz\] .*found neither; "
        rf"`lenet-keras data prepare fashion_mnist --data-dir {tmp_path}` fetches it"
    )
    with pytest.raises(LenetKerasError, match=expected):
        load("fashion_mnist", tmp_path)


def test_a_data_dir_that_does_not_exist_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(LenetKerasError, match=rf"{tmp_path}/typo: .*found nothing there; check --data-dir"):
        load("fashion_mnist", tmp_path / "typo")


@pytest.mark.usefixtures("unreachable")
def test_all_sources_failing_lists_each_and_the_command_that_helps(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote, "apt_problem", lambda: None)
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(LenetKerasError) as caught:
        load("fashion_mnist")
    assert str(caught.value).splitlines() == [
        "Fashion-MNIST could not be found or fetched. Tried:",
        f"  - set prepared by TFDS: none in {home}/tfds",
        f"  - Debian package's IDX files: none in {home}/datasets/fashion-mnist",
        f"  - IDX files fetched earlier: none in {home}/cache/lenet-keras/fashion-mnist",
        "  - TFDS download (fashion-mnist.s3-website.eu-central-1.amazonaws.com): not today",
        "  - Debian package dataset-fashion-mnist: not today",
        "What helps: `sudo apt-get install dataset-fashion-mnist`",
    ]


@pytest.mark.usefixtures("unreachable")
def test_without_apt_the_command_that_helps_is_another(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote, "apt_problem", lambda: "this machine has no apt-get")
    for name in ("fashion_mnist", "mnist"):
        with pytest.raises(
            LenetKerasError, match=rf"What helps: .*`lenet-keras data prepare {name} --data-dir FOLDER`"
        ):
            load(name)


@pytest.mark.parametrize("function", [load, prepare, availability])
def test_an_unknown_name_is_refused_by_all(function: object) -> None:
    with pytest.raises(InvalidArgument, match="Unknown data set 'cifar'"):
        function("cifar")  # type: ignore[operator]


def test_preparing_what_is_there_checks_it_and_says_where(sample_copy: Path) -> None:
    notices: list[str] = []
    assert prepare(SAMPLE, notify=notices.append) == folders.SAMPLE
    assert notices == [f"{SAMPLE}: sample shipped with lenet-keras in {folders.SAMPLE}"]
    (sample_copy / "train-labels-idx1-ubyte.gz").write_bytes(b"")
    with pytest.raises(LenetKerasError, match="train-labels"):
        prepare(SAMPLE, sample_copy)


def test_folders_that_may_not_be_looked_into_hold_nothing(home: Path) -> None:
    home.chmod(0)
    code = (
        "import os; from pathlib import Path; from lenet_keras.data import availability, folders, load; "
        f"folders.DEBIAN_DATASETS = Path({str(home / 'datasets')!r}); load({SAMPLE!r}); "
        "os.geteuid() or os.setresuid(65534, 65534, 65534); "  # root looks into everything
        "print([row.available for row in availability('fashion_mnist')][:3])"
    )
    try:
        assert in_own_process(code) == "[False, False, False]"
    finally:
        home.chmod(0o700)


def test_neither_the_sample_nor_a_set_read_before_loads_tensorflow(read_before: Path) -> None:
    for data_dir in ("None", f"Path({str(read_before)!r})"):
        code = (
            "import sys; from pathlib import Path; from lenet_keras.data import load; "
            f"load({SAMPLE!r}, {data_dir}); print('tensorflow' in sys.modules, 'tensorflow_datasets' in sys.modules)"
        )
        assert in_own_process(code) == "False False"


@pytest.mark.full_data
@pytest.mark.usefixtures("full_set")
def test_the_whole_set_is_in_memory_within_three_seconds() -> None:
    code = (
        "import sys, time; start = time.perf_counter(); from lenet_keras.data import load; "
        "dataset = load('fashion_mnist'); "
        "print(time.perf_counter() - start, len(dataset.train), len(dataset.test), 'tensorflow' in sys.modules)"
    )
    seconds, *rest = in_own_process(code).split()
    assert rest == ["60000", "10000", "False"]
    assert float(seconds) < 3


@pytest.mark.full_data
def test_the_packages_files_are_the_data_set(full_set: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folders, "DEBIAN_DATASETS", full_set.parent)
    dataset: Dataset = load("fashion_mnist")
    assert dataset.source == f"Debian package's IDX files in {full_set}"
    assert dataset.train.images.shape == (60_000, 28, 28, 1)
    assert np.bincount(dataset.train.labels).tolist() == [6_000] * 10
    assert np.bincount(dataset.test.labels).tolist() == [1_000] * 10
