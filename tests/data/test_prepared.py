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

from lenet_keras.data import Dataset, dataset_spec, folders, load
from lenet_keras.data.idx import read_idx_folder
from lenet_keras.data.prepared import find_prepared, read_prepared
from lenet_keras.errors import LenetKerasError
from lenet_keras.notices import ignore

SAMPLE = "fashion_mnist_sample"


def assert_same(one: Dataset, other: Dataset) -> None:
    for split in ("train", "test"):
        a, b = getattr(one, split), getattr(other, split)
        np.testing.assert_array_equal(a.images, b.images)
        np.testing.assert_array_equal(a.labels, b.labels)


def copies() -> list[Path]:
    folder = folders.user_cache() / "tfds"
    return [path for path in folder.iterdir() if not path.name.startswith(".")] if folder.exists() else []


def test_what_tfds_prepared_equals_the_idx_files_though_tfds_shuffled_it(read_before: Path) -> None:
    as_tfds_has_it = read_idx_folder(copies()[0], "mend", None)["train"][1]
    assert as_tfds_has_it.tolist() != read_idx_folder(folders.SAMPLE, "mend", None)["train"][1].tolist()
    assert_same(load(SAMPLE, read_before), load(SAMPLE))


def test_the_first_reading_says_that_it_takes_a_while(first_reading: tuple[Path, list[str]]) -> None:
    assert [notice.split()[1] for notice in first_reading[1]] == ["reading", "set"]


def test_the_second_reading_needs_no_tfds(read_before: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/nonexistent")
    notices: list[str] = []
    dataset = load(SAMPLE, read_before, notices.append)
    assert dataset.source == f"set prepared by TFDS in {read_before / SAMPLE / '1.0.0'}"
    assert notices == [f"{SAMPLE}: {dataset.source}"]


def test_a_folder_that_changed_is_read_anew(read_before: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def read_again(*_: str) -> None:
        raise LenetKerasError("asked for")

    monkeypatch.setattr("lenet_keras.data.prepared.run_tfds", read_again)
    load(SAMPLE, read_before)
    records = next((read_before / SAMPLE / "1.0.0").glob("*train.tfrecord*"))
    before = records.stat()
    try:
        os.utime(records, ns=(before.st_atime_ns, before.st_mtime_ns + 1))
        with pytest.raises(LenetKerasError, match="asked for"):
            load(SAMPLE, read_before)
    finally:
        os.utime(records, ns=(before.st_atime_ns, before.st_mtime_ns))


def test_a_prepared_set_with_two_labels_exchanged_is_refused_and_not_kept(prepared: Path) -> None:
    folder = prepared / "wrong" / SAMPLE / "1.0.0"
    with pytest.raises(
        LenetKerasError, match=rf"{folder}: .*test contents \(SHA-256\): expected \w+, found \w+; delete"
    ):
        load(SAMPLE, prepared / "wrong")
    assert copies() == []


def test_a_truncated_record_file_is_refused_and_not_kept(prepared: Path) -> None:
    folder = prepared / "good" / SAMPLE / "1.0.0"
    records = next(folder.glob("*train.tfrecord*"))
    records.write_bytes(records.read_bytes()[:-100])
    with pytest.raises(LenetKerasError, match=rf"{folder}: expected a data set that TFDS can read, found: DataLoss.*"):
        load(SAMPLE, prepared / "good")
    assert copies() == []


def test_a_damaged_copy_names_the_file_and_how_to_mend_it(read_before: Path) -> None:
    path = copies()[0] / "t10k-images-idx3-ubyte"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(LenetKerasError, match=rf"{path}: SHA-256 .*expected .*found .*; delete {path.parent}"):
        load(SAMPLE, read_before)
    (path.parent / "sums.json").write_text("{")
    with pytest.raises(LenetKerasError, match=rf"sums\.json: .*; delete {path.parent}"):
        load(SAMPLE, read_before)


def test_emnist_comes_upright_with_its_letters_from_0(prepared: Path) -> None:
    spec = dataclasses.replace(dataset_spec("emnist/letters"), train_size=26, test_size=5)
    folder = find_prepared(spec.name, prepared / "good")
    assert folder == prepared / "good/emnist/letters/1.0.0"
    splits = read_prepared(spec, folder, ignore)
    for split, count in (("train", 26), ("test", 5)):
        labels, images = splits[split].labels, splits[split].images
        assert sorted(labels) == list(range(count))
        # The upright picture of label n (as stored, from 1) is a bar in row n.
        assert [np.flatnonzero(image[:, 14, 0]).tolist() for image in images] == [[n + 1] for n in labels]


def test_only_a_whole_version_counts_and_the_newest_wins(tmp_path: Path) -> None:
    assert find_prepared("mnist", tmp_path) is None
    for version in ("3.0.1", "3.0.10", "incomplete.ABC_4.0.0"):
        (tmp_path / "mnist" / version).mkdir(parents=True)
        (tmp_path / "mnist" / version / "dataset_info.json").touch()
    (tmp_path / "mnist" / "9.0.0").mkdir()
    assert find_prepared("mnist", tmp_path) == tmp_path / "mnist" / "3.0.10"


def test_a_killed_preparation_leaves_nothing_that_looks_complete(prepared: Path) -> None:
    code = "import sys, pathlib, lenet_keras.data as d; d.load(sys.argv[1], pathlib.Path(sys.argv[2]))"
    environment = {**os.environ, "PYTHONPATH": str(Path(folders.__file__).parents[2])}
    command = [sys.executable, "-c", code, SAMPLE, str(prepared / "good")]
    process = subprocess.Popen(command, env=environment, start_new_session=True)
    deadline = time.monotonic() + 60
    while not list(folders.user_cache().glob(f"tfds/.*{SAMPLE}*")):  # until the reading has begun
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGKILL)  # it and its TFDS process
    assert process.wait() == -signal.SIGKILL
    assert copies() == []
    assert_same(load(SAMPLE, prepared / "good"), load(SAMPLE))


def test_a_cache_that_cannot_be_written_is_named(prepared: Path, home: Path) -> None:
    (home / "cache").write_text("a file where the folder should be")
    with pytest.raises(LenetKerasError, match=rf"{home}/cache/lenet-keras/tfds/{SAMPLE}.*XDG_CACHE_HOME"):
        load(SAMPLE, prepared / "good")
