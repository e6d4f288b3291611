"""Trainings side by side, each in one of a few processes: the parent that starts and follows them, and the child.

A child trains one run after another, so that it imports TensorFlow once. It gets each job as a line of JSON on stdin,
and answers on stdout with a line for every message. Its stdin stays open until the parent ends, however it ends; a
child that loses its parent saves its state and ends as well.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from pathlib import Path
from typing import IO, Any

from lenet_keras.comparison.plan import PlannedRun
from lenet_keras.config import TrainConfig
from lenet_keras.errors import LenetKerasError
from lenet_keras.paths import AnyPath
from lenet_keras.runtime import cores, load_tensorflow, settle_keras

# A child writes its state within a second of SIGTERM, except while it compiles, imports or fetches data.
_GRACE = 15.0  # seconds
_DRIVER = Path("/proc/driver/nvidia/gpus")  # NVIDIA's, on Linux
_RUNS_OF_A_CHILD = 20  # TensorFlow keeps 10 MB of each: the graphs of loops are never freed

Listener = Callable[[PlannedRun, float, bool], None]
Places = Sequence[Mapping[str, str]]  # environment variables for each training that there is room for

logger = logging.getLogger(__name__)


def places_for(jobs: int | None = None) -> Places:
    """Return the places for trainings: one for each GPU, else one for each core.

    A training on a CPU uses one thread: LeNet-5's operations are so small that two processes of one thread each train
    more images per second than one process of two (docs/speed.md).

    >>> places_for(2)
    [{'CUDA_VISIBLE_DEVICES': '-1'}, {'CUDA_VISIBLE_DEVICES': '-1'}]

    Args:
        jobs: how many places, on GPUs in turn if there are any; None: as many as there are GPUs or cores.
    """
    gpus = _gpus() or ["-1"]
    count = jobs or (cores() if gpus == ["-1"] else len(gpus))
    return [{"CUDA_VISIBLE_DEVICES": gpus[index % len(gpus)]} for index in range(count)]


def train_side_by_side(
    runs: Sequence[PlannedRun],
    places: Places,
    listener: Listener,
    data_dir: AnyPath | None = None,
) -> None:
    """Train the runs in their order, as many at a time as there are places; unfinished ones are resumed.

    Args:
        runs: what to train.
        places: as `places_for` returns them.
        listener: called with a run, the number of its epochs trained so far, and whether it is finished; by several
            threads, one at a time.
        data_dir: the folder that holds the dataset, as in `lenet_keras.data.load.load`.

    Raises:
        LenetKerasError: a training failed, and the others were stopped; the message names it. All can be resumed.
        KeyboardInterrupt: passed on, after all trainings have saved their states and ended.
    """
    children = _Children(runs, listener, data_dir)
    with ThreadPoolExecutor(len(places)) as pool:
        futures = [pool.submit(children.train_at, place) for place in places[: len(runs)]]
        try:
            for future in wait(futures, return_when=FIRST_EXCEPTION).done:
                future.result()
        except BaseException:
            children.stop()
            pool.shutdown(wait=True)
            raise


class _Stopped(LenetKerasError):
    """A child was stopped since another training failed, or by Ctrl-C."""


class _Children:
    def __init__(self, runs: Sequence[PlannedRun], listener: Listener, data_dir: AnyPath | None) -> None:
        self._left = iter(runs)
        self._listener = listener
        self._data_dir = data_dir
        self._lock = threading.Lock()
        self._running: set[subprocess.Popen[str]] = set()
        self._is_stopping = False

    def train_at(self, place: Mapping[str, str]) -> None:
        """Train runs until none is left."""
        run = self._next()
        while run:
            # A file, since a pipe that nobody reads would stop the child once it is full.
            with tempfile.TemporaryFile("w+", errors="replace") as errors, self._started(place, errors) as child:
                trained = 0
                while run and trained < _RUNS_OF_A_CHILD:
                    self._train(run, child, errors)
                    run, trained = self._next(), trained + 1

    def _next(self) -> PlannedRun | None:
        with self._lock:
            return next(self._left, None)

    def _train(self, run: PlannedRun, child: subprocess.Popen[str], errors: IO[str]) -> None:
        job = {
            "settings": run.config.to_json(),
            "run_dir": str(run.run_dir),
            "data_dir": self._data_dir and str(self._data_dir),
            "argv": sys.argv,
        }
        assert child.stdin is not None
        assert child.stdout is not None
        with contextlib.suppress(BrokenPipeError):  # it has ended; its exit code tells
            child.stdin.write(json.dumps(job) + "\n")
            child.stdin.flush()
        for line in child.stdout:
            answer: dict[str, Any] = json.loads(line)
            if "error" in answer:
                raise LenetKerasError(f"{run.name}: {answer['error']}")
            with self._lock:
                self._listener(run, answer["epochs"], answer["is_finished"])
            if answer["is_finished"]:
                return
        code = child.wait()
        if self._is_stopping:
            raise _Stopped(f"{run.name} was stopped.")
        errors.seek(0)
        last = next((line for line in reversed(errors.read().splitlines()) if line.strip()), "no message")
        cause = f"exit code {code}" if code >= 0 else signal.Signals(-code).name
        raise LenetKerasError(f"{run.name}: the process of this training ended with {cause}: {last}")

    def stop(self) -> None:
        """End all children: first with SIGTERM, upon which they save their states."""
        with self._lock:
            self._is_stopping = True
            running = list(self._running)
        for child in running:
            child.terminate()
        deadline = time.monotonic() + _GRACE
        for child in running:
            try:
                child.wait(max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                child.kill()

    @contextlib.contextmanager
    def _started(self, place: Mapping[str, str], errors: IO[str]) -> Iterator[subprocess.Popen[str]]:
        with self._lock:
            if self._is_stopping:
                raise _Stopped("not started")
            child = subprocess.Popen(
                [sys.executable, "-m", __name__],
                env={**os.environ, "TF_NUM_INTEROP_THREADS": "1", **place},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                start_new_session=True,  # Ctrl-C in a terminal is for the parent, which stops its children in order
            )
            self._running.add(child)
        with child:
            try:
                yield child
            finally:
                if child.poll() is None:
                    child.kill()  # idle, unless something failed here
                self._running.discard(child)


def _gpus() -> list[str]:
    # Those that TensorFlow can use: a driver alone is not enough. To ask it here would take a part of their memory.
    given = os.environ.get("CUDA_VISIBLE_DEVICES")
    if not given and not _DRIVER.is_dir():
        return []
    program = "import tensorflow as tf; print(len(tf.config.list_physical_devices('GPU')))"
    asked = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    count = int(asked.stdout)
    return given.split(",")[:count] if given else [str(index) for index in range(count)]


def _child() -> None:
    jobs: queue.SimpleQueue[dict[str, Any] | None] = queue.SimpleQueue()
    stop = threading.Event()

    def end(*_: object) -> None:
        stop.set()
        jobs.put(None)

    def follow_parent() -> None:
        for line in sys.stdin:
            jobs.put(json.loads(line))
        end()

    signal.signal(signal.SIGTERM, end)
    threading.Thread(target=follow_parent, daemon=True).start()
    messages = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # whatever else writes to stdout must not be taken for a message

    def say(**message: object) -> None:
        messages.write(json.dumps(message) + "\n")

    settle_keras()
    load_tensorflow()
    from lenet_keras.backend import keras
    from lenet_keras.training.train import train

    class Reporter(keras.callbacks.Callback):  # type: ignore[misc]  # Keras ships no types
        def on_epoch_begin(self, epoch: int, logs: object = None) -> None:  # noqa: ARG002
            self.epoch = epoch

        def on_train_batch_end(self, batch: int, logs: object = None) -> None:  # noqa: ARG002
            say(epochs=self.epoch + (batch + 1) / self.params["steps"], is_finished=False)
            if stop.is_set():
                raise KeyboardInterrupt

    while job := jobs.get():
        sys.argv = job["argv"]  # the run records the command that was typed
        config = TrainConfig.from_json(job["settings"])
        try:
            train(config, job["run_dir"], data_dir=job["data_dir"], resume="auto", callbacks=[Reporter()])
        except (LenetKerasError, OSError) as error:
            where = f"{error.filename}: " if isinstance(error, OSError) and error.filename else ""
            reason = (isinstance(error, OSError) and error.strerror) or str(error)
            say(error=f"{where}{reason}")
            sys.exit(1)
        except KeyboardInterrupt:
            sys.exit(128 + signal.SIGTERM)
        say(epochs=config.epochs, is_finished=True)


if __name__ == "__main__":
    _child()
