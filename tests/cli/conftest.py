"""The installed command, run as a user runs it: a process of its own, without a terminal."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(scope="session")
def lenet_keras() -> str:
    """The path of the command in this environment."""
    found = shutil.which("lenet-keras", path=str(Path(sys.executable).parent))
    assert found, "install the package first: pip install -e '.[test]'"
    return found


@pytest.fixture(scope="session")
def run(lenet_keras: str) -> Run:
    """Call the command with arguments, in a folder; returns the finished process with its text."""

    def call(*arguments: str | Path, cwd: Path) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [lenet_keras, *map(str, arguments)],
            cwd=cwd,
            capture_output=True,
            text=True,
            check=False,
            env={**os.environ, "COLUMNS": "100"},
        )

    return call


@pytest.fixture(scope="session")
def trained(run: Run, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, subprocess.CompletedProcess[str]]:
    """A folder where `lenet-keras train` ran once with defaults on the sample, and that process."""
    work = tmp_path_factory.mktemp("user")
    return work, run("train", "--dataset", "fashion_mnist_sample", "--epochs", "2", "--reg", "weight_decay", cwd=work)
