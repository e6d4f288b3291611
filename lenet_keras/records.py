"""The files of a run, as they are written and read: history.csv, metrics.json, test_predictions.npz, JSON in general.

What is read may come from a stranger, and is taken for what it is only after a check.
"""

from __future__ import annotations

import csv
import io
import json
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import NoneType
from typing import TYPE_CHECKING, Any

from lenet_keras.errors import RunDamaged, first_line, is_number
from lenet_keras.files import check_unpacked_size, read_bounded, replacing, write_atomically

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_LARGEST_JSON = 2**20  # bytes; a run's are a few thousand
_LARGEST_HISTORY = 2**24  # bytes; a row has some hundred
_LARGEST_PREDICTIONS = 2**27  # bytes; those of EMNIST's largest test set have 30 million
HISTORY_COLUMNS = (
    "epoch",
    "loss",
    "accuracy",
    "val_loss",
    "val_accuracy",
    "test_loss",
    "test_accuracy",
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


def history_csv(rows: Sequence[Mapping[str, float]]) -> bytes:
    """Return the content of history.csv: a row per epoch, columns `HISTORY_COLUMNS`, empty where not measured.

    >>> history_csv([{"epoch": 1, "loss": 0.5}]).splitlines()[1]
    b'1,0.5,,,,,,,,'
    """
    text = io.StringIO()
    writer = csv.DictWriter(text, HISTORY_COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().encode()


def read_history(path: Path) -> list[dict[str, float | None]]:
    """Read a history.csv; None where a cell is empty.

    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     path = Path(folder, "history.csv")
    ...     write_atomically(path, history_csv([{"epoch": 1, "loss": 0.5}]))
    ...     read_history(path)[0]["loss"]
    0.5

    Raises:
        RunDamaged: it is missing, cannot be read, or holds no epoch.
    """
    try:
        text = read_bounded(path, _LARGEST_HISTORY).decode()
        head, *lines = csv.reader(io.StringIO(text, newline=""))
        rows = [{name: float(cell) if cell else None for name, cell in zip(head, line, strict=True)} for line in lines]
        if head != list(HISTORY_COLUMNS) or any(row["epoch"] is None for row in rows):
            raise ValueError("a column is missing")
    except OSError as error:
        raise RunDamaged(f"{path} cannot be read: {error.strerror}") from error
    except (ValueError, csv.Error) as error:
        raise RunDamaged(f"{path} is damaged: {first_line(error)}") from error
    if not rows:
        raise RunDamaged(f"{path} is damaged: it holds no epoch.")
    return rows


def write_predictions(path: Path, labels: NDArray[np.int64], probabilities: NDArray[np.float32]) -> None:
    """Write the classes of the test images, [N] from 0 to 255, and a model's probabilities, [N, classes].

    >>> import numpy as np
    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     path = Path(folder, "test_predictions.npz")
    ...     write_predictions(path, np.array([1]), np.array([[0.25, 0.75]], np.float32))
    ...     read_predictions(path)
    (array([1]), array([[0.25, 0.75]], dtype=float32))

    Raises:
        OSError: the file cannot be written.
    """
    import numpy as np

    with replacing(path) as temporary:
        np.savez_compressed(temporary, labels=labels.astype(np.uint8), probabilities=probabilities)


def read_predictions(path: Path) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Read what `write_predictions` wrote: labels int64 [N] and probabilities float32 [N, classes].

    Raises:
        RunDamaged: it is missing, cannot be read, or does not hold both.
    """
    import numpy as np

    try:
        content = io.BytesIO(read_bounded(path, _LARGEST_PREDICTIONS))
        with zipfile.ZipFile(content) as archive:
            check_unpacked_size(archive, _LARGEST_PREDICTIONS)
        with np.load(content, allow_pickle=False) as found:
            labels, probabilities = found["labels"].astype(np.int64), found["probabilities"]
    except Exception as error:  # damage raises OSError, ValueError, KeyError, BadZipFile, zlib.error
        raise RunDamaged(f"{path} cannot be read: {first_line(error)}") from error
    if (labels.ndim, probabilities.ndim, len(labels)) != (1, 2, len(probabilities)) or not (
        labels.size and probabilities.dtype == np.float32 and labels.max() < probabilities.shape[1]
    ):
        raise RunDamaged(f"{path} is damaged: labels and probabilities do not fit together.")
    return labels, probabilities


def read_metrics(path: Path) -> dict[str, Any]:
    """Read a metrics.json.

    Raises:
        RunDamaged: it cannot be read, or a metric is missing.
    """
    metrics = read_json(path)
    for name, types in METRICS.items():
        if name not in metrics or not isinstance(metrics[name], types):
            raise RunDamaged(f"{path} is damaged: {name} is missing or of the wrong type.")
    for split in ("train", "validation", "test"):
        if metrics[split] is not None and not all(_is_figure(metrics[split].get(x)) for x in ("loss", "accuracy")):
            raise RunDamaged(f"{path} is damaged: {split} has no loss or no accuracy.")
    return metrics


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write a JSON object for people and programs.

    Raises:
        OSError: the file cannot be written.
    """
    write_atomically(path, (json.dumps(content, indent=2) + "\n").encode())


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object.

    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     write_json(Path(folder, "a.json"), {"a": 1})
    ...     read_json(Path(folder, "a.json"))
    {'a': 1}

    Raises:
        RunDamaged: it cannot be read, or holds something else.
    """
    try:
        content = json.loads(read_bounded(path, _LARGEST_JSON))
    except (OSError, ValueError, RecursionError) as error:
        raise RunDamaged(f"{path} cannot be read: {first_line(error)}") from error
    if not isinstance(content, dict):
        raise RunDamaged(f"{path} is damaged: expected a JSON object.")
    return content


def _is_figure(value: object) -> bool:
    # Any float: a model whose logits are too large for float32 has a loss of NaN.
    return isinstance(value, float) or is_number(value)
