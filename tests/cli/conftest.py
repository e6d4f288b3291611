"""The command in a process of its own, without a terminal: the installed one, or forked to save seconds."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from ..forked import Forked

Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(autouse=True, scope="session")
def nothing_is_ignored() -> None:
    """Let no process inherit ignored signals: a shell starts background processes, perhaps this suite, without Ctrl-C.

    A handler, unlike SIG_IGN, does not outlive exec. `preexec_fn` would make Python fork with gRPC alive in this
    process, whose fork handlers abort some of the children.
    """
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, lambda *_: None)


@pytest.fixture(scope="session")
def lenet_keras() -> str:
    """The path of the command in this environment."""
    found = shutil.which("lenet-keras", path=str(Path(sys.executable).parent))
    assert found, "install the package first: pip install -e '.[test]'"
    return found


@pytest.fixture(scope="session")
def run() -> Run:
    """Call the command with arguments, in a folder; return the finished process with its text."""

    def call(*arguments: str | Path, cwd: Path) -> subprocess.CompletedProcess[str]:
        process = Forked(arguments, cwd=cwd, env={**os.environ, "COLUMNS": "100"})
        with process.stdout as out, process.stderr as err, ThreadPoolExecutor(1) as reader:
            errors = reader.submit(err.read)
            text = out.read()
            return subprocess.CompletedProcess(["lenet-keras"], process.wait(), text, errors.result())

    return call


@pytest.fixture(scope="session")
def trained(
    lenet_keras: str, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, subprocess.CompletedProcess[str]]:
    """A folder where the installed command trained once with defaults on the sample, and that process."""
    work = tmp_path_factory.mktemp("user")
    options = ["--dataset", "fashion_mnist_sample", "--epochs", "2", "--reg", "weight_decay"]
    environment = {**os.environ, "COLUMNS": "100"}
    return work, subprocess.run(
        [lenet_keras, "train", *options], cwd=work, env=environment, capture_output=True, text=True, check=False
    )
