"""A run folder: the record of one training run, written by one process at a time. `evaluate` and `export` read it."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import os
import platform
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import NoneType
from typing import Any

from filelock import lock_descriptor

from lenet_keras.config import TrainConfig
from lenet_keras.errors import (
    InvalidArgument,
    LenetKerasError,
    NotARunFolder,
    RunDamaged,
    RunExists,
    RunInUse,
    RunNotFound,
    RunUnfinished,
    excerpt,
    first_line,
    is_number,
)
from lenet_keras.files import is_temporary, remove, remove_temporary, write_atomically

LOCK_NAME = ".lock"
CONFIG_FORMAT = 1
HISTORY_COLUMNS = (
    "epoch",
    "loss",
    "accuracy",
    "val_loss",
    "val_accuracy",
    "learning_rate",
    "seconds",
    "images_per_second",
)
METRICS: Mapping[str, tuple[type, ...]] = {
    "dataset": (str,),
    "reg": (str,),
    "seed": (int,),
    "train": (dict,),
    "validation": (dict, NoneType),
    "test": (dict,),
    "epochs": (int,),
    "best_epoch": (int, NoneType),
    "parameters": (int,),
    "export": (str, NoneType),
}


def default_run_dir(config: TrainConfig) -> Path:
    """Return `runs/<dataset>/<reg>/<seed>`, relative to the current folder.

    >>> default_run_dir(TrainConfig(reg="dropout", seed=1)).as_posix()
    'runs/fashion_mnist/dropout/1'
    """
    return Path("runs") / config.dataset.replace("/", "_") / config.reg / str(config.seed)


class RunFolder:
    """The files of a run; each is replaced atomically."""

    def __init__(self, path: Path) -> None:
        """Take `path` as a run folder. Nothing is read or created yet."""
        self.path = path
        self.config_json = path / "config.json"
        self.history_csv = path / "history.csv"
        self.metrics_json = path / "metrics.json"
        self.model_keras = path / "model.keras"

    @property
    def is_run(self) -> bool:
        """Whether a run was started here."""
        return self.config_json.is_file()

    @property
    def is_finished(self) -> bool:
        """Whether the run here has its final metrics, which are written last, except for the export."""
        return self.metrics_json.is_file()

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other processes out of the folder, which is created if it is missing.

        The lock is the operating system's, on the file `.lock`: a process releases it when it ends, however it ends.
        What the file says about its holder is for people. If no run is started in the end, everything created is
        removed again.

        Raises:
            NotARunFolder: a file of that name exists.
            RunInUse: another process is training here; the message names it.
            OSError: the folder cannot be written to.
        """
        if self.path.exists() and not self.path.is_dir():
            raise NotARunFolder(f"{self.path} exists but is not a run folder.")
        created = [folder for folder in (self.path, *self.path.parents) if not folder.exists()]
        self.path.mkdir(parents=True, exist_ok=True)
        lock = self.path / LOCK_NAME
        is_new = not lock.exists()
        try:
            with _locked(lock):
                remove_temporary(self.path)
                try:
                    yield
                finally:
                    if is_new and not self.is_run:
                        lock.unlink(missing_ok=True)
        finally:
            with contextlib.suppress(OSError):  # not empty: a run was started
                for folder in created:
                    folder.rmdir()

    def start(self, config: TrainConfig, record: Mapping[str, Any]) -> None:
        """Remove an earlier run, and write config.json: the settings, and `record`, what else is known about the run.

        A process killed at any instant leaves the earlier run, unfinished, or the new one: metrics.json, which marks a
        run as finished, is removed first, and config.json is replaced last. Call it with the lock held.
        """
        self.metrics_json.unlink(missing_ok=True)
        for path in sorted(self.path.iterdir()):
            if path != self.config_json and path.name != LOCK_NAME:
                remove(path)
        self.write_config(config, record)

    def check_vacant(self, overwrite: bool) -> None:
        """Check that a run may start here.

        Raises:
            RunExists: there is already a run, and `overwrite` is false.
            NotARunFolder: the folder holds something else.
        """
        if self.is_run and not overwrite:
            raise RunExists(f"{self.path} already holds {'a finished' if self.is_finished else 'an unfinished'} run.")
        if not self.is_run and not self._is_empty():
            raise NotARunFolder(f"{self.path} exists but is not a run folder.")

    def _is_empty(self) -> bool:
        if not self.path.is_dir():
            return not self.path.exists()
        # A process killed before it had written config.json leaves its lock and its temporary files.
        return all(is_temporary(path) or path.name == LOCK_NAME for path in self.path.iterdir())

    def write_config(self, config: TrainConfig, record: Mapping[str, Any]) -> None:
        """Write config.json."""
        _write_json(self.config_json, {"format": CONFIG_FORMAT, "settings": config.to_json(), **record})

    def read_config(self) -> TrainConfig:
        """Read the settings of the run.

        Raises:
            RunNotFound: there is no run here.
            RunDamaged: config.json cannot be read.
            LenetKerasError: config.json has the format of another version.
        """
        content = self.read_record()
        if content.get("format") != CONFIG_FORMAT:
            raise LenetKerasError(
                f"{self.config_json} has format {excerpt(content.get('format'))}, this version reads {CONFIG_FORMAT}. "
                "Use the version of lenet-keras that wrote it."
            )
        try:
            return TrainConfig.from_json(content["settings"])
        except KeyError as error:
            raise RunDamaged(f"{self.config_json} is damaged: it has no settings.") from error
        except InvalidArgument as error:
            raise RunDamaged(f"{self.config_json} is damaged: {error}") from error

    def read_record(self) -> dict[str, Any]:
        """Read all of config.json.

        Raises:
            RunNotFound: there is no run here.
            RunDamaged: config.json cannot be read.
        """
        if not self.is_run:
            raise RunNotFound(f"{self.path} is not a run folder: it has no config.json.")
        return _read_json(self.config_json)

    def write_history(self, rows: Sequence[Mapping[str, float]]) -> None:
        """Write history.csv: a row per epoch, columns `HISTORY_COLUMNS`; without validation images, two are empty."""
        text = io.StringIO()
        writer = csv.DictWriter(text, HISTORY_COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        write_atomically(self.history_csv, text.getvalue().encode())

    def write_metrics(self, metrics: Mapping[str, Any]) -> None:
        """Write metrics.json."""
        _write_json(self.metrics_json, metrics)

    def read_metrics(self) -> dict[str, Any]:
        """Read metrics.json.

        Raises:
            RunUnfinished: it does not exist yet.
            RunDamaged: it cannot be read, or a metric is missing.
        """
        if not self.is_finished:
            raise RunUnfinished(f"{self.path} is not finished: it has no metrics.json.")
        metrics = _read_json(self.metrics_json)
        for name, types in METRICS.items():
            if name not in metrics or not isinstance(metrics[name], types):
                raise RunDamaged(f"{self.metrics_json} is damaged: {name} is missing or of the wrong type.")
        for split in ("train", "validation", "test"):
            if metrics[split] is not None and not all(_is_figure(metrics[split].get(x)) for x in ("loss", "accuracy")):
                raise RunDamaged(f"{self.metrics_json} is damaged: {split} has no loss or no accuracy.")
        return metrics


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    descriptor = _open_and_lock(path)
    try:
        now = time.strftime("%Y-%m-%d %H:%M:%S")
        try:
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, f"process {os.getpid()} on {platform.node()} since {now}\n".encode(), 0)
        except OSError as error:  # a descriptor has no path that the error could name
            raise OSError(error.errno, error.strerror, str(path)) from error
        try:
            yield
        finally:
            os.ftruncate(descriptor, 0)
    finally:
        os.close(descriptor)


def _open_and_lock(path: Path) -> int:
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            if not lock_descriptor(descriptor, blocking=False):
                holder = os.pread(descriptor, 200, 0).decode(errors="replace").strip() or "another process"
                raise RunInUse(f"{path.parent} is in use by {holder}.")
            with contextlib.suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(descriptor), path.stat()):
                    return descriptor
            # Its last holder removed it between our two calls.
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)


def _is_figure(value: object) -> bool:
    # Any float: a model whose logits are too large for float32 has a loss of NaN.
    return isinstance(value, float) or is_number(value)


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    write_atomically(path, (json.dumps(content, indent=2) + "\n").encode())


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise RunDamaged(f"{path} cannot be read: {first_line(error)}") from error
    if not isinstance(content, dict):
        raise RunDamaged(f"{path} is damaged: expected a JSON object.")
    return content
