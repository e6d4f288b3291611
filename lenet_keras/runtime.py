"""How TensorFlow is set up in this process, and a record of what it runs on."""

from __future__ import annotations

import contextlib
import os
import platform
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

_PROJECT = re.compile(r'^name = "lenet-keras"$', re.MULTILINE)  # in pyproject.toml
_GIT_TIMEOUT = 10.0  # seconds; git answers in milliseconds, if the file system does

PACKAGES = ("lenet-keras", "tensorflow", "keras", "numpy", "tensorflow-datasets", "tensorboard")

# Keras 3 on TensorFlow, as it is without any settings.
_KERAS = {
    "KERAS_BACKEND": "tensorflow",
    "KERAS_HOME": os.devnull,  # where no keras.json can be, and Keras makes none
    "KERAS_NNX_ENABLED": "false",
    "TF_USE_LEGACY_KERAS": "0",
}
_OTHER_KERAS = ("KERAS_MAX_EPOCHS", "KERAS_MAX_STEPS_PER_EPOCH")  # of no use here, and Keras fails if not a number

# What Keras imports if it is installed, for functions that no program of ours calls: a quarter of the time in which
# TensorFlow is imported.
_OPTIONAL = ("matplotlib", "pandas")
_is_program = False


def settle_keras() -> None:
    """Have this process and those that it starts import Keras on TensorFlow, with Keras's own defaults.

    For a program of our own: what a user has set for other programs, in the environment or in keras.json, must not
    change or end a training. In this process, `load_tensorflow` also leaves out what only a user's program may need.
    Call it before Keras is imported.
    """
    global _is_program
    _is_program = True
    os.environ.update(_KERAS)
    for name in _OTHER_KERAS:
        os.environ.pop(name, None)


def load_tensorflow(verbose: bool = False) -> None:
    """Import TensorFlow, set up for a model of LeNet-5's size. It has no effect if TensorFlow is already imported.

    The settings are environment variables that TensorFlow reads during its import; those that the user has already set
    are kept.

    oneDNN: TensorFlow enables its kernels by default only on processors with AVX-512 VNNI or newer. On others,
    LeNet-5's first convolution, with one channel, is six to thirteen times slower without them (docs/speed.md).
    Threads: one within an operation, so that results are bit-identical whatever the number of cores. LeNet-5's
    operations are so small that a second thread, which takes a core, makes training 1.2 times as fast at best
    (docs/speed.md).

    Args:
        verbose: whether to keep TensorFlow's own log messages.

    Raises:
        ImportError: TensorFlow is not installed or does not run on this processor.
    """
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
    os.environ.setdefault("TF_NUM_INTRAOP_THREADS", "1")
    if not verbose:
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    with _hidden(_OPTIONAL if _is_program else ()), contextlib.nullcontext() if verbose else muted_stderr():
        import tensorflow  # noqa: F401


@contextlib.contextmanager
def _hidden(modules: Sequence[str]) -> Iterator[None]:
    """Have imports of `modules` fail in the body, as if they were not installed, unless they are imported already."""
    hidden = [name for name in modules if name not in sys.modules]
    sys.modules.update(dict.fromkeys(hidden))  # type: ignore[arg-type]  # None means this to an import
    try:
        yield
    finally:
        for name in hidden:
            sys.modules.pop(name, None)


@contextlib.contextmanager
def muted_stderr() -> Iterator[None]:
    """Discard whatever the body writes to stderr, even from C++.

    Some of TensorFlow's libraries write before they have read TF_CPP_MIN_LOG_LEVEL, and bypass sys.stderr. A process
    whose stderr is closed has it on the null device from then on: otherwise the next file that is opened would receive
    its number, and TensorFlow's messages.
    """
    with contextlib.suppress(AttributeError, OSError, ValueError):  # there is no stderr; it is full; it is closed
        sys.stderr.flush()
    try:
        kept = os.dup(2)
    except OSError:
        kept = None
    try:
        sink = os.open(os.devnull, os.O_WRONLY)
        os.dup2(sink, 2)
        if sink != 2:
            os.close(sink)
        yield
    finally:
        if kept is not None:
            os.dup2(kept, 2)
            os.close(kept)


def versions() -> dict[str, str]:
    """Return the versions of Python and of the packages that a result depends on, as far as they can be told.

    >>> sorted(versions())[:3]
    ['keras', 'lenet-keras', 'numpy']
    """
    from importlib import metadata  # a quarter of the time of --help

    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = metadata.version(package) or "unknown"
        except metadata.PackageNotFoundError:  # run from a checkout that is not installed
            found[package] = "not installed"
        except Exception:  # damaged metadata raises nearly any type: OSError, UnicodeDecodeError, KeyError
            found[package] = "unknown"
    return found


def command() -> str:
    """Return the command line of this process, quoted for a shell."""
    program, *arguments = sys.argv or [""]  # a program that embeds Python may have none
    return shlex.join([Path(program).name, *arguments])


def processor() -> str:
    """Return the processor's name, with its number of `cores`."""
    name = platform.processor() or platform.machine()
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
        name = next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, IndexError, StopIteration):
        pass
    return f"{name}, {cores()} cores"


def cores() -> int:
    """Return how many processor cores this process may use.

    >>> cores() >= 1
    True
    """
    try:
        return len(os.sched_getaffinity(0))
    except (AttributeError, OSError):  # not on every system, and a sandbox may refuse it
        return os.cpu_count() or 1


def git_commit() -> str | None:
    """Return the commit of the checkout that this package runs from, with "-dirty" if there are local changes.

    Returns:
        None outside a checkout of this project, be it within another repository, or if git cannot be asked.
    """
    package = Path(__file__).resolve().parent
    # The user's variables may point git to another repository, such as that of a hook that started this process.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    environment["GIT_OPTIONAL_LOCKS"] = "0"

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(package), *arguments]
        answer = subprocess.run(
            command, env=environment, stdin=subprocess.DEVNULL, capture_output=True, timeout=_GIT_TIMEOUT, check=True
        )
        return os.fsdecode(answer.stdout).removesuffix("\n")

    try:
        # A copy in somebody's repository is not its root, or not beside this project's own pyproject.toml.
        if Path(git("rev-parse", "--show-toplevel")).resolve() != package.parent:
            return None
        if not _PROJECT.search(git("show", "HEAD:pyproject.toml")):
            return None
        return git("describe", "--always", "--dirty", "--abbrev=40", "--exclude=*")
    except (OSError, subprocess.SubprocessError):
        return None
