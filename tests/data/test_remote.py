"""Fetching, against real servers on the loopback and real apt; only its failures are faked."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import os
import shutil
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest

from lenet_keras.data import dataset_spec, folders, load, prepare, remote
from lenet_keras.data.idx import IDX_NAMES, read_idx_folder
from lenet_keras.data.remote import fetch_debian_package, site_problem
from lenet_keras.errors import LenetKerasError
from lenet_keras.notices import ignore

needs_apt = pytest.mark.skipif(
    remote.apt_problem() is not None, reason=f"needs apt-get and dpkg-deb: {remote.apt_problem()}"
)


@contextlib.contextmanager
def proxy(files: Mapping[str, bytes], status: int = 200) -> Iterator[str]:
    """A web proxy that answers for any site with the file of that name; yields its address."""

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


def script(folder: Path, name: str, text: str) -> None:
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(f"#!/bin/sh\n{text}\n")
    (folder / name).chmod(0o755)


@pytest.fixture
def failing_apt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An apt that reaches no server."""
    script(tmp_path / "bin", "apt-get", 'echo "E: Unable to locate package $4" >&2; exit 100')
    script(tmp_path / "bin", "dpkg-deb", "exit 1")
    monkeypatch.setenv("PATH", str(tmp_path / "bin"), prepend=os.pathsep)


def test_a_site_that_answers_has_no_problem() -> None:
    with proxy({}) as url:
        assert site_problem(url) is None


@pytest.mark.parametrize(("status", "problem"), [(403, "HTTP status 403"), (503, "HTTP status 503"), (405, None)])
def test_what_a_site_answers_counts(status: int, problem: str | None) -> None:
    with proxy({}, status) as url:
        assert site_problem(url) == problem


def test_a_site_that_is_not_there_is_known_at_once() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound and not listening: refused
        problem = site_problem(f"http://127.0.0.1:{taken.getsockname()[1]}")
    assert problem is not None
    assert "refused" in problem


def test_a_site_that_never_answers_is_given_up() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        start = time.monotonic()
        problem = site_problem(f"http://127.0.0.1:{silent.getsockname()[1]}", seconds=0.3)
        assert time.monotonic() - start < 3
    assert problem is not None
    assert "timed out" in problem or "no answer" in problem


@pytest.mark.usefixtures("failing_apt")
def test_when_a_site_has_other_files_and_apt_fails_the_reasons_are_given(
    monkeypatch: pytest.MonkeyPatch, home: Path
) -> None:
    with proxy({f"{name}.gz": b"not the data set" for name in IDX_NAMES}) as url:
        monkeypatch.setenv("http_proxy", url)
        with pytest.raises(LenetKerasError) as caught:
            load("fashion_mnist")
    message = str(caught.value)
    assert "TFDS download (fashion-mnist.s3-website.eu-central-1.amazonaws.com): NonMatchingChecksumError" in message
    assert "Debian package dataset-fashion-mnist: E: Unable to locate package" in message
    assert "apt-get install dataset-fashion-mnist" in message
    assert not (home / "cache/lenet-keras/fashion-mnist").exists()
    assert list((home / "cache/lenet-keras").iterdir()) == []


def publishers_file(folder: Path, name: str) -> bytes:
    """The .gz file as published, which TFDS registers, from Debian's: that one lacks only the name and the time."""
    debian = (folder / f"{name}.gz").read_bytes()
    made = 1504176606 if name.startswith("train") else 1504176627
    return debian[:3] + b"\x08" + struct.pack("<I", made) + debian[8:10] + name.encode() + b"\0" + debian[10:]


@pytest.mark.full_data
def test_tfds_downloads_prepares_and_gives_what_the_idx_files_give(
    full_set: Path, monkeypatch: pytest.MonkeyPatch, home: Path
) -> None:
    notices: list[str] = []
    with proxy({f"{name}.gz": publishers_file(full_set, name) for name in IDX_NAMES}) as url:
        monkeypatch.setenv("http_proxy", url)
        assert prepare("fashion_mnist", notify=notices.append) == home / "tfds/fashion_mnist/3.0.1"
    assert [notice.split()[1] for notice in notices] == ["TFDS", "reading", "set"]
    start = time.monotonic()
    from_tfds = load("fashion_mnist")
    assert time.monotonic() - start < 3
    from_idx = load("fashion_mnist", full_set)
    for split in ("train", "test"):
        np.testing.assert_array_equal(getattr(from_tfds, split).images, getattr(from_idx, split).images)
        np.testing.assert_array_equal(getattr(from_tfds, split).labels, getattr(from_idx, split).labels)


SAMPLE_PACKAGE = dataclasses.replace(dataset_spec("fashion_mnist"), debian_package="dataset-a-sample")


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An apt whose lists are empty and whose only source is a folder with one package: the sample's files."""
    tree, repository = tmp_path / "tree", tmp_path / "repository"
    repository.mkdir()
    shutil.copytree(folders.SAMPLE, tree / "usr/share/datasets/a-sample")
    control = "Package: dataset-a-sample\nVersion: 1\nArchitecture: all\nMaintainer: A <a@example.org>\n"
    (tree / "DEBIAN").mkdir()
    (tree / "DEBIAN/control").write_text(f"{control}Description: a sample\n")
    package = repository / "a.deb"
    subprocess.run(["dpkg-deb", "-Znone", "-b", str(tree), str(package)], check=True, capture_output=True)
    content = package.read_bytes()
    sums = f"Filename: ./a.deb\nSize: {len(content)}\nSHA256: {hashlib.sha256(content).hexdigest()}\n"
    (repository / "Packages").write_text(f"{control}{sums}Description: a sample\n")
    (tmp_path / "sources.list").write_text(f"deb [trusted=yes] file:{repository} ./\n")
    (tmp_path / "state/lists/partial").mkdir(parents=True)
    (tmp_path / "parts").mkdir()
    (tmp_path / "apt.conf").write_text(
        f'Dir::Etc::sourcelist "{tmp_path}/sources.list";\nDir::Etc::sourceparts "{tmp_path}/parts";\n'
        f'Dir::State "{tmp_path}/state";\nDir::Cache "{tmp_path}/apt-cache";\n'
    )
    monkeypatch.setenv("APT_CONFIG", str(tmp_path / "apt.conf"))
    return repository


@needs_apt
@pytest.mark.usefixtures("repository")
def test_apt_with_empty_lists_fetches_the_package_without_touching_its_own_folders(tmp_path: Path) -> None:
    target = tmp_path / "cache" / "a-sample"
    fetch_debian_package(SAMPLE_PACKAGE, target, ignore)
    assert sorted(path.name for path in target.iterdir()) == sorted(f"{name}.gz" for name in IDX_NAMES)
    assert read_idx_folder(target, "mend", dataset_spec("fashion_mnist_sample").idx_sha256)
    assert [path.name for path in target.parent.iterdir()] == ["a-sample"]
    assert list((tmp_path / "state/lists").iterdir()) == [tmp_path / "state/lists/partial"]


@needs_apt
def test_a_server_that_is_gone_is_apt_s_reason(repository: Path, tmp_path: Path) -> None:
    (repository / "Packages").unlink()
    with pytest.raises(LenetKerasError, match=r"E: .*dataset-a-sample.*\(apt-get update: .*repository"):
        fetch_debian_package(SAMPLE_PACKAGE, tmp_path / "cache/a-sample", ignore)
    assert list((tmp_path / "cache").iterdir()) == []


def test_of_what_apt_prints_the_reasons_are_chosen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # As apt does with no name server: `update` only warns and ends with 0.
    script(
        tmp_path / "bin",
        "apt-get",
        'case "$*" in\n'
        '*update) echo "W: Failed to fetch: no name server"; echo "W: Some index files failed";;\n'
        '*) echo "N: noise"; echo "E: no such package"; exit 100;;\n'
        "esac >&2",
    )
    script(tmp_path / "bin", "dpkg-deb", "exit 1")
    monkeypatch.setenv("PATH", str(tmp_path / "bin"), prepend=os.pathsep)
    reason = r"^E: no such package \(apt-get update: W: Failed to fetch: no name server\)$"
    with pytest.raises(LenetKerasError, match=reason):
        fetch_debian_package(SAMPLE_PACKAGE, tmp_path / "cache/a-sample", ignore)


@needs_apt
def test_a_package_without_the_files_is_refused(repository: Path, tmp_path: Path) -> None:
    tree = tmp_path / "tree/usr/share/datasets/a-sample"
    (tree / "train-labels-idx1-ubyte.gz").unlink()
    (repository / "Packages").unlink()
    package = subprocess.run(
        ["dpkg-deb", "-Znone", "-b", str(tmp_path / "tree"), str(repository / "a.deb")], check=True, capture_output=True
    )
    assert package.returncode == 0
    script(tmp_path / "bin", "apt-get", f"cp {repository}/a.deb .")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", str(tmp_path / "bin"), prepend=os.pathsep)
        with pytest.raises(LenetKerasError, match=r"a\.deb holds no train-labels-idx1-ubyte\.gz"):
            fetch_debian_package(SAMPLE_PACKAGE, tmp_path / "cache/a-sample", ignore)
    assert list((tmp_path / "cache").iterdir()) == []


def test_without_apt_it_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(LenetKerasError, match="this machine has no apt-get and no dpkg-deb"):
        fetch_debian_package(SAMPLE_PACKAGE, tmp_path / "cache/a-sample", ignore)


def test_a_fetch_that_is_killed_leaves_nothing_that_looks_complete(
    tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    os.mkfifo(tmp_path / "begun")
    script(tmp_path / "bin", "apt-get", f"echo half > half.deb; echo > {tmp_path}/begun; exec sleep 600")
    script(tmp_path / "bin", "dpkg-deb", "exit 1")
    monkeypatch.setenv("PATH", str(tmp_path / "bin"), prepend=os.pathsep)
    code = (
        "import pathlib; from lenet_keras.data import dataset_spec, remote; "
        f"remote.fetch_debian_package(dataset_spec('fashion_mnist'), pathlib.Path({str(home)!r}, 'files'), print)"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(folders.__file__).parents[2])}
    process = subprocess.Popen([sys.executable, "-c", code], env=environment, start_new_session=True)
    (tmp_path / "begun").read_text()  # returns when apt-get has begun
    os.killpg(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert [path.name for path in home.iterdir() if not path.name.startswith(".")] == []
