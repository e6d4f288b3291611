"""A run folder: the record of one training, and all that `evaluate` and `export` need."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import NoneType
from typing import Any

from lenet_keras.config import TrainConfig
from lenet_keras.errors import InvalidArgument, LenetKerasError, first_line
from lenet_keras.files import is_unfinished, remove, remove_unfinished, write_atomically
from lenet_keras.models.variants import is_number, shown
from lenet_keras.run_lock import LOCK_NAME, locked

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
    """`runs/<dataset>/<reg>/<seed>`, under the current folder."""
    return Path("runs") / config.dataset.replace("/", "_") / config.reg / str(config.seed)


class RunFolder:
    """The files of a run, by name; each is written atomically."""

    def __init__(self, path: Path) -> None:
        """Take `path` as a run folder. Nothing is read or made yet."""
        self.path = path
        self.config_json = path / "config.json"
        self.history_csv = path / "history.csv"
        self.metrics_json = path / "metrics.json"
        self.model_keras = path / "model.keras"

    @property
    def is_run(self) -> bool:
        """Whether a run was begun here."""
        return self.config_json.is_file()

    @property
    def is_finished(self) -> bool:
        """Whether the run here has come to its final metrics, which are written last but for the export."""
        return self.metrics_json.is_file()

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other processes out of the folder, which is made if it is missing.

        Raises:
            LenetKerasError: another process trains here; the message names it.
            OSError: the folder cannot be written to.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        with locked(self.path):
            remove_unfinished(self.path)
            yield

    def begin(self, config: TrainConfig, record: Mapping[str, Any]) -> None:
        """Remove an earlier run, and write config.json: the settings and `record`, what else is known of the run.

        Killed at any instant, the folder holds the earlier run, unfinished, or the new one: `config.json` comes last,
        what says that the run is finished goes first. To be called with the lock held.
        """
        self.metrics_json.unlink(missing_ok=True)
        for path in sorted(self.path.iterdir()):
            if path != self.config_json and path.name != LOCK_NAME:
                remove(path)
        self.write_config(config, record)

    def check_vacant(self, overwrite: bool) -> None:
        """See whether a run may begin here.

        Raises:
            InvalidArgument: there is a run already and `overwrite` is false, or something that is no run.
        """
        if self.is_run and not overwrite:
            state = "a finished run" if self.is_finished else "a run"
            raise InvalidArgument(
                f"{self.path} holds {state}. Continue it with --resume, replace it with --overwrite, "
                "or name another folder with --run-dir."
            )
        if not self.is_run and not self._is_empty():
            raise InvalidArgument(f"{self.path} is there and is no run folder. Name another one with --run-dir.")

    def _is_empty(self) -> bool:
        if not self.path.is_dir():
            return not self.path.exists()
        # A process killed before it had written config.json leaves its lock, and what it was writing.
        return all(is_unfinished(path) or path.name == LOCK_NAME for path in self.path.iterdir())

    def write_config(self, config: TrainConfig, record: Mapping[str, Any]) -> None:
        """Write config.json."""
        _write_json(self.config_json, {"format": CONFIG_FORMAT, "settings": config.to_json(), **record})

    def read_config(self) -> TrainConfig:
        """The settings of the run.

        Raises:
            LenetKerasError: there is no run here, or its config.json is damaged or of a newer format.
        """
        if not self.is_run:
            raise LenetKerasError(f"{self.path} is no run folder: it has no config.json.")
        content = _read_json(self.config_json)
        if content.get("format") != CONFIG_FORMAT:
            raise LenetKerasError(
                f"{self.config_json} has format {shown(content.get('format'))}, this version reads {CONFIG_FORMAT}. "
                "Use the version of lenet-keras that wrote it."
            )
        try:
            return TrainConfig.from_json(content["settings"])
        except KeyError as error:
            raise LenetKerasError(f"{self.config_json} is damaged: it has no settings.") from error
        except InvalidArgument as error:
            raise LenetKerasError(f"{self.config_json} is damaged: {error}") from error

    def read_record(self) -> dict[str, Any]:
        """All of config.json."""
        return _read_json(self.config_json)

    def write_history(self, rows: Sequence[Mapping[str, float]]) -> None:
        """Write history.csv: a row an epoch, columns `HISTORY_COLUMNS`; without validation images its two are empty."""
        text = io.StringIO()
        writer = csv.DictWriter(text, HISTORY_COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        write_atomically(self.history_csv, text.getvalue().encode())

    def write_metrics(self, metrics: Mapping[str, Any]) -> None:
        """Write metrics.json."""
        _write_json(self.metrics_json, metrics)

    def read_metrics(self) -> dict[str, Any]:
        """The content of metrics.json.

        Raises:
            LenetKerasError: the run is not finished, or the file is damaged.
        """
        if not self.is_finished:
            raise LenetKerasError(f"{self.path} is not finished: it has no metrics.json. Continue it with --resume.")
        metrics = _read_json(self.metrics_json)
        for name, types in METRICS.items():
            if name not in metrics or not isinstance(metrics[name], types):
                raise LenetKerasError(f"{self.metrics_json} is damaged: it has no {name}, or one of a wrong type.")
        for split in ("train", "validation", "test"):
            if metrics[split] is not None and not all(_is_figure(metrics[split].get(x)) for x in ("loss", "accuracy")):
                raise LenetKerasError(f"{self.metrics_json} is damaged: {split} has no loss or no accuracy.")
        return metrics


def _is_figure(value: object) -> bool:
    # Every float: a model whose logits are too large for float32 has a loss of NaN.
    return isinstance(value, float) or is_number(value)


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    write_atomically(path, (json.dumps(content, indent=2) + "\n").encode())


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise LenetKerasError(f"{path} cannot be read: {first_line(error)}") from error
    if not isinstance(content, dict):
        raise LenetKerasError(f"{path} is damaged: a JSON object was expected.")
    return content
