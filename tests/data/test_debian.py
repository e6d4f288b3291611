"""Fetching the Debian package with the real apt, from a repository on disk; only apt's failures are simulated."""

from __future__ import annotations

import dataclasses
import hashlib
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from lenet_keras.data.catalogue import dataset_spec
from lenet_keras.data.debian import apt_problem, fetch_debian_package
from lenet_keras.data.idx import IDX_NAMES, read_idx_folder
from lenet_keras.data.load import SAMPLE_FOLDER
from lenet_keras.errors import DatasetNotFound

from .conftest import PACKAGE_ROOT, script

needs_apt = pytest.mark.skipif(apt_problem() is not None, reason=f"needs apt-get and dpkg-deb: {apt_problem()}")
SAMPLE_PACKAGE = dataclasses.replace(dataset_spec("fashion_mnist"), debian_package="dataset-a-sample")


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give apt empty lists and a single source: a folder with one package, of the sample's files."""
    tree, repository = tmp_path / "tree", tmp_path / "repository"
    repository.mkdir()
    shutil.copytree(SAMPLE_FOLDER, tree / "usr/share/datasets/a-sample")
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
    fetch_debian_package(SAMPLE_PACKAGE, target)
    assert sorted(path.name for path in target.iterdir()) == sorted(f"{name}.gz" for name in IDX_NAMES)
    assert read_idx_folder(target, "remedy", dataset_spec("fashion_mnist_sample").idx_sha256)
    assert [path.name for path in target.parent.iterdir()] == ["a-sample"]
    assert list((tmp_path / "state/lists").iterdir()) == [tmp_path / "state/lists/partial"]


@needs_apt
def test_an_unreachable_server_is_reported_as_apt_reports_it(repository: Path, tmp_path: Path) -> None:
    (repository / "Packages").unlink()
    with pytest.raises(DatasetNotFound, match=r"E: .*dataset-a-sample.*\(apt-get update: .*repository"):
        fetch_debian_package(SAMPLE_PACKAGE, tmp_path / "cache/a-sample")
    assert list((tmp_path / "cache").iterdir()) == []


def test_only_the_reasons_are_taken_from_what_apt_prints(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Like apt without a name server: `update` only warns and ends with 0.
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
    with pytest.raises(DatasetNotFound, match=reason):
        fetch_debian_package(SAMPLE_PACKAGE, tmp_path / "cache/a-sample")


@needs_apt
def test_a_package_without_the_files_is_rejected(repository: Path, tmp_path: Path) -> None:
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
        with pytest.raises(DatasetNotFound, match=r"a\.deb holds no train-labels-idx1-ubyte\.gz"):
            fetch_debian_package(SAMPLE_PACKAGE, tmp_path / "cache/a-sample")
    assert list((tmp_path / "cache").iterdir()) == []


def test_a_machine_without_apt_is_reported(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(DatasetNotFound, match="this machine has no apt-get and no dpkg-deb"):
        fetch_debian_package(SAMPLE_PACKAGE, tmp_path / "cache/a-sample")


def test_a_fetch_that_is_killed_leaves_nothing_that_looks_complete(
    tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    os.mkfifo(tmp_path / "started")
    script(tmp_path / "bin", "apt-get", f"echo half > half.deb; echo > {tmp_path}/started; exec sleep 600")
    script(tmp_path / "bin", "dpkg-deb", "exit 1")
    monkeypatch.setenv("PATH", str(tmp_path / "bin"), prepend=os.pathsep)
    code = (
        "import pathlib; from lenet_keras.data.catalogue import dataset_spec; "
        "from lenet_keras.data.debian import fetch_debian_package; "
        f"fetch_debian_package(dataset_spec('fashion_mnist'), pathlib.Path({str(home)!r}, 'files'))"
    )
    environment = {**os.environ, "PYTHONPATH": str(PACKAGE_ROOT)}
    process = subprocess.Popen([sys.executable, "-c", code], env=environment, start_new_session=True)
    (tmp_path / "started").read_text()  # returns when apt-get has started
    os.killpg(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert [path.name for path in home.iterdir() if not path.name.startswith(".")] == []
