"""What the runs of a comparison found, read from their folders, and written as two CSV files."""

from __future__ import annotations

import csv
import dataclasses
import io
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lenet_keras.config import TrainConfig
from lenet_keras.errors import InvalidArgument
from lenet_keras.files import write_atomically
from lenet_keras.paths import AnyPath
from lenet_keras.runs import RunFolder

RESULT_COLUMNS = (
    "variant",
    "seed",
    "epochs",
    "best_epoch",
    "parameters",
    "train_accuracy_during",
    "train_loss",
    "train_accuracy",
    "validation_loss",
    "validation_accuracy",
    "test_loss",
    "test_accuracy",
    "seconds",
    "run",
)


@dataclass(frozen=True, eq=False)
class Result:
    """A finished run.

    Attributes:
        variant: the name of its variant.
        path: its folder.
        config: its settings.
        record: its config.json, which names versions and the processor.
        metrics: its metrics.json.
        history: a row for each epoch, as in `lenet_keras.runs.HISTORY_COLUMNS`; None where a cell is empty.
        labels: int64 [N], the classes of the test images.
        probabilities: float32 [N, classes], of the test images, dropout off.
    """

    variant: str
    path: Path
    config: TrainConfig
    record: dict[str, Any]
    metrics: dict[str, Any]
    history: list[dict[str, float | None]]
    labels: NDArray[np.int64]
    probabilities: NDArray[np.float32]

    @property
    def is_correct(self) -> NDArray[np.bool_]:
        """Whether each test image is classified correctly, bool [N]."""
        return np.asarray(self.probabilities.argmax(axis=1) == self.labels)

    @property
    def train_accuracy_during(self) -> float:
        """The training accuracy as it accumulated during the last epoch: dropout on, the weights changing."""
        return float(self.history[-1]["accuracy"] or 0.0)

    @property
    def seconds(self) -> float:
        """The time of all epochs, in seconds; it depends on what else the machine was doing."""
        return sum(row["seconds"] or 0.0 for row in self.history)


def read_result(path: AnyPath, variant: str | None = None) -> Result:
    """Read a finished run; without a name, its variant is called after its regularisation.

    Raises:
        RunNotFound, RunUnfinished, RunDamaged: there is no finished run, or its files are damaged.
    """
    folder = RunFolder(path)
    config, record, metrics = folder.read_config(), folder.read_record(), folder.read_metrics()
    labels, probabilities = folder.read_predictions()
    return Result(
        variant=config.reg if variant is None else variant,
        path=folder.path,
        config=config,
        record=record,
        metrics=metrics,
        history=folder.read_history(),
        labels=labels,
        probabilities=probabilities,
    )


def by_variant(results: Sequence[Result]) -> dict[str, list[Result]]:
    """Return the results of each variant, in the order in which variants appear.

    >>> by_variant([])
    {}
    """
    found: dict[str, list[Result]] = {}
    for result in results:
        found.setdefault(result.variant, []).append(result)
    return found


def check_comparable(results: Sequence[Result]) -> None:
    """Check that results can be compared.

    Raises:
        InvalidArgument: there are none, their datasets or test images differ, or a variant has a seed twice or runs
            with different settings.
    """
    if not results:
        raise InvalidArgument("there is no finished run to compare")
    first = results[0]
    seen: dict[tuple[str, int], Result] = {}
    for result in results:
        if result.config.dataset != first.config.dataset or not np.array_equal(result.labels, first.labels):
            raise InvalidArgument(
                f"runs on different datasets cannot be compared: {first.path} is on {first.config.dataset}, "
                f"{result.path} on {result.config.dataset}"
            )
        alike = next((other for other in seen.values() if other.variant == result.variant), result)
        wanted = dataclasses.replace(result.config, seed=alike.config.seed)
        if differences := alike.config.differences(wanted):
            raise InvalidArgument(
                f"{alike.path} and {result.path} are both {result.variant}, with different settings "
                f"({'; '.join(differences)})"
            )
        key = (result.variant, result.config.seed)
        if key in seen:
            raise InvalidArgument(
                f"{seen[key].path} and {result.path} are both {result.variant} with seed {result.config.seed}"
            )
        seen[key] = result


def write_results(path: Path, results: Sequence[Result]) -> None:
    """Write a row for each run: accuracies as fractions, losses in nats, columns `RESULT_COLUMNS`.

    The folder of a run is named as seen from the file, so that both can be moved together.

    Raises:
        OSError: the file cannot be written.
    """
    rows = []
    for result in results:
        row: dict[str, Any] = {
            "variant": result.variant,
            "seed": result.config.seed,
            **{name: result.metrics[name] for name in ("epochs", "best_epoch", "parameters")},
            "train_accuracy_during": result.train_accuracy_during,
            "seconds": round(result.seconds, 1),
            "run": Path(os.path.relpath(result.path, path.parent)).as_posix(),
        }
        for split in ("train", "validation", "test"):
            for name, value in (result.metrics[split] or {}).items():
                row[f"{split}_{name}"] = value
        rows.append(row)
    _write_csv(path, RESULT_COLUMNS, rows)


def write_epochs(path: Path, results: Sequence[Result]) -> None:
    """Write a row for each epoch of each run: variant, seed, and the columns of history.csv.

    Raises:
        OSError: the file cannot be written.
    """
    columns = ("variant", "seed", *results[0].history[0])
    rows = [
        {"variant": result.variant, "seed": result.config.seed, **row} for result in results for row in result.history
    ]
    _write_csv(path, columns, rows)


def _write_csv(path: Path, columns: Sequence[str], rows: Sequence[dict[str, Any]]) -> None:
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_atomically(path, text.getvalue().encode())
