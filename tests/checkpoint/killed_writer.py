"""A stand-alone program that writes states in child processes, and kills each at another instant.

    python killed_writer.py FOLDER

Python reports each opening, renaming and removal of a file to an audit hook, where the writer kills itself: in the
first child at the first of them, and so on. It prints how many epochs the state that remains has, a line per instant,
until a child finishes.
"""

import os
import signal
import sys
from itertools import count
from pathlib import Path

import numpy as np

from lenet_keras.checkpoint import StateStore, TrainingState


def state(epoch: int) -> TrainingState:
    """Return the state after that many epochs."""
    return TrainingState({"000:kernel": np.full(100, epoch, np.float32)}, [{"epoch": 1.0}] * epoch)


def write_until_killed(folder: Path, instant: int) -> None:
    """Write two states over that of the first epoch, up to the given file operation."""
    left = instant

    def hook(event: str, arguments: tuple[object, ...]) -> None:
        nonlocal left
        if event in ("open", "os.rename", "os.remove") and any(str(folder) in str(value) for value in arguments):
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            left -= 1

    sys.addaudithook(hook)
    store = StateStore(folder)
    store.read()
    store.write(state(2))
    store.write(state(3))


for instant in count():
    folder = Path(sys.argv[1], str(instant))
    folder.mkdir()
    StateStore(folder).write(state(1))
    child = os.fork()
    if child == 0:
        write_until_killed(folder, instant)
        os._exit(0)
    status = os.waitpid(child, 0)[1]
    left = StateStore(folder).read()
    assert left is not None
    print(len(left.history))
    if os.WIFEXITED(status):
        assert os.WEXITSTATUS(status) == 0
        break
    assert os.WTERMSIG(status) == signal.SIGKILL
