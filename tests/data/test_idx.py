from __future__ import annotations

import gzip
import os
from pathlib import Path

import numpy as np
import pytest

from lenet_keras.data import idx
from lenet_keras.data.idx import IDX_NAMES, creating_idx_folder, idx_bytes, read_idx, read_idx_folder
from lenet_keras.data.load import SAMPLE_FOLDER
from lenet_keras.errors import DatasetDamaged, LenetKerasError


@pytest.mark.parametrize("shape", [(3,), (2, 4, 5)])
@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_what_is_written_is_read_back(tmp_path: Path, shape: tuple[int, ...], suffix: str) -> None:
    array = np.arange(np.prod(shape), dtype=np.uint8).reshape(shape)
    path = tmp_path / f"x-idx{len(shape)}-ubyte{suffix}"
    content = idx_bytes(array)
    path.write_bytes(gzip.compress(content) if suffix else content)
    np.testing.assert_array_equal(read_idx(path, "remedy"), array)


def test_the_header_follows_the_format(tmp_path: Path) -> None:
    # Two labels, 7 and 9, written by hand from the description of the format.
    path = tmp_path / "labels-idx1-ubyte"
    path.write_bytes(bytes([0, 0, 8, 1, 0, 0, 0, 2, 7, 9]))
    assert read_idx(path, "remedy").tolist() == [7, 9]


def test_raw_files_are_read_like_compressed_ones(sample_copy: Path) -> None:
    compressed = read_idx_folder(sample_copy, "remedy", None)
    for path in sample_copy.glob("*.gz"):
        path.with_suffix("").write_bytes(gzip.decompress(path.read_bytes()))
        path.unlink()
    raw = read_idx_folder(sample_copy, "remedy", None)
    for split in ("train", "test"):
        np.testing.assert_array_equal(raw[split][0], compressed[split][0])
        np.testing.assert_array_equal(raw[split][1], compressed[split][1])


@pytest.mark.parametrize("name", IDX_NAMES)
def test_a_missing_file_is_named(sample_copy: Path, name: str) -> None:
    (sample_copy / f"{name}.gz").unlink()
    with pytest.raises(DatasetDamaged, match=rf"{sample_copy}: .*found no {name}\[\.gz\]; do this\.") as caught:
        read_idx_folder(sample_copy, "do this", None)
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize("kept", [0, 5, 11, 5000, -1])
def test_a_truncated_gzip_file_is_named(tmp_path: Path, kept: int) -> None:
    complete = (SAMPLE_FOLDER / f"{IDX_NAMES[0]}.gz").read_bytes()
    path = tmp_path / f"{IDX_NAMES[0]}.gz"
    path.write_bytes(complete[:kept])
    with pytest.raises(DatasetDamaged, match=rf"{path}: .*expected .*, found.*; do this\."):
        read_idx(path, "do this")


def test_a_file_that_is_not_gzip_is_named(tmp_path: Path) -> None:
    path = tmp_path / f"{IDX_NAMES[0]}.gz"
    path.write_bytes(b"<html>Not found</html>")
    with pytest.raises(DatasetDamaged, match=rf"{path}: expected a complete gzip file, found: Not a gzipped file"):
        read_idx(path, "do this")


def test_a_gzip_file_that_decompresses_to_much_more_is_not_read_to_its_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(idx, "_LARGEST", 1000)
    path = tmp_path / f"{IDX_NAMES[0]}.gz"
    for shape in [(1, 1, 984), (1, 1, 985)]:
        path.write_bytes(gzip.compress(idx_bytes(np.zeros(shape, np.uint8))))
        if shape[-1] == 984:
            assert read_idx(path, "do this").shape == shape
    with pytest.raises(DatasetDamaged, match=rf"{path}: .*expected at most 1000 bytes, found more; do this"):
        read_idx(path, "do this")


@pytest.mark.parametrize("kind", ["pipe", "/dev/zero", "large"])
def test_what_is_not_a_file_is_neither_waited_for_nor_read_to_its_end(tmp_path: Path, kind: str) -> None:
    path = tmp_path / IDX_NAMES[0]
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "large":
        path.touch()
        os.truncate(path, 2**40)  # takes no space
    else:
        path.symlink_to(kind)
    with pytest.raises(DatasetDamaged, match=rf"{path}: expected a readable file, found: (Not a regular|File larger)"):
        read_idx(path, "do this")


@pytest.mark.parametrize(("kept", "expected"), [(0, "magic"), (3, "magic"), (8, "at least 16"), (20, "18 bytes")])
def test_a_raw_file_of_the_wrong_length_is_named(tmp_path: Path, kept: int, expected: str) -> None:
    path = tmp_path / "images-idx3-ubyte"
    content = idx_bytes(np.zeros((2, 1, 1), np.uint8)) + b"more"
    path.write_bytes(content[:kept])
    with pytest.raises(DatasetDamaged, match=rf"{path}: .*{expected}.*; do this"):
        read_idx(path, "do this")


def test_labels_where_images_should_be_are_named(tmp_path: Path) -> None:
    path = tmp_path / "images-idx3-ubyte"
    path.write_bytes(idx_bytes(np.zeros(20, np.uint8)))
    with pytest.raises(DatasetDamaged, match="magic number: expected 00000803, found 00000801"):
        read_idx(path, "do this")


def test_a_wrong_checksum_names_file_expected_and_found(tmp_path: Path) -> None:
    path = tmp_path / "labels-idx1-ubyte"
    path.write_bytes(idx_bytes(np.zeros(20, np.uint8)))
    with pytest.raises(DatasetDamaged, match=rf"{path}: SHA-256.* expected 0{{64}}, found \w{{64}}; do this"):
        read_idx(path, "do this", sha256="0" * 64)


def test_a_folder_that_holds_something_else_is_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").touch()
    with (
        pytest.raises(LenetKerasError, match=f"^{tmp_path}: expected nothing there yet, .*; move it away"),
        creating_idx_folder(tmp_path),
    ):
        pass
    assert [path.name for path in tmp_path.iterdir() if path.name != "home"] == ["notes.txt"]


def test_checksums_of_compressed_files_are_verified_and_raw_files_rejected(sample_copy: Path) -> None:
    sums = dict.fromkeys(IDX_NAMES, "0" * 64)
    with pytest.raises(DatasetDamaged, match="SHA-256 of the compressed file: expected 0000"):
        read_idx_folder(sample_copy, "do this", sums, of_gz=True)
    name = IDX_NAMES[3]
    (sample_copy / f"{name}.gz").rename(sample_copy / name)
    with pytest.raises(DatasetDamaged, match=rf"found no {name}\.gz"):
        read_idx_folder(sample_copy, "do this", sums, of_gz=True)
