"""Names and places: `<export folder>/<model name>/<version>/`, the layout that TensorFlow Serving reads."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

DEFAULT_EXPORT_DIR = Path("exported_models")

_DEFAULT_DATASET = "fashion_mnist"
# TensorFlow Serving reads a version as a signed 64-bit integer; up to 18 digits always fit.
_VERSION = re.compile("[0-9]{1,18}")
_LABELS = Path("assets", "labels.txt")


def model_name(reg: tuple[str, ...], dataset: str) -> str:
    """Name the folder of a variant's versions: `lenet5_none`, `lenet5_dropout_weight_decay`, `lenet5_none_mnist`.

    Every data set but the full Fashion-MNIST is in the name, so that a model of another set, or of a sample, is never
    served as a newer version of the real one.
    """
    parts = ["lenet5", *(reg or ("none",))]
    if dataset != _DEFAULT_DATASET:
        parts.append(dataset.replace("/", "_"))
    return "_".join(parts)


def version_folders(model_dir: Path) -> list[Path]:
    """List the version folders of a model, ascending; other names are ignored, as TensorFlow Serving does.

    Raises:
        OSError: the folder does not exist or cannot be read.
    """
    numbered = (child for child in model_dir.iterdir() if _VERSION.fullmatch(child.name))
    return sorted(numbered, key=lambda child: int(child.name))


def model_folders(export_dir: Path) -> list[Path]:
    """List the folders of the models in `export_dir` that have a version, by name; dot-named ones are ignored.

    Raises:
        OSError: the folder does not exist or cannot be read.
    """
    folders = sorted(child for child in export_dir.iterdir() if child.is_dir() and not child.name.startswith("."))
    return [folder for folder in folders if version_folders(folder)]


def write_labels(saved_model: Path, class_names: Sequence[str]) -> None:
    """Write the class names beside the graph, one a line in the order of the classes (UTF-8)."""
    file = saved_model / _LABELS
    file.parent.mkdir(exist_ok=True)
    file.write_text("".join(f"{name}\n" for name in class_names), encoding="utf-8")


def read_labels(saved_model: Path) -> tuple[str, ...]:
    """Read what `write_labels` wrote.

    Raises:
        OSError: the file is missing or cannot be read.
        UnicodeDecodeError: the file is not UTF-8.
    """
    return tuple((saved_model / _LABELS).read_text(encoding="utf-8").split("\n")[:-1])
