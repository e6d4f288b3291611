"""Reading what TFDS prepared, and the copies of it in the cache."""

from __future__ import annotations

import dataclasses
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from lenet_keras.data.arrays import Dataset
from lenet_keras.data.catalogue import SAMPLE_DATASET, dataset_spec
from lenet_keras.data.idx import read_idx_folder
from lenet_keras.data.load import SAMPLE_FOLDER, availability, load
from lenet_keras.data.tfds import find_prepared, read_prepared
from lenet_keras.errors import DatasetDamaged, LenetKerasError
from lenet_keras.files import is_temporary
from lenet_keras.paths import cache_folder

from .conftest import PACKAGE_ROOT, in_new_process


def assert_same(one: Dataset, other: Dataset) -> None:
    for split in ("train", "test"):
        a, b = getattr(one, split), getattr(other, split)
        np.testing.assert_array_equal(a.images, b.images)
        np.testing.assert_array_equal(a.labels, b.labels)


def copies() -> list[Path]:
    folder = cache_folder() / "tfds"
    return [path for path in folder.iterdir() if not is_temporary(path)] if folder.exists() else []


def test_what_tfds_prepared_equals_the_idx_files_although_tfds_shuffled_it(read_before: Path) -> None:
    labels_from_tfds = read_idx_folder(copies()[0], "remedy", None)["train"][1]
    assert labels_from_tfds.tolist() != read_idx_folder(SAMPLE_FOLDER, "remedy", None)["train"][1].tolist()
    assert_same(load(SAMPLE_DATASET, read_before), load(SAMPLE_DATASET))


def test_the_first_reading_is_announced(first_reading: tuple[Path, list[str]]) -> None:
    assert [notice.split()[1] for notice in first_reading[1]] == ["reading", "dataset"]


def test_the_second_reading_needs_no_tfds(
    read_before: Path, monkeypatch: pytest.MonkeyPatch, notices: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(sys, "executable", "/nonexistent")
    dataset = load(SAMPLE_DATASET, read_before)
    assert dataset.source == f"dataset prepared by TFDS in {read_before / SAMPLE_DATASET / '1.0.0'}"
    assert notices.messages == [f"{SAMPLE_DATASET}: {dataset.source}"]


def test_a_folder_that_changed_is_read_again(read_before: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lenet_keras.data.tfds._tfds_problem", lambda *_: "called")
    load(SAMPLE_DATASET, read_before)
    records = next((read_before / SAMPLE_DATASET / "1.0.0").glob("*train.tfrecord*"))
    before = records.stat()
    try:
        os.utime(records, ns=(before.st_atime_ns, before.st_mtime_ns + 1))
        with pytest.raises(DatasetDamaged, match="called"):
            load(SAMPLE_DATASET, read_before)
    finally:
        os.utime(records, ns=(before.st_atime_ns, before.st_mtime_ns))


def test_a_prepared_dataset_with_two_labels_exchanged_is_rejected_and_not_kept(prepared: Path) -> None:
    folder = prepared / "wrong" / SAMPLE_DATASET / "1.0.0"
    with pytest.raises(
        LenetKerasError, match=rf"{folder}: .*test contents \(SHA-256\): expected \w+, found \w+; delete"
    ):
        load(SAMPLE_DATASET, prepared / "wrong")
    assert copies() == []


def test_a_truncated_record_file_is_rejected_and_not_kept(prepared: Path) -> None:
    folder = prepared / "good" / SAMPLE_DATASET / "1.0.0"
    records = next(folder.glob("*train.tfrecord*"))
    records.write_bytes(records.read_bytes()[:-100])
    with pytest.raises(DatasetDamaged, match=rf"{folder}: expected a dataset that TFDS can read, found: DataLoss.*"):
        load(SAMPLE_DATASET, prepared / "good")
    assert copies() == []


def test_a_damaged_copy_names_the_file_and_the_remedy(read_before: Path) -> None:
    path = copies()[0] / "t10k-images-idx3-ubyte"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(DatasetDamaged, match=rf"{path}: SHA-256 .*expected .*found .*; delete {path.parent}"):
        load(SAMPLE_DATASET, read_before)
    (path.parent / "sums.json").write_text("{")
    with pytest.raises(DatasetDamaged, match=rf"sums\.json: .*; delete {path.parent}"):
        load(SAMPLE_DATASET, read_before)


def test_emnist_is_upright_with_letters_from_0(prepared: Path) -> None:
    spec = dataclasses.replace(dataset_spec("emnist/letters"), train_size=26, test_size=5)
    folder = find_prepared(spec.name, prepared / "good")
    assert folder == prepared / "good/emnist/letters/1.0.0"
    splits = read_prepared(spec, folder, "remedy")
    for split, count in (("train", 26), ("test", 5)):
        labels, images = splits[split].labels, splits[split].images
        assert sorted(labels) == list(range(count))
        # The upright image of label n (as stored, from 1) is a bar in row n.
        assert [np.flatnonzero(image[:, 14, 0]).tolist() for image in images] == [[n + 1] for n in labels]


def test_only_a_complete_version_counts_and_the_newest_wins(tmp_path: Path) -> None:
    assert find_prepared("mnist", tmp_path) is None
    for version in ("3.0.1", "3.0.10", "incomplete.ABC_4.0.0"):
        (tmp_path / "mnist" / version).mkdir(parents=True)
        (tmp_path / "mnist" / version / "dataset_info.json").touch()
    (tmp_path / "mnist" / "9.0.0").mkdir()
    assert find_prepared("mnist", tmp_path) == tmp_path / "mnist" / "3.0.10"


def test_a_killed_preparation_leaves_nothing_that_looks_complete(prepared: Path) -> None:
    code = "import sys, pathlib; from lenet_keras.data.load import load; load(sys.argv[1], pathlib.Path(sys.argv[2]))"
    environment = {**os.environ, "PYTHONPATH": str(PACKAGE_ROOT)}
    command = [sys.executable, "-c", code, SAMPLE_DATASET, str(prepared / "good")]
    process = subprocess.Popen(command, env=environment, start_new_session=True)
    deadline = time.monotonic() + 60
    while not list(cache_folder().glob(f"tfds/.*{SAMPLE_DATASET}*")):  # until it reads
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGKILL)  # it and its TFDS process
    assert process.wait() == -signal.SIGKILL
    assert copies() == []
    assert_same(load(SAMPLE_DATASET, prepared / "good"), load(SAMPLE_DATASET))


def test_a_cache_that_cannot_be_written_to_is_named(prepared: Path, home: Path) -> None:
    (home / "cache").write_text("a file where the folder should be")
    with pytest.raises(LenetKerasError, match=rf"{home}/cache/lenet-keras/tfds/{SAMPLE_DATASET}.*XDG_CACHE_HOME"):
        load(SAMPLE_DATASET, prepared / "good")


def test_a_data_dir_may_hold_either_kind_and_what_tfds_prepared_comes_first(
    read_before: Path, sample_copy: Path
) -> None:
    rows = availability(SAMPLE_DATASET, read_before)
    assert [(row.source, row.available) for row in rows] == [("dataset prepared by TFDS", True), ("IDX files", True)]
    assert rows[0].detail == str(read_before / SAMPLE_DATASET / "1.0.0")
    assert load(SAMPLE_DATASET, read_before).source == f"dataset prepared by TFDS in {rows[0].detail}"
    assert [row.available for row in availability(SAMPLE_DATASET, sample_copy)] == [False, True]
    assert load(SAMPLE_DATASET, sample_copy).source == f"IDX files in {sample_copy}"


def test_neither_the_sample_nor_a_dataset_read_before_loads_tensorflow(read_before: Path) -> None:
    for data_dir in ("None", f"Path({str(read_before)!r})"):
        code = (
            "import sys; from pathlib import Path; from lenet_keras.data.load import load; "
            f"load({SAMPLE_DATASET!r}, {data_dir}); "
            "print('tensorflow' in sys.modules, 'tensorflow_datasets' in sys.modules)"
        )
        assert in_new_process(code) == "False False"
