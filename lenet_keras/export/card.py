"""The model card: a README.md in a model's folder, for anyone who finds it."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from lenet_keras.config import TrainConfig
from lenet_keras.data.catalogue import DatasetSpec
from lenet_keras.export.signatures import describe_signatures
from lenet_keras.inference.images import encode_png
from lenet_keras.serving.config import GENERATED

_REMARKS = {"features": ", the penultimate activations"}


def model_card(
    version: Path,
    config: TrainConfig,
    record: Mapping[str, Any],
    metrics: Mapping[str, Any],
    spec: DatasetSpec,
    image: npt.NDArray[np.uint8],
) -> str:
    """Describe a version in Markdown: its data, settings, figures, signatures, and requests that work as they stand.

    >>> from lenet_keras.data.catalogue import dataset_spec
    >>> split = {"loss": 0.4, "accuracy": 0.9}
    >>> metrics = {"train": split, "validation": None, "test": split, "parameters": 61_706, "epochs": 1}
    >>> image = np.zeros((28, 28, 1), np.uint8)
    >>> card = model_card(Path("lenet5_none/1"), TrainConfig(), {}, metrics, dataset_spec("fashion_mnist"), image)
    >>> card.splitlines()[1]
    '# lenet5_none'

    Args:
        version: its folder, `<model name>/<version>`.
        config: the settings it was trained with.
        record: the run's config.json, which names versions of packages and the commit.
        metrics: the run's metrics.json.
        spec: its dataset.
        image: a real one for the request, uint8 [height, width, 1].
    """
    name = version.parent.name
    height, width, channels = image.shape
    encoded = base64.b64encode(encode_png(image)).decode()
    settings = {key: value for key, value in config.to_json().items() if value is not None}
    signatures = [
        [f"`{one.name}`", one.argument, ", ".join(map(str, one.outputs)) + _REMARKS.get(one.name, "")]
        for one in describe_signatures((height, width, channels), spec.num_classes).values()
    ]
    return f"""\
<!-- {GENERATED} -->
# {name}

LeNet-5, regularisation: {config.reg}. Trained on {spec.name}, {spec.train_size:,} images, of which
{config.held_out:,} were held out. Newest version: {version.name}.

## Figures of version {version.name}

{_table(["split", "loss (nats)", "accuracy"], _figures(metrics))}

{metrics["parameters"]:,} parameters, {metrics["epochs"]} epochs. On {spec.test_size:,} test images the standard error
of the accuracy is {_standard_error(metrics["test"]["accuracy"], spec.test_size)} points.

## Classes

{_table(["class_id", "class_name"], [[i, label] for i, label in enumerate(spec.class_names)])}

The same names, one per line, are in `{version.name}/assets/labels.txt`.

## Signatures

{_table(["signature", "input", "outputs"], signatures)}

Pixels are 0 (black, the background) to 255; the model scales them itself. `encoded` takes PNG and JPEG, grey or colour,
of any size up to 4096 x 4096, converts them to grey, scales them with antialiasing to fit {height} x {width}, and
centres them on black. It does not apply EXIF orientation.

## Requests

With a server running on the folder that holds this one, as `lenet-keras serve` starts it; the image is a real one from
the test set:

```
curl http://localhost:8501/v1/models/{name}:predict -d '{{"signature_name": "encoded", "instances": [{{"image_bytes": \
{{"b64": "{encoded}"}}}}]}}'
```

From a file: `lenet-keras predict --url http://localhost:8501/v1/models/{name} IMAGE.png`.

## Settings

{_table(["setting", "value"], [[key, f"`{value}`"] for key, value in settings.items()])}

Trained on {record.get("device")} ({record.get("processor")})
with {_versions(record)}.
Training with the same seed and the same versions gives the same weights.

## Limits

The model always names one of its {len(spec.class_names)} classes, whatever the image shows, and its probabilities are
not calibrated.
"""


def _figures(metrics: Mapping[str, Any]) -> list[list[str]]:
    measured = [(split, metrics[split]) for split in ("train", "validation", "test") if metrics[split]]
    return [[split, f"{values['loss']:.4f}", f"{100 * values['accuracy']:.2f} %"] for split, values in measured]


def _standard_error(accuracy: float, images: int) -> str:
    return f"{100 * (accuracy * (1 - accuracy) / images) ** 0.5:.2f}"


def _versions(record: Mapping[str, Any]) -> str:
    found = record.get("versions", {})
    return ", ".join(
        f"{package} {found[package]}" for package in ("lenet-keras", "tensorflow", "keras") if package in found
    )


def _table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(str(cell).replace("|", "\\|") for cell in line) + " |" for line in lines)
