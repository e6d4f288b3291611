"""The layout of an export folder, `<model name>/<version>/`, and TensorFlow Serving's configuration files in it."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from lenet_keras.data.catalogue import DEFAULT_DATASET
from lenet_keras.errors import InvalidArgument
from lenet_keras.files import write_atomically
from lenet_keras.paths import check_text, local_path
from lenet_keras.serving.handover import Served

if TYPE_CHECKING:
    from tensorflow_serving.config import model_server_config_pb2

DEFAULT_EXPORT_DIR = Path("exported_models")
WARMUP = Path("assets.extra", "tf_serving_warmup_requests")  # in a version folder, as TensorFlow Serving expects

REST_PORT, GRPC_PORT = 8501, 8500  # TensorFlow Serving's own defaults
MODELS, BATCHING, MONITORING = "models.config", "batching.config", "monitoring.config"
CARD = "README.md"  # in a model's folder; TensorFlow Serving ignores names that are not numbers
CONTAINER_ROOT = "/models"  # where deploy/serving/compose.yaml and `lenet-keras serve` mount the export folder

# TensorFlow Serving reads a version as a signed 64-bit integer; up to 18 digits always fit.
_VERSION = re.compile("[0-9]{1,18}")

# In the first line of every file that an export replaces: a file without it is somebody else's.
GENERATED = "Written by lenet-keras at every export; changes are overwritten."
_PATTERN = re.compile(r"[][*?\\]")  # what TensorFlow takes for a pattern in the path of a SavedModel's variables
# Single images that arrive together are computed together: a batch of 64 takes only a few times as long as one image.
# TensorFlow Serving closes a batch when it is full or its first request has waited this long, whichever comes first.
_BATCHING = """\
max_batch_size { value: 256 }
batch_timeout_micros { value: 1000 }
max_enqueued_batches { value: 1000 }
"""
_MONITORING = 'prometheus_config { enable: true path: "/monitoring/prometheus/metrics" }\n'


def model_name(reg: Sequence[str], dataset: str) -> str:
    """Name the folder of a variant's versions.

    Every dataset but the full Fashion-MNIST is in the name, so that a model of another dataset, or of a sample, is
    never served as a newer version of the real one.

    >>> model_name(("dropout", "weight_decay"), "fashion_mnist"), model_name(("none",), "emnist/letters")
    ('lenet5_dropout_weight_decay', 'lenet5_none_emnist_letters')
    """
    parts = ["lenet5", *(reg or ("none",))]
    if dataset != DEFAULT_DATASET:
        parts.append(dataset.replace("/", "_"))
    return "_".join(parts)


def check_export(export_dir: Path, name: str) -> None:
    """Check, before any work, that a version of the model `name` may be exported to `export_dir`.

    >>> check_export(Path("exported_models"), "lenet5_none")

    Raises:
        InvalidArgument: TensorFlow could not load a SavedModel from there, or a file there is somebody else's.
    """
    model_dir = local_path(export_dir) / name
    check_saved_model_path(model_dir)
    if os.path.lexists(model_dir) and not model_dir.is_dir():
        raise InvalidArgument(f"{model_dir} is not a folder: move it away, or export to another folder.")
    for path in (*(model_dir.parent / name for name in (MODELS, BATCHING, MONITORING)), model_dir / CARD):
        check_replaceable(path)


def check_saved_model_path(path: Path) -> None:
    """Raise `InvalidArgument` unless TensorFlow can load a SavedModel from this path, relative or absolute.

    >>> check_saved_model_path(Path("exported_models/lenet5_none/1"))
    """
    check_text(path)
    if found := _PATTERN.search(str(path)):
        raise InvalidArgument(
            f"TensorFlow cannot load a SavedModel from {path}, because of the {found[0]} in it: rename the folder, or "
            "use a relative path without it."
        )


def is_generated(content: bytes) -> bool:
    """Return whether the content of a file says in its first line that an export wrote it.

    >>> is_generated(f"# {GENERATED}".encode()), is_generated(b"# My own models")
    (True, False)
    """
    return GENERATED.encode() in content.partition(b"\n")[0]


def check_replaceable(path: Path, is_own: Callable[[bytes], bool] = is_generated) -> None:
    """Raise `InvalidArgument` if there is anything at `path` but a file whose content `is_own`, an export's.

    >>> check_replaceable(Path("exported_models/models.config"))
    """
    # A pipe would make us wait; a link is nothing that an export writes.
    if os.path.lexists(path) and not (path.is_file() and not path.is_symlink() and is_own(path.read_bytes())):
        raise InvalidArgument(
            f"{path} was not written by lenet-keras, so no export replaces it: move it away, or export to another "
            "folder."
        )


def write_generated(path: Path, content: str) -> None:
    """Write `content`, whose first line holds `GENERATED`, to a new file, or to one that an export has written.

    A file that already holds `content` is left as it is.

    Raises:
        InvalidArgument: the file is somebody else's.
        OSError: it cannot be read or written.
    """
    check_replaceable(path)
    if not path.exists() or path.read_bytes() != content.encode():
        write_atomically(path, content.encode())


def is_version(name: str) -> bool:
    """Return whether TensorFlow Serving takes a folder of this name for a model's version.

    >>> is_version("10"), is_version("export")
    (True, False)
    """
    return _VERSION.fullmatch(name) is not None


def version_folders(model_dir: Path) -> list[Path]:
    """List the version folders of a model, oldest first; other names are ignored, as TensorFlow Serving does.

    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     for name in ("10", "9", "export"):
    ...         Path(folder, name).mkdir()
    ...     [version.name for version in version_folders(Path(folder))]
    ['9', '10']

    Raises:
        OSError: the folder does not exist or cannot be read.
    """
    numbered = (child for child in model_dir.iterdir() if is_version(child.name))
    return sorted(numbered, key=lambda child: int(child.name))


def labelled_versions(model_dir: Path) -> dict[str, int]:
    """Return the versions of a model that are served, by label: the newest is `canary`, the one before it `stable`.

    A single version is both; without any the result is empty.

    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     for name in ("8", "9", "10"):
    ...         Path(folder, name).mkdir()
    ...     labelled_versions(Path(folder))
    {'stable': 9, 'canary': 10}

    Raises:
        OSError: the folder does not exist or cannot be read.
    """
    return labels_of([int(folder.name) for folder in version_folders(model_dir)])


def labels_of(versions: Sequence[int]) -> dict[str, int]:
    """Return which of a model's versions, the oldest first, have the labels `stable` and `canary`.

    >>> labels_of([8, 9, 10])
    {'stable': 9, 'canary': 10}
    """
    newest = versions[-2:]
    return {"stable": newest[0], "canary": newest[-1]} if newest else {}


def model_folders(export_dir: Path) -> list[Path]:
    """List the folders in `export_dir` of models that have a version, by name; dot-named folders are ignored.

    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     for name in ("lenet5_none/1", "lenet5_dropout/1", "lenet5_batch_norm", ".hidden/1"):
    ...         Path(folder, name).mkdir(parents=True)
    ...     [model.name for model in model_folders(Path(folder))]
    ['lenet5_dropout', 'lenet5_none']

    Raises:
        OSError: the folder does not exist or cannot be read.
    """
    folders = sorted(child for child in export_dir.iterdir() if child.is_dir() and not child.name.startswith("."))
    return [folder for folder in folders if version_folders(folder)]


def write_server_configs(export_dir: Path, root: str = CONTAINER_ROOT) -> None:
    """Write `models.config`, `batching.config` and `monitoring.config` into `export_dir`, for a server on its own.

    They list the two newest versions of each model, and no labels: without somebody who waits until the new version is
    AVAILABLE, as `launch.run_server` does, TensorFlow Serving would refuse a label that moves, and with it the version.

    Args:
        export_dir: the folder of exported models, `<name>/<version>/`.
        root: that folder's path as the server sees it.

    Raises:
        InvalidArgument: there is a file of that name that no export has written.
        OSError: a folder cannot be read, or a file cannot be written.
    """
    newest = {folder.name: labelled_versions(folder) for folder in model_folders(export_dir)}
    models = {name: Served(frozenset(labels.values())) for name, labels in newest.items()}
    write_configs(models, root, export_dir)


def write_configs(models: Mapping[str, Served], root: str, folder: Path) -> None:
    """Write `models.config`, `batching.config` and `monitoring.config` for `models`; files that are right already stay.

    Args:
        models: what to serve, by name.
        root: the path of the folder of exported models, as the server sees it.
        folder: for the files.

    Raises:
        InvalidArgument: there is a file of that name that no export has written.
        OSError: a file cannot be read or written.
    """
    from google.protobuf import text_format

    for name in (MODELS, BATCHING, MONITORING):
        check_replaceable(folder / name)
    listed = text_format.MessageToString(models_config(models, root))
    for name, content in ((MODELS, listed), (BATCHING, _BATCHING), (MONITORING, _MONITORING)):
        write_generated(folder / name, f"# {GENERATED}\n{content}")


def models_config(models: Mapping[str, Served], root: str) -> model_server_config_pb2.ModelServerConfig:
    """Return the message that lists `models`, whose folders are in `root`, with their versions and labels.

    The versions of a model are loaded together, so that a client may ask for one by its label:
    `/v1/models/NAME/labels/stable:predict`.
    """
    from tensorflow_serving.config import model_server_config_pb2  # imports TensorFlow, which takes seconds

    config = model_server_config_pb2.ModelServerConfig()
    for name, served in sorted(models.items()):
        model = config.model_config_list.config.add(name=name, base_path=f"{root}/{name}", model_platform="tensorflow")
        model.model_version_policy.specific.versions.extend(sorted(served.versions))
        for label, number in sorted(served.labels.items()):
            model.version_labels[label] = number
    return config
