"""Publishing SavedModels: built at a temporary path, checked, and renamed to the next version."""

from __future__ import annotations

import contextlib
import errno
import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from lenet_keras.backend import keras
from lenet_keras.checkpoint import capture, checksum
from lenet_keras.data.arrays import Split
from lenet_keras.data.catalogue import dataset_spec
from lenet_keras.data.load import load
from lenet_keras.errors import ExportError, InvalidArgument, check_integer, first_line, python_value
from lenet_keras.export.card import model_card
from lenet_keras.export.signatures import write_saved_model, write_warmup
from lenet_keras.export.verify import ExportCheck, fresh_process
from lenet_keras.files import sync, temporary_folder
from lenet_keras.inference.run_model import load_run_model
from lenet_keras.inference.saved_model import Origin, is_saved_model, read_origin, write_origin
from lenet_keras.models import parse_reg
from lenet_keras.paths import AnyPath, local_path
from lenet_keras.runs import RunFolder
from lenet_keras.serving.config import (
    CARD,
    DEFAULT_EXPORT_DIR,
    WARMUP,
    check_export,
    check_saved_model_path,
    model_name,
    version_folders,
    write_generated,
    write_server_configs,
)

_GRAPH = Path("saved_model.pb")
_TOP = {_GRAPH, Path("fingerprint.pb")}
_FOLDERS = {Path("variables"), Path("assets"), WARMUP.parent}

logger = logging.getLogger(__name__)


def export_run(
    run_dir: AnyPath,
    export_dir: AnyPath = DEFAULT_EXPORT_DIR,
    *,
    data_dir: AnyPath | None = None,
    keep: int | None = None,
) -> Path:
    """Publish the model of the run in `run_dir` as the next version in `export_dir`, and name it in metrics.json.

    Before it appears, the SavedModel is run in a fresh process on the test images: it must agree with the model, whose
    accuracy must be that in metrics.json, but for images that a GPU's rounding may decide either way. The model's card
    and TensorFlow Serving's configuration files in `export_dir` are brought up to date.

    >>> export_run(Path("runs/fashion_mnist_sample/none/7"), keep=3).as_posix()
    'exported_models/lenet5_none_fashion_mnist_sample/1'

    Args:
        run_dir: a finished run.
        export_dir: the folder of the exported models.
        data_dir: the folder of the run's dataset, as `lenet_keras.data.load.load` takes it.
        keep: how many versions of the model to keep, 1 or more; older ones are removed. None keeps all.

    Returns:
        The version folder, `<export_dir>/lenet5_<reg>/<version>`.

    Raises:
        InvalidArgument: `keep` is below 1, TensorFlow could not load a SavedModel from `export_dir`, or a file that an
            export replaces is there that no export has written.
        RunNotFound, RunUnfinished, RunDamaged: there is no finished run, or its files are damaged.
        DatasetNotFound, DatasetDamaged: the run's dataset cannot be loaded.
        ExportError: the export failed and left no version.
        OSError: the version is published, but what goes with it could not be written.
    """
    keep = python_value(keep)
    if keep is not None:
        check_integer("keep", keep, 1)
    folder, export_dir = RunFolder(run_dir), local_path(export_dir)
    config, metrics, record = folder.read_config(), folder.read_metrics(), folder.read_record()
    name = model_name(parse_reg(config.reg), config.dataset)
    check_export(export_dir, name)
    model = load_run_model(folder)
    spec = dataset_spec(config.dataset)
    test = load(config.dataset, data_dir).test
    model_dir = export_dir / name
    origin = Origin(config.dataset, checksum(capture(model.weights)))
    accuracy = metrics["test"]["accuracy"]
    version = export_model(model, model_dir, spec.class_names, test, accuracy=accuracy, origin=origin)
    write_generated(model_dir / CARD, model_card(version, config, record, metrics, spec, test.images[0]))
    _name_export(folder, version)
    if keep is not None:
        remove_old_versions(model_dir, keep)
    write_server_configs(export_dir)
    return version


def published_version(run_dir: AnyPath, export_dir: AnyPath = DEFAULT_EXPORT_DIR) -> Path | None:
    """Return the newest version in `export_dir` that has the weights of the run in `run_dir`; None if there is none.

    If metrics.json names no export, the one found is named there.

    >>> version = export_run(Path("runs/fashion_mnist_sample/none/7"))
    >>> published_version(Path("runs/fashion_mnist_sample/none/7")) == version
    True

    Raises:
        RunNotFound, RunUnfinished, RunDamaged: there is no finished run, or its files are damaged.
    """
    folder = RunFolder(run_dir)
    config, metrics = folder.read_config(), folder.read_metrics()
    model_dir = local_path(export_dir) / model_name(parse_reg(config.reg), config.dataset)
    versions = version_folders(model_dir) if model_dir.is_dir() else []
    if not versions:
        return None
    weights = checksum(capture(load_run_model(folder).weights))
    for version in reversed(versions):
        with contextlib.suppress(OSError, TypeError, ValueError, RecursionError):  # damaged, or not ours
            origin = read_origin(version)
            if is_saved_model(version) and origin is not None and origin.weights_sha256 == weights:
                if metrics["export"] is None:
                    _name_export(folder, version)
                return version
    return None


def _name_export(folder: RunFolder, version: Path) -> None:
    try:
        # Read again: another export of the run may have written its own in the meantime.
        folder.write_metrics({**folder.read_metrics(), "export": str(version)})
    except OSError as error:  # a run may be read-only; the version is published all the same
        logger.warning("%s does not name the export: %s", folder.metrics_json, error.strerror)


def export_model(
    model: keras.Model,
    model_dir: Path,
    class_names: Sequence[str],
    test: Split,
    *,
    accuracy: float | None = None,
    origin: Origin | None = None,
) -> Path:
    """Publish `model` as the next version in `model_dir`, after its export ran in a fresh process and agreed with it.

    The SavedModel has the signatures of `lenet_keras.export.signatures`, and requests on real images with which
    TensorFlow Serving warms up. Versions count up from the largest existing one. The folder appears by one rename;
    after any failure, including Ctrl-C, none is left.

    Args:
        model: maps float32 pixels 0..255 [N, height, width, 1] to logits [N, classes]; its last layer is called
            "logits", as `build_lenet5` calls it.
        model_dir: the model's folder, created if missing; versions are its numbered children.
        class_names: one per class, in the order of the logits.
        test: real images to compare on, at least one, with their labels.
        accuracy: the model's on `test` as it was measured before, a fraction, on any device. None: it was not.
        origin: what the SavedModel says about where it comes from; None: nothing.

    Returns:
        The version folder, `<model_dir>/<version>`.

    Raises:
        InvalidArgument: images or class names do not fit the model, or `model_dir` is a path that no SavedModel can be
            loaded from.
        ExportError: the files cannot be written, the fresh process failed, or its outputs differ from the model's.
    """
    model_dir = local_path(model_dir)
    check_saved_model_path(model_dir)
    check_examples(model, class_names, test.images)
    try:
        with fresh_process() as call:
            check = ExportCheck(model, class_names, test, accuracy)
            model_dir.mkdir(parents=True, exist_ok=True)
            # TensorFlow Serving ignores names that are not numbers.
            with temporary_folder(model_dir, "export") as temporary:
                built = temporary / "saved_model"
                write_saved_model(model, class_names, built)
                if origin is not None:
                    write_origin(built, origin)
                check.run(built, temporary, call)
                write_warmup(built, check.signatures.values(), test.images)
                # TensorFlow Serving never retries a version that has failed once, so a power cut must not leave a
                # truncated file under the final name.
                for path in [*built.rglob("*"), built]:
                    sync(path)
                version = _rename_to_next_version(built, model_dir)
        sync(model_dir)
    except (OSError, tf.errors.OpError) as error:
        raise ExportError(f"cannot export to {model_dir}: {first_line(error)}") from error
    return version


def check_examples(model: keras.Model, class_names: Sequence[str], images: npt.NDArray[np.uint8]) -> None:
    """Raise `InvalidArgument` unless images and class names fit the model.

    >>> from lenet_keras.models import build_lenet5
    >>> check_examples(build_lenet5(), [f"class {i}" for i in range(10)], np.zeros((1, 28, 28, 1), np.uint8))
    """
    image_shape, classes = tuple(model.input_shape[1:]), model.output_shape[-1]
    if images.dtype != np.uint8 or images.shape[1:] != image_shape or len(images) == 0:
        expected = ", ".join(map(str, image_shape))
        raise InvalidArgument(
            f"images to compare on must be uint8 [N, {expected}]. Received: {images.dtype} {list(images.shape)}"
        )
    if len(class_names) != classes or not all(name and "\n" not in name for name in class_names):
        raise InvalidArgument(f"class_names must be {classes} names of one line each. Received: {list(class_names)}")


def remove_old_versions(model_dir: Path, keep: int) -> None:
    """Remove all versions in `model_dir` that `export_model` wrote, except the `keep` newest of them, 1 or more.

    Each vanishes by one rename before its files are removed, so that no server sees part of it. Numbered folders that
    hold anything else stay, and a warning names them.

    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     Path(folder, "5").mkdir()
    ...     remove_old_versions(Path(folder), keep=1)
    ...     [version.name for version in version_folders(Path(folder))]
    ['5']

    Raises:
        OSError: a version cannot be removed.
    """
    versions = version_folders(model_dir)
    own = [version for version in versions if _is_own(version)]
    for version in versions:
        if version not in own:
            logger.warning("%s is kept: it holds what no export writes, or lacks what every export does", version)
    for version in own[:-keep]:
        with temporary_folder(model_dir, "removed") as temporary:
            version.rename(temporary / version.name)


def _is_own(version: Path) -> bool:
    required = {_GRAPH, Path("assets", "labels.txt"), WARMUP}
    if version.is_symlink() or not version.is_dir():
        return False
    found = {path.relative_to(version) for path in version.rglob("*") if path.is_symlink() or not path.is_dir()}
    written = {path for path in found if path in _TOP or path.parent in _FOLDERS}
    return required <= found == written


def _rename_to_next_version(built: Path, model_dir: Path) -> Path:
    existing = version_folders(model_dir)
    version = int(existing[-1].name) if existing else 0
    while True:
        version += 1
        target = model_dir / str(version)
        try:
            built.rename(target)
        except OSError as error:
            # Another export has taken this number since the listing: a rename onto a folder with content
            # fails.
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR):
                raise
        else:
            return target
