"""How TensorFlow is set up in this process, and a record of what it runs on."""

from __future__ import annotations

import contextlib
import os
import platform
import shlex
import subprocess
import sys
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

PACKAGES = ("lenet-keras", "tensorflow", "keras", "numpy", "tensorflow-datasets", "tensorboard")


def load_tensorflow(verbose: bool = False) -> None:
    """Import TensorFlow, set up for a model of LeNet-5's size. It has no effect if TensorFlow is already imported.

    The settings are environment variables that TensorFlow reads during its import; those that the user has already set
    are kept.

    oneDNN: TensorFlow enables its kernels by default only on processors with AVX-512 VNNI or newer. On others,
    LeNet-5's first convolution, with one channel, is six to thirteen times slower without them (docs/speed.md).
    Threads: one within an operation, so that results are bit-identical whatever the number of cores. LeNet-5's
    operations are so small that a second thread gains little or nothing (docs/speed.md).

    Args:
        verbose: whether to keep TensorFlow's own log messages.

    Raises:
        ImportError: TensorFlow is not installed or does not run on this processor.
    """
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
    os.environ.setdefault("TF_NUM_INTRAOP_THREADS", "1")
    if verbose:
        import tensorflow

        return
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    with muted_stderr():
        import tensorflow  # noqa: F401


@contextlib.contextmanager
def muted_stderr() -> Iterator[None]:
    """Discard whatever the body writes to stderr, even from C++.

    Some of TensorFlow's libraries write before they have read TF_CPP_MIN_LOG_LEVEL, and bypass sys.stderr.
    """
    sys.stderr.flush()
    kept = os.dup(2)
    try:
        with Path(os.devnull).open("wb") as sink:
            os.dup2(sink.fileno(), 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


def versions() -> dict[str, str]:
    """Return the versions of Python and of the packages that a result depends on.

    >>> sorted(versions())[:3]
    ['keras', 'lenet-keras', 'numpy']
    """
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:  # run from a checkout that is not installed
            found[package] = "not installed"
    return found


def command() -> str:
    """Return the command line of this process, quoted for a shell."""
    return shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]])


def processor() -> str:
    """Return the processor's name, with its number of `cores`."""
    name = platform.processor() or platform.machine()
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        name = next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        pass
    return f"{name}, {cores()} cores"


def cores() -> int:
    """Return how many processor cores this process may use.

    >>> cores() >= 1
    True
    """
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def git_commit() -> str | None:
    """Return the commit of the checkout that this package runs from, with "-dirty" if there are local changes.

    Returns:
        None outside a checkout.
    """
    answer = subprocess.run(
        ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"],
        capture_output=True,
        text=True,
        check=False,
    )
    return answer.stdout.strip() or None
