"""A stand-alone program that trains in child processes and kills each at a random instant, until a run is finished.

    python kill_and_resume.py FOLDER REG... [--kills N] [--seed S]

Runs of each variant are trained in FOLDER until N processes were killed; each finished run is compared with an
uninterrupted one, file by file. Children are forked from a process that has imported TensorFlow but not used it, which
saves the seconds of the import. It prints a line of JSON per variant: the number of kills, what they interrupted, and
the number of runs compared; a difference is an error.
"""

import argparse
import dataclasses
import json
import os
import random
import signal
import time
import traceback
from collections import Counter
from pathlib import Path
from typing import NoReturn

from lenet_keras import TrainConfig, runtime

runtime.load_tensorflow()

import keras  # noqa: E402
import numpy as np  # noqa: E402

from lenet_keras.checkpoint import StateStore  # noqa: E402
from lenet_keras.files import is_temporary  # noqa: E402
from lenet_keras.runs import RunFolder  # noqa: E402
from lenet_keras.training.train import train  # noqa: E402

EPOCHS = 8


class Report(keras.callbacks.Callback):
    """Tells the parent through a pipe that the training is running."""

    def __init__(self, pipe: int) -> None:
        super().__init__()
        self._pipe = pipe

    def on_epoch_begin(self, epoch: int, logs: object = None) -> None:
        os.write(self._pipe, b".")


def train_in_child(settings: TrainConfig, run_dir: Path) -> tuple[int, int]:
    """Start a training; return the child, and a pipe that becomes readable in the first epoch."""
    readable, writable = os.pipe()
    child = os.fork()
    if child == 0:
        _train_and_exit(settings, run_dir, writable)
    os.close(writable)
    return child, readable


def _train_and_exit(settings: TrainConfig, run_dir: Path, pipe: int) -> NoReturn:
    try:
        train(settings, run_dir, resume="auto", callbacks=[Report(pipe)])
    except BaseException:
        traceback.print_exc()
        os._exit(1)
    os._exit(0)


def state_of(run_dir: Path) -> dict[str, object]:
    """Return everything that must not differ: all variables, the best ones, history, progress, metrics; no times."""
    state = StateStore(run_dir).read()
    assert state is not None
    times = {"seconds", "images_per_second"}
    arrays = {**state.variables, **{f"best {name}": value for name, value in state.best.items()}}
    rows = [line.split(",")[:6] for line in (run_dir / "history.csv").read_text().splitlines()]
    return {
        "arrays": {name: (value.dtype.str, value.shape, value.tobytes()) for name, value in arrays.items()},
        "history": [{name: row[name] for name in row if name not in times} for row in state.history],
        "rows": rows,
        "step": state.progress.step,
        "metrics": RunFolder(run_dir).read_metrics(),
        "model": [weight.tobytes() for weight in _model_weights(run_dir)],
    }


def _model_weights(run_dir: Path) -> list[np.ndarray]:
    # Read without Keras, which would start TensorFlow's threads in this process, which forks.
    import zipfile

    import h5py

    weights = []
    with zipfile.ZipFile(run_dir / "model.keras") as archive, archive.open("model.weights.h5") as file:
        h5py.File(file).visititems(lambda _, item: weights.append(item[()]) if isinstance(item, h5py.Dataset) else None)
    return weights


def place_of(run_dir: Path, progress: object) -> str:
    """Return what a kill interrupted, judging by what it left behind."""
    if any(is_temporary(path) for path in run_dir.iterdir()):
        return "while a file was written"
    if RunFolder(run_dir).is_finished or progress == EPOCHS:
        return "after the last epoch"
    return "in training"


def kill_and_compare(folder: Path, reg: str, kills: int, seed: int) -> dict[str, object]:
    """Kill trainings of a variant and compare their runs with an uninterrupted one."""
    chance = random.Random(seed)
    settings = TrainConfig(
        dataset="fashion_mnist_sample", reg=reg, epochs=EPOCHS, batch_size=16, learning_rate=3e-3, seed=seed,
        early_stopping=4,
    )  # fmt: skip
    child, pipe = train_in_child(settings, folder / "uninterrupted")
    os.read(pipe, 1)
    start = time.monotonic()
    assert os.waitpid(child, 0)[1] == 0
    duration = time.monotonic() - start
    expected = state_of(folder / "uninterrupted")

    places: Counter[str] = Counter()
    compared = 0
    while places.total() < kills:
        run_dir = folder / str(compared)
        while True:
            # Saved after every step, so that many kills interrupt the writing.
            child, pipe = train_in_child(dataclasses.replace(settings, checkpoint_steps=1), run_dir)
            os.read(pipe, 1)  # returns at the end of the child as well
            os.close(pipe)
            if places.total() < kills:
                time.sleep(chance.uniform(0, duration / 3))
                os.kill(child, signal.SIGKILL)
            status = os.waitpid(child, 0)[1]
            if os.WIFEXITED(status):
                assert os.WEXITSTATUS(status) == 0
                break
            state = StateStore(run_dir).read()
            places[place_of(run_dir, state and len(state.history))] += 1
        found = state_of(run_dir)
        for part, value in expected.items():
            assert found[part] == value, f"{run_dir}: {part} differs"
        compared += 1
    return {"reg": reg, "kills": places.total(), "interrupted": dict(places), "runs": compared}


def main() -> None:
    """Kill and compare each variant; print a line of JSON for it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="for the runs")
    parser.add_argument("reg", nargs="+", help="variants")
    parser.add_argument("--kills", type=int, default=10, help="of each variant")
    parser.add_argument("--seed", type=int, default=0, help="of the runs and of the instants")
    arguments = parser.parse_args()
    for reg in arguments.reg:
        print(json.dumps(kill_and_compare(arguments.folder / reg, reg, arguments.kills, arguments.seed)), flush=True)


if __name__ == "__main__":
    main()
