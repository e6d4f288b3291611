"""Downloading with TFDS, from real servers on the loopback interface."""

from __future__ import annotations

import os
import socket
import struct
import time
from pathlib import Path

import numpy as np
import pytest

from lenet_keras.data.idx import IDX_NAMES
from lenet_keras.data.load import load, prepare
from lenet_keras.data.tfds import site_problem
from lenet_keras.errors import DatasetNotFound

from .conftest import proxy, script


@pytest.fixture
def failing_apt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Put an apt that reaches no server on the path."""
    script(tmp_path / "bin", "apt-get", 'echo "E: Unable to locate package $4" >&2; exit 100')
    script(tmp_path / "bin", "dpkg-deb", "exit 1")
    monkeypatch.setenv("PATH", str(tmp_path / "bin"), prepend=os.pathsep)


def test_a_site_that_answers_is_no_problem() -> None:
    with proxy({}) as url:
        assert site_problem(url) is None


@pytest.mark.parametrize(("status", "problem"), [(403, "HTTP status 403"), (503, "HTTP status 503"), (405, None)])
def test_the_status_that_a_site_returns_counts(status: int, problem: str | None) -> None:
    with proxy({}, status) as url:
        assert site_problem(url) == problem


def test_a_site_that_refuses_connections_is_reported_at_once() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound and not listening: refused
        problem = site_problem(f"http://127.0.0.1:{taken.getsockname()[1]}")
    assert problem is not None
    assert "refused" in problem


def test_a_site_that_never_answers_is_given_up_in_time() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        start = time.monotonic()
        problem = site_problem(f"http://127.0.0.1:{silent.getsockname()[1]}", seconds=0.3)
        assert time.monotonic() - start < 3
    assert problem is not None
    assert "timed out" in problem or "no answer" in problem


@pytest.mark.usefixtures("failing_apt")
def test_when_a_site_has_other_files_and_apt_fails_the_message_gives_both_reasons(
    monkeypatch: pytest.MonkeyPatch, home: Path
) -> None:
    with proxy({f"{name}.gz": b"not the dataset" for name in IDX_NAMES}) as url:
        monkeypatch.setenv("http_proxy", url)
        with pytest.raises(DatasetNotFound) as caught:
            load("fashion_mnist")
    message = str(caught.value)
    assert "TFDS download (fashion-mnist.s3-website.eu-central-1.amazonaws.com): NonMatchingChecksumError" in message
    assert "Debian package dataset-fashion-mnist: E: Unable to locate package" in message
    assert "apt-get install dataset-fashion-mnist" in message
    assert not (home / "cache/lenet-keras/fashion-mnist").exists()
    assert list((home / "cache/lenet-keras").iterdir()) == []


def publishers_file(folder: Path, name: str) -> bytes:
    """Return the published .gz file, which TFDS has registered, from Debian's: that one lacks name and time."""
    debian = (folder / f"{name}.gz").read_bytes()
    made = 1504176606 if name.startswith("train") else 1504176627
    return debian[:3] + b"\x08" + struct.pack("<I", made) + debian[8:10] + name.encode() + b"\0" + debian[10:]


@pytest.mark.full_data
def test_tfds_downloads_and_prepares_the_same_dataset_as_the_idx_files(
    full_dataset: Path, monkeypatch: pytest.MonkeyPatch, home: Path, notices: pytest.LogCaptureFixture
) -> None:
    with proxy({f"{name}.gz": publishers_file(full_dataset, name) for name in IDX_NAMES}) as url:
        monkeypatch.setenv("http_proxy", url)
        assert prepare("fashion_mnist") == home / "tfds/fashion_mnist/3.0.1"
    assert [notice.split()[1] for notice in notices.messages] == ["downloading", "reading", "dataset"]
    start = time.monotonic()
    from_tfds = load("fashion_mnist")
    assert time.monotonic() - start < 3
    from_idx = load("fashion_mnist", full_dataset)
    for split in ("train", "test"):
        np.testing.assert_array_equal(getattr(from_tfds, split).images, getattr(from_idx, split).images)
        np.testing.assert_array_equal(getattr(from_tfds, split).labels, getattr(from_idx, split).labels)
