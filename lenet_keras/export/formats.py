"""Exports for runtimes other than TensorFlow Serving: one file each, compared with the model in its own runtime.

Importing this module loads neither NumPy nor TensorFlow nor a runtime, so that a command line can offer the names.
"""

from __future__ import annotations

import importlib.util
import json
import os
import tempfile
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lenet_keras.errors import ExportError, InvalidArgument, LenetKerasError, check_choice, first_line
from lenet_keras.files import write_atomically
from lenet_keras.paths import AnyPath, local_path
from lenet_keras.runs import RunFolder
from lenet_keras.runtime import muted_stderr
from lenet_keras.serving.config import DEFAULT_EXPORT_DIR, check_replaceable, check_saved_model_path, model_name

if TYPE_CHECKING:
    import keras
    import numpy as np
    import numpy.typing as npt

    from lenet_keras.data.arrays import Split

# What each format needs in addition to this package's own requirements.
_RUNTIMES = {"litert": ("ai_edge_litert",), "onnx": ("tf2onnx", "onnxruntime")}
FILE_FORMATS = tuple(_RUNTIMES)
_SUFFIXES = {"litert": ".tflite", "onnx": ".onnx"}

CALIBRATION_IMAGES = 500  # of 50, 500 and 2,000 none was better by more than 0.15 points
LARGEST_LOSS = 0.02  # of accuracy, a fraction: a quantised model that loses more is a failure of the quantisation
OPSET = 17  # from 2022: every recent runtime reads it, and this model needs nothing newer

_IMAGES = "images"  # the name of the argument
_OUTPUTS = (b"probabilities", b"class_id")  # their names are in every file


@dataclass(frozen=True)
class FileExport:
    """A file that was published.

    Attributes:
        path: the file.
        accuracy: its own on all test images, in its own runtime: a fraction.
        largest_difference: of any probability from the model's own.
        size: in bytes.
    """

    path: Path
    accuracy: float
    largest_difference: float
    size: int

    def to_json(self) -> dict[str, Any]:
        """Return the attributes as JSON values."""
        return {
            "export": str(self.path),
            "accuracy": self.accuracy,
            "largest_difference": self.largest_difference,
            "bytes": self.size,
        }


def check_extra(file_format: str) -> None:
    """Raise `LenetKerasError` unless the packages that the format needs are installed.

    >>> check_extra("onnx")
    """
    missing = [name for name in _RUNTIMES[file_format] if importlib.util.find_spec(name) is None]
    if missing:
        raise LenetKerasError(
            f"the format {file_format} needs {' and '.join(missing)}: pip install 'lenet-keras[{file_format}]'"
        )


def export_run_file(
    run_dir: AnyPath,
    file_format: str,
    export_dir: AnyPath = DEFAULT_EXPORT_DIR,
    *,
    int8: bool = False,
    data_dir: AnyPath | None = None,
) -> FileExport:
    """Publish the model of the run in `run_dir` as `<export_dir>/<model>/<model>.tflite`, `.int8.tflite` or `.onnx`.

    TensorFlow Serving ignores it. For `file_format` and `int8`, see `export_file`; the other arguments are those of
    `export_run`. Calibration uses images that the model was trained on.

    Example::

        export_run_file(Path("runs/fashion_mnist/none/0"), "litert", int8=True).accuracy

    Raises:
        InvalidArgument, ExportError, LenetKerasError: as `export_file`.
        RunNotFound, RunUnfinished, RunDamaged: there is no finished run, or its files are damaged.
        DatasetNotFound, DatasetDamaged: the run's dataset cannot be loaded.
    """
    from lenet_keras.data.arrays import hold_out
    from lenet_keras.data.catalogue import dataset_spec
    from lenet_keras.data.load import load
    from lenet_keras.inference.run_model import load_run_model
    from lenet_keras.models import parse_reg

    folder = RunFolder(run_dir)
    config, metrics = folder.read_config(), folder.read_metrics()
    name = model_name(parse_reg(config.reg), config.dataset)
    stem = local_path(export_dir) / name / name
    _paths(stem, file_format, int8, dataset_spec(config.dataset).class_names)
    model = load_run_model(folder)
    dataset = load(config.dataset, data_dir)
    trained_on, _ = hold_out(dataset.train, config.held_out, config.seed)
    return export_file(
        model,
        stem,
        dataset.spec.class_names,
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
    """Convert `model`, run the result with its own runtime on `test`, compare, and publish it by one rename.

    It takes `images` (float32, or uint8 if quantised, [N, height, width, 1], 0 to 255) and returns `probabilities`
    (float32 [N, classes]) and `class_id` (int64 [N]). An ONNX file holds the class names in its metadata; those of a
    LiteRT file are in `labels.txt` next to it.

    Args:
        model: maps pixels float32 0..255 to logits.
        stem: the file's path without its suffix; its folder is created if missing.
        class_names: one per class.
        test: real images with their labels, at least one.
        file_format: "litert" or "onnx".
        accuracy: the model's on `test`, as it was measured before, on any device; None: it was not.
        calibration: for "litert": images to quantise to eight bits with, see `to_litert`.

    Raises:
        InvalidArgument: no such format, quantisation for ONNX, images or class names that do not fit the model, or a
            file that would be replaced although no export has written it.
        ExportError: the file disagrees with the model by more than 1e-5, or, if quantised, it lost more than two points
            of accuracy; or a file, temporary ones included, could not be written.
        LenetKerasError: the extra for the format is not installed.
    """
    check_choice("format", file_format, FILE_FORMATS)
    if calibration is not None and file_format != "litert":
        raise InvalidArgument("int8 is for the format litert only")
    check_extra(file_format)

    import numpy as np
    import tensorflow as tf

    from lenet_keras.export.publish import check_examples
    from lenet_keras.export.verify import Disagreement, check_accuracy, check_classes, model_probabilities

    check_examples(model, class_names, test.images)
    path, labels = _paths(stem, file_format, calibration is not None, class_names)
    expected = model_probabilities(model, test.images)
    try:
        content = to_litert(model, calibration) if file_format == "litert" else to_onnx(model, class_names)
    except (OSError, tf.errors.OpError) as error:
        raise ExportError(f"cannot convert the model to {file_format}: {first_line(error)}") from error
    outputs = (run_litert if file_format == "litert" else run_onnx)(content, test.images)
    after = float((outputs["class_id"] == test.labels).mean())
    try:
        if calibration is None:
            check_classes(file_format, outputs, expected, None)
            if accuracy is not None:
                check_accuracy(expected, test.labels, accuracy)
        elif (before := float((expected.argmax(axis=1) == test.labels).mean())) - after > LARGEST_LOSS:
            raise Disagreement(
                f"in eight bits the accuracy on {len(test):,} images is {after:.4f}, in float32 {before:.4f}"
            )
    except Disagreement as error:
        raise ExportError(f"the model was not published: {error}") from error
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if file_format == "litert":
            write_atomically(labels, _label_lines(class_names))
        write_atomically(path, content)
    except OSError as error:
        raise ExportError(f"cannot write {path}: {error.strerror}") from error
    return FileExport(path, after, float(np.abs(outputs["probabilities"] - expected).max()), len(content))


def to_litert(model: keras.Model, calibration: npt.NDArray[np.uint8] | None = None) -> bytes:
    """Return the content of a LiteRT file for `model`, for batches of any size.

    Args:
        model: maps pixels float32 0..255 to logits.
        calibration: real images, uint8 [N, height, width, 1], from which the ranges of all activations are measured.
            With them, all computation is in eight bits and the input `images` is uint8; without, all is in float32.
    """
    import numpy as np
    import tensorflow as tf

    from lenet_keras.backend import keras
    from lenet_keras.export.signatures import classify_function

    # Via a SavedModel: a concrete function of a Keras model does not bring its weights along.
    with tempfile.TemporaryDirectory() as folder, muted_stderr(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # calibration uses an interpreter that is to move to another package
        archive = keras.export.ExportArchive()
        archive.track(model)
        archive.add_endpoint("serving_default", classify_function(model), [_argument(model)])
        archive.write_out(folder, verbose=False)
        converter = tf.lite.TFLiteConverter.from_saved_model(folder, signature_keys=["serving_default"])
        if calibration is not None:
            converter.optimizations = [tf.lite.Optimize.DEFAULT]
            one_by_one = ({_IMAGES: image[np.newaxis].astype(np.float32)} for image in calibration)
            converter.representative_dataset = lambda: one_by_one
            converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
            converter.inference_input_type = tf.uint8
        content: bytes = converter.convert()
    return content


def run_litert(content: bytes, images: npt.NDArray[np.uint8]) -> dict[str, npt.NDArray[Any]]:
    """Compute `probabilities` and `class_id` of `images`, uint8 [N, height, width, 1], with LiteRT's interpreter.

    Raises:
        ImportError: the extra `litert` is not installed.
    """
    from ai_edge_litert.interpreter import Interpreter

    from lenet_keras.inference.measure import in_batches

    with muted_stderr():
        runner = Interpreter(model_content=content).get_signature_runner("serving_default")
        dtype = runner.get_input_details()[_IMAGES]["dtype"]
        return in_batches(lambda part: runner(**{_IMAGES: part.astype(dtype)}), images)


def to_onnx(model: keras.Model, class_names: Sequence[str]) -> bytes:
    """Return the content of an ONNX file for `model`, for batches of any size.

    The class names are in its metadata, under "class_names", as a JSON list in the order of the classes.

    Raises:
        ImportError: the extra `onnx` is not installed.
    """
    import tensorflow as tf

    from lenet_keras.export.signatures import classify_function

    with muted_stderr():  # it warns about future versions of NumPy
        import tf2onnx

        function = tf.function(classify_function(model))
        converted, _ = tf2onnx.convert.from_function(function, [_argument(model)], opset=OPSET)
    converted.metadata_props.add(key="class_names", value=json.dumps(list(class_names)))
    content: bytes = converted.SerializeToString()
    return content


def run_onnx(content: bytes, images: npt.NDArray[np.uint8]) -> dict[str, npt.NDArray[Any]]:
    """Compute `probabilities` and `class_id` of `images`, uint8 [N, height, width, 1], with ONNX Runtime on the CPU.

    Raises:
        ImportError: the extra `onnx` is not installed.
    """
    # From 1.29 on, it reports the models that it loads to its vendor, unless this is set before it is imported.
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    import onnxruntime

    from lenet_keras.inference.measure import in_batches

    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]

    def compute(part: npt.NDArray[np.uint8]) -> dict[str, npt.NDArray[Any]]:
        return dict(zip(names, session.run(names, {_IMAGES: part.astype("float32")}), strict=True))

    return in_batches(compute, images)


def _paths(stem: Path, file_format: str, int8: bool, class_names: Sequence[str]) -> tuple[Path, Path]:
    """Return the paths of the file and of its labels, after a check that nobody else's files are there."""
    if file_format == "litert":  # which is converted from a SavedModel in the folder for temporary files
        check_saved_model_path(Path(tempfile.gettempdir()))
    path = stem.with_name(f"{stem.name}{'.int8' if int8 else ''}{_SUFFIXES[file_format]}")
    labels = stem.with_name("labels.txt")
    check_replaceable(path, lambda content: all(name in content for name in _OUTPUTS))
    if file_format == "litert":
        check_replaceable(labels, lambda content: content == _label_lines(class_names))
    return path, labels


def _label_lines(class_names: Sequence[str]) -> bytes:
    return "".join(f"{name}\n" for name in class_names).encode()


def _argument(model: keras.Model) -> Any:
    import tensorflow as tf

    return tf.TensorSpec((None, *model.input_shape[1:]), tf.float32, _IMAGES)
