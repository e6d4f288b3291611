"""From a model to a file of another format: converted, run by its own runtime, compared, put in place."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from lenet_keras.data import Split, hold_out, load
from lenet_keras.data.catalogue import dataset_spec
from lenet_keras.errors import InvalidArgument, first_line
from lenet_keras.export import agreement
from lenet_keras.export.formats import FILE_FORMATS, check_extra
from lenet_keras.export.layout import DEFAULT_EXPORT_DIR, model_name
from lenet_keras.export.publish import check_request
from lenet_keras.export.verify import ExportError, model_probabilities
from lenet_keras.files import write_atomically
from lenet_keras.models.variants import check_choice, parse_reg
from lenet_keras.notices import Notify, ignore
from lenet_keras.run_folder import RunFolder
from lenet_keras.run_model import load_run_model

if TYPE_CHECKING:
    import keras

CALIBRATION_IMAGES = 500  # of 50, 500 and 2,000 none was better by more than 0.15 points
# A quantised model may lose so much of its accuracy, a fraction; more is a failure of the quantisation.
LARGEST_LOSS = 0.02
_SUFFIXES = {"litert": ".tflite", "onnx": ".onnx"}


@dataclass(frozen=True)
class FileExport:
    """A file that was published.

    Attributes:
        path: the file.
        accuracy: its own, on all test images, by its own runtime: a fraction.
        largest_difference: of any probability from the model's own.
        size: in bytes.
    """

    path: Path
    accuracy: float
    largest_difference: float
    size: int

    def to_json(self) -> dict[str, Any]:
        """As JSON values."""
        return {
            "export": str(self.path),
            "accuracy": self.accuracy,
            "largest_difference": self.largest_difference,
            "bytes": self.size,
        }


def export_run_file(
    run_dir: Path,
    file_format: str,
    export_dir: Path = DEFAULT_EXPORT_DIR,
    *,
    int8: bool = False,
    data_dir: Path | None = None,
    notify: Notify = ignore,
) -> FileExport:
    """Publish the model of the run in `run_dir` as `<export_dir>/<model>/<model>.tflite`, `.int8.tflite` or `.onnx`.

    TensorFlow Serving does not see it. Arguments are those of `export_run`; for `file_format` and `int8` see
    `export_file`. Calibration is done on training images that the model was trained on.

    Raises:
        InvalidArgument, LenetKerasError, OSError: as `export_file`; or there is no finished run, or its data set cannot
            be had.
    """
    folder = RunFolder(run_dir)
    config, metrics = folder.read_config(), folder.read_metrics()
    model = load_run_model(folder)
    dataset = load(config.dataset, data_dir, notify)
    trained_on, _ = hold_out(dataset.train, config.held_out, config.seed)
    name = model_name(parse_reg(config.reg), config.dataset)
    return export_file(
        model,
        export_dir / name / name,
        dataset_spec(config.dataset).class_names,
        dataset.test,
        file_format,
        accuracy=metrics["test"]["accuracy"],
        calibration=trained_on.images[:CALIBRATION_IMAGES] if int8 else None,
    )


def export_file(
    model: keras.Model,
    stem: Path,
    class_names: Sequence[str],
    test: Split,
    file_format: str,
    *,
    accuracy: float | None = None,
    calibration: npt.NDArray[np.uint8] | None = None,
) -> FileExport:
    """Convert `model`, run the result with its own runtime on `test`, compare, and put it in place by one rename.

    It takes `images` (float32, or uint8 if quantised, [N, height, width, 1], 0 to 255) and returns `probabilities`
    (float32 [N, classes]) and `class_id` (int64 [N]). An ONNX file holds the class names in its metadata; beside a
    LiteRT file they are in `labels.txt`.

    Args:
        model: maps pixels float32 0..255 to logits.
        stem: the file's path without its suffix; its folder is made if missing.
        class_names: one a class.
        test: real images with their labels, at least one.
        file_format: "litert" or "onnx".
        accuracy: the model's on `test`, as it was measured before; None: as it is now.
        calibration: for "litert": images to quantise to eight bits with, see `litert.convert`.

    Raises:
        InvalidArgument: no such format, quantisation for ONNX, or images or class names that do not fit the model.
        ExportError: the file disagrees with the model by more than 1e-5, or, if quantised, it lost more than two points
            of accuracy; or a file could not be written, temporary ones included.
        LenetKerasError: the extra for the format is not installed.
    """
    check_choice("format", file_format, FILE_FORMATS)
    if calibration is not None and file_format != "litert":
        raise InvalidArgument("int8 is for the format litert alone")
    check_extra(file_format)
    check_request(model, class_names, test.images)
    import tensorflow as tf

    from lenet_keras.export.formats import litert, onnx

    expected = model_probabilities(model, test.images)
    try:
        content = litert.convert(model, calibration) if file_format == "litert" else onnx.convert(model, class_names)
    except (OSError, tf.errors.OpError) as error:
        raise ExportError(f"cannot convert the model to {file_format}: {first_line(error)}") from error
    outputs = (litert if file_format == "litert" else onnx).run(content, test.images)
    try:
        if calibration is None:
            agreement.check_probabilities(file_format, outputs, expected)
            agreement.check_accuracy(outputs["class_id"], test.labels, expected, accuracy)
        else:
            _check_loss(outputs["class_id"], test.labels, expected)
    except agreement.Disagreement as error:
        raise ExportError(f"{error}: it was not published") from error
    path = stem.with_name(f"{stem.name}{'.int8' if calibration is not None else ''}{_SUFFIXES[file_format]}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if file_format == "litert":
            write_atomically(path.parent / "labels.txt", "".join(f"{name}\n" for name in class_names).encode())
        write_atomically(path, content)
    except OSError as error:
        raise ExportError(f"cannot write {path}: {error.strerror}") from error
    worst = float(np.abs(outputs["probabilities"] - expected).max())
    return FileExport(path, float((outputs["class_id"] == test.labels).mean()), worst, len(content))


def _check_loss(
    class_ids: npt.NDArray[np.int64], labels: npt.NDArray[np.int64], expected: npt.NDArray[np.float64]
) -> None:
    before, after = float((expected.argmax(axis=1) == labels).mean()), float((class_ids == labels).mean())
    if before - after > LARGEST_LOSS:
        raise agreement.Disagreement(
            f"in eight bits the accuracy on {len(labels):,} images is {after:.4f}, in float32 {before:.4f}"
        )
