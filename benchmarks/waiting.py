"""How long a user waits for each command, in seconds.

    python benchmarks/waiting.py [--project ../earlier] [--rounds 5]

Each command is a process of its own, started as from a terminal, on the full Fashion-MNIST, which is on the disk:

- `import tensorflow, keras`, with Matplotlib and pandas, which Keras imports if they are there: the commands do not
- `--help`
- `train`, until its first 50 steps are done
- `train`, from the end of its last epoch to the end of the command: measuring, figures, saving and the verified export
- `export` of a finished run, with the verification
- `predict` on one picture

With --project, the commands of another copy of this project take turns with these: an earlier version.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from peers import machine

PROJECT = Path(__file__).parent.parent
PICTURE = str(PROJECT / "docs" / "ankle_boot.png")

COMMAND = """
import pathlib, sys
package = "lenet_keras_cli" if pathlib.Path(sys.argv[1], "lenet_keras_cli").exists() else "cli"
del sys.argv[1]
main = __import__(f"{package}.main", fromlist=["main"]).main
main(prog_name="lenet-keras")
"""

FIRST_STEPS = """
import os, pathlib, sys
from lenet_keras import runtime
runtime.settle_keras()
runtime.load_tensorflow()
import keras
from lenet_keras import TrainConfig, train

class First(keras.callbacks.Callback):
    def on_train_batch_end(self, batch, logs=None):
        os._exit(0)

train(TrainConfig(epochs=1), pathlib.Path(sys.argv[1]) / "first", callbacks=[First()])
"""


class Version:
    """A copy of the project, whose commands are measured."""

    def __init__(self, project: Path, folder: Path) -> None:
        """Train a run in `folder` to begin with."""
        self._project, self._folder = project, folder
        self._environment = {**os.environ, "PYTHONPATH": str(project)}
        self._run("train", "--epochs", "1", "--no-export", "--run-dir", "run")
        self._trainings = 0

    def figures(self) -> dict[str, float]:
        """Measure each wait once."""
        waits: dict[str, Callable[[], object]] = {
            "import tensorflow, keras": lambda: self._call([sys.executable, "-c", "import tensorflow, keras"]),
            "--help": lambda: self._run("--help"),
            "train, until its first 50 steps": self._first_steps,
            "export": lambda: self._run("export", "run", "--export-dir", "exports"),
            "predict": lambda: self._run("predict", "--model", "run", PICTURE),
        }
        seconds = {}
        for name, wait in waits.items():
            start = time.perf_counter()
            wait()
            seconds[name] = time.perf_counter() - start
        return {**seconds, "train, after its last epoch": self._after_the_last_epoch()}

    def _run(self, *arguments: str) -> None:
        self._call(self._command(*arguments))

    def _call(self, command: list[str]) -> None:
        subprocess.run(command, cwd=self._folder, env=self._environment, check=True, capture_output=True)

    def _command(self, *arguments: str) -> list[str]:
        return [sys.executable, "-c", COMMAND, str(self._project), *arguments]

    def _first_steps(self) -> None:
        with tempfile.TemporaryDirectory() as folder:
            self._call([sys.executable, "-c", FIRST_STEPS, folder])

    def _after_the_last_epoch(self) -> float:
        self._trainings += 1
        command = self._command(
            "train", "--epochs", "1", "--run-dir", f"run{self._trainings}", "--export-dir", "exports"
        )
        process = subprocess.Popen(
            command,
            cwd=self._folder,
            env=self._environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert process.stderr is not None
        for line in process.stderr:
            if line.startswith("epoch 1/1"):
                start = time.perf_counter()
        if process.wait():
            sys.exit(f"{self._project}: train failed")
        return time.perf_counter() - start


def main() -> None:
    """Measure the versions in turn, and print medians."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--project", type=Path, help="another copy of the project")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        versions = {}
        for name, project in {"this version": PROJECT, "the other": options.project}.items():
            if project:
                place = Path(folder, name)
                place.mkdir()
                versions[name] = Version(project.resolve(), place)
        measured: dict[str, list[dict[str, float]]] = {name: [] for name in versions}
        for _ in range(options.rounds):
            for name, version in versions.items():
                measured[name].append(version.figures())
    print(f"{machine()}; medians of {options.rounds} rounds")
    print(f"{'seconds':34}" + "".join(f"{name:>26}" for name in versions))
    for wait in measured["this version"][0]:
        print(f"{wait:34}", end="")
        for rounds in measured.values():
            values = [figures[wait] for figures in rounds]
            print(f"{statistics.median(values):8.2f} ({min(values):.2f} to {max(values):.2f})".rjust(26), end="")
        print()


if __name__ == "__main__":
    sys.path.insert(0, str(PROJECT))
    main()
