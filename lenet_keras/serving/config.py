"""The files that tell TensorFlow Serving what to serve and how: models, batching, monitoring."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from lenet_keras.export import layout
from lenet_keras.files import write_atomically

if TYPE_CHECKING:
    from tensorflow_serving.config import model_server_config_pb2

MODELS, BATCHING, MONITORING = "models.config", "batching.config", "monitoring.config"
CONTAINER_ROOT = "/models"  # where deploy/serving/compose.yaml and `lenet-keras serve` mount the folder of exports
METRICS_PATH = "/monitoring/prometheus/metrics"

_GENERATED = "# Written by lenet-keras at every export; changes are overwritten.\n"

# Single pictures that arrive together are computed together: a batch of 64 takes a few times as long as one picture.
# TensorFlow Serving closes a batch when it is full or its first request has waited so long, whichever comes first.
_BATCHING = """\
max_batch_size { value: 256 }
batch_timeout_micros { value: 1000 }
max_enqueued_batches { value: 1000 }
"""
_MONITORING = f'prometheus_config {{ enable: true path: "{METRICS_PATH}" }}\n'


def write_server_configs(export_dir: Path, root: str = CONTAINER_ROOT, target: Path | None = None) -> None:
    """Write `models.config`, `batching.config` and `monitoring.config` for the models in `export_dir`.

    Args:
        export_dir: the folder of exported models, `<name>/<version>/`.
        root: that folder's path as the server sees it.
        target: the folder for the files; None: `export_dir`.

    Raises:
        OSError: a folder cannot be read, or a file not written.
    """
    from google.protobuf import text_format

    folder = target or export_dir
    models = text_format.MessageToString(models_config(export_dir, root))
    for name, content in ((MODELS, models), (BATCHING, _BATCHING), (MONITORING, _MONITORING)):
        write_atomically(folder / name, (_GENERATED + content).encode())


def models_config(export_dir: Path, root: str) -> model_server_config_pb2.ModelServerConfig:
    """All models in `export_dir`, each with its two labelled versions.

    They are loaded side by side, so that a client may ask for a label: `/v1/models/NAME/labels/stable:predict`.

    Raises:
        OSError: a folder cannot be read.
    """
    from tensorflow_serving.config import model_server_config_pb2  # imports TensorFlow, which takes seconds

    config = model_server_config_pb2.ModelServerConfig()
    for model_dir in layout.model_folders(export_dir):
        labels = labelled_versions(model_dir)
        model = config.model_config_list.config.add(
            name=model_dir.name, base_path=f"{root}/{model_dir.name}", model_platform="tensorflow"
        )
        model.model_version_policy.specific.versions.extend(sorted(set(labels.values())))
        for label, number in labels.items():
            model.version_labels[label] = number
    return config


def labelled_versions(model_dir: Path) -> dict[str, int]:
    """The versions of a model that are served, by label: the newest is `canary`, the one before it `stable`.

    Of a single version it is both; without any the result is empty.

    Raises:
        OSError: the folder cannot be read.
    """
    newest = [int(folder.name) for folder in layout.version_folders(model_dir)[-2:]]
    return {"stable": newest[0], "canary": newest[-1]} if newest else {}
