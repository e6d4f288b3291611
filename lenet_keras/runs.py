"""A run folder: the record of one training run, written by one process at a time. `evaluate` and `export` read it."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lenet_keras.config import TrainConfig
from lenet_keras.errors import (
    InvalidArgument,
    LenetKerasError,
    NotARunFolder,
    RunDamaged,
    RunExists,
    RunNotFound,
    RunUnfinished,
    excerpt,
)
from lenet_keras.files import is_own_lock, is_temporary, locked, remove_temporary, write_atomically
from lenet_keras.paths import AnyPath, check_text, local_path
from lenet_keras.records import (
    history_csv,
    read_history,
    read_json,
    read_metrics,
    read_predictions,
    write_json,
    write_predictions,
)

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

PROGRAM = "lenet-keras"
CONFIG_FORMAT = 1
LOCK_NAME = ".lock"
FILES = ("metrics.json", "history.csv", "model.keras", "test_predictions.npz", "state.npz",
         "state.previous.npz", "config.json")  # fmt: skip
EVENT_FOLDERS = ("train", "validation", "test", "weights")  # TensorBoard's runs, besides the run folder itself
# What file systems, version control and file managers put into a folder by themselves.
_MEANINGLESS = frozenset(
    {"lost+found", ".gitkeep", ".keep", ".DS_Store", ".directory", "Thumbs.db", "desktop.ini", "@eaDir", ".snapshot",
     ".Trashes", ".fseventsd", ".Spotlight-V100", "System Volume Information", "$RECYCLE.BIN"}
)  # fmt: skip


def default_run_dir(config: TrainConfig) -> Path:
    """Return `runs/<dataset>/<reg>/<seed>`, relative to the current folder.

    >>> default_run_dir(TrainConfig(reg="dropout", seed=1)).as_posix()
    'runs/fashion_mnist/dropout/1'
    """
    return Path("runs") / config.dataset.replace("/", "_") / config.reg / str(config.seed)


def event_files(folder: Path) -> list[Path]:
    """Return the event files in `folder`, in the order in which TensorBoard reads them: by name.

    >>> event_files(Path("no such folder"))
    []
    """
    return sorted(folder.glob("events.out.tfevents.*"))


class RunFolder:
    """The files of a run; each is replaced atomically. Anything else in the folder is left alone."""

    def __init__(self, path: AnyPath) -> None:
        """Take `path` as a run folder. Nothing is read or created yet.

        Raises:
            InvalidArgument: it is a URL, or begins with an unknown home directory.
        """
        self.path = folder = local_path(path)
        self.config_json = folder / "config.json"
        self.history_csv = folder / "history.csv"
        self.metrics_json = folder / "metrics.json"
        self.model_keras = folder / "model.keras"
        self.test_predictions_npz = folder / "test_predictions.npz"

    @property
    def is_run(self) -> bool:
        """Whether this program, of this version or another, started a run here: its config.json says so."""
        try:
            self.read_record()
        except LenetKerasError:
            return False
        return True

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
            NotARunFolder: the path holds something else than a run.
            RunInUse: another process is training here; the message names it.
            OSError: the folder cannot be written to.
        """
        self._check_own()
        created = [folder for folder in (self.path, *self.path.parents) if not folder.exists()]
        self.path.mkdir(parents=True, exist_ok=True)
        lock = self.path / LOCK_NAME
        is_new = not lock.exists()
        try:
            with locked(lock):
                remove_temporary(self.path, FILES)
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
        for name in FILES:
            if name != self.config_json.name:
                (self.path / name).unlink(missing_ok=True)
        for file in event_files(self.path):
            file.unlink()
        for folder in (self.path / name for name in EVENT_FOLDERS):
            if folder.is_symlink():  # what it points to is not the run's
                folder.unlink()
                continue
            for file in event_files(folder):
                file.unlink()
            with contextlib.suppress(OSError):  # it does not exist, or holds something else
                folder.rmdir()
        self.write_config(config, record)

    def check_vacant(self, overwrite: bool) -> None:
        """Check that a run may start here.

        Raises:
            RunExists: there is already a run, and `overwrite` is false.
            NotARunFolder: the folder holds something else.
        """
        self._check_own()
        if self.is_run and not overwrite:
            state = "a finished" if self.is_finished else "an unfinished"
            other = "" if self.read_record()["format"] == CONFIG_FORMAT else f" of another version of {PROGRAM}"
            raise RunExists(f"{self.path} already holds {state} run{other}.")

    def _check_own(self) -> None:
        """Raise `NotARunFolder` if the folder holds anything that a run would be in the way of, or the reverse."""
        check_text(self.path)
        if not os.path.lexists(self.path):
            return
        if not self.path.is_dir():
            raise NotARunFolder(f"{self.path} exists but is not a run folder.")
        if os.path.lexists(self.config_json):
            try:
                self.read_record()
            except LenetKerasError as error:
                raise NotARunFolder(str(error)) from error
        elif (foreign := next(self._foreign(self.path), None)) is not None:
            raise NotARunFolder(f"{self.path} exists but is not a run folder: it holds {foreign}.")
        for name in (*FILES, LOCK_NAME):
            if (path := self.path / name).is_dir() and not path.is_symlink():
                raise NotARunFolder(f"{path} is a folder, where a run has a file.")
        for name in EVENT_FOLDERS:
            if os.path.lexists(path := self.path / name) and not path.is_dir():
                raise NotARunFolder(f"{path} is a file, where a run has a folder.")

    def _foreign(self, folder: Path) -> Iterator[str]:
        """Yield the names in `folder` of what means something and no run has written."""
        for path in folder.iterdir():
            # A process killed before it had written config.json leaves its lock and its temporary files.
            is_left = folder == self.path and (
                is_temporary(path, FILES) or (path.name == LOCK_NAME and is_own_lock(path))
            )
            if path.name in _MEANINGLESS or is_left:
                continue
            if path.is_symlink() or not path.is_dir() or not os.access(path, os.R_OK | os.X_OK):
                yield str(path.relative_to(self.path))
            else:
                yield from self._foreign(path)

    def write_config(self, config: TrainConfig, record: Mapping[str, Any]) -> None:
        """Write config.json."""
        write_json(
            self.config_json, {"program": PROGRAM, "format": CONFIG_FORMAT, "settings": config.to_json(), **record}
        )

    def read_config(self) -> TrainConfig:
        """Read the settings of the run.

        Raises:
            RunNotFound: there is no run here.
            RunDamaged: config.json cannot be read.
            LenetKerasError: config.json has the format of another version.
        """
        content = self.read_record()
        if content["format"] != CONFIG_FORMAT:
            raise LenetKerasError(
                f"{self.config_json} was written by another version of {PROGRAM}: it has format "
                f"{excerpt(content['format'])}, this version reads {CONFIG_FORMAT}. Use the version that wrote it."
            )
        try:
            return TrainConfig.from_json(content["settings"])
        except KeyError as error:
            raise RunDamaged(f"{self.config_json} is damaged: it has no settings.") from error
        except InvalidArgument as error:
            raise RunDamaged(f"{self.config_json} is damaged: {error}") from error

    def read_record(self) -> dict[str, Any]:
        """Read all of config.json, in the format of any version of this program.

        Raises:
            RunNotFound: there is no run here, or none that can be told from another program's files.
        """
        if not self.config_json.is_file():
            cause = "config.json is not a file" if os.path.lexists(self.config_json) else "it has no config.json"
            raise RunNotFound(f"{self.path} is not a run folder: {cause}.")
        try:
            content = read_json(self.config_json)
        except RunDamaged as error:
            raise RunNotFound(f"{self.path} is not known to be a run folder: {error}") from error
        if content.get("program") != PROGRAM or "format" not in content:
            raise RunNotFound(f"{self.path} is not a run folder: {PROGRAM} did not write its config.json.")
        return content

    def write_history(self, rows: Sequence[Mapping[str, float]]) -> None:
        """Write history.csv, as `history_csv` returns it."""
        write_atomically(self.history_csv, history_csv(rows))

    def read_history(self) -> list[dict[str, float | None]]:
        """Read history.csv, as `lenet_keras.records.read_history` does."""
        return read_history(self.history_csv)

    def write_predictions(self, labels: NDArray[np.int64], probabilities: NDArray[np.float32]) -> None:
        """Write test_predictions.npz: the classes [N] of the test images, and their probabilities [N, classes]."""
        write_predictions(self.test_predictions_npz, labels, probabilities)

    def read_predictions(self) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Read test_predictions.npz, as `lenet_keras.records.read_predictions` does."""
        return read_predictions(self.test_predictions_npz)

    def write_metrics(self, metrics: Mapping[str, Any]) -> None:
        """Write metrics.json."""
        write_json(self.metrics_json, metrics)

    def read_metrics(self) -> dict[str, Any]:
        """Read metrics.json.

        Raises:
            RunUnfinished: it does not exist yet.
            RunDamaged: it cannot be read, or a metric is missing.
        """
        if not self.is_finished:
            raise RunUnfinished(f"{self.path} is not finished: it has no metrics.json.")
        return read_metrics(self.metrics_json)
