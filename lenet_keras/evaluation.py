"""Loss and accuracy of a trained model over every image of a split, each once."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from lenet_keras.classifier import load_classifier
from lenet_keras.data import load
from lenet_keras.data.catalogue import DEFAULT_DATASET
from lenet_keras.errors import InvalidArgument
from lenet_keras.metrics import loss_and_accuracy
from lenet_keras.notices import Notify, ignore


def evaluate(
    path: Path,
    dataset: str | None = None,
    *,
    data_dir: Path | None = None,
    notify: Notify = ignore,
) -> dict[str, object]:
    """Measure the model of a run folder or a SavedModel on a data set's test images.

    Args:
        path: a finished run, a SavedModel, or a folder of its versions.
        dataset: its name. None takes the one that the run was trained on, and Fashion-MNIST for a SavedModel.
        data_dir: where the data set lies, as `lenet_keras.data.load` takes it.
        notify: gets one-line notices: which data source.

    Returns:
        {"model": path, "dataset": name, "images": N, "test": {"loss": nats, "accuracy": fraction}}.

    Raises:
        InvalidArgument: no such data set, or its classes are not the model's.
        LenetKerasError: the model or the data set cannot be loaded.
    """
    classifier = load_classifier(path)
    loaded = load(dataset or classifier.dataset or DEFAULT_DATASET, data_dir, notify)
    if loaded.spec.class_names != classifier.class_names:
        raise InvalidArgument(
            f"the model's classes ({_listed(classifier.class_names)}) are not those of {loaded.spec.name} "
            f"({_listed(loaded.spec.class_names)}). Name its data set with --dataset."
        )
    probabilities = classifier.probabilities(loaded.test.images)
    # A logarithm of probabilities is as good as logits; the smallest float32 stands for a probability rounded to 0.
    logits = np.log(np.maximum(probabilities, np.finfo(np.float32).tiny))
    return {
        "model": str(classifier.path),
        "dataset": loaded.spec.name,
        "images": len(loaded.test),
        "test": loss_and_accuracy(logits, loaded.test.labels),
    }


def _listed(names: tuple[str, ...]) -> str:
    return f"{', '.join(names[:3])}, … {len(names)} in all"
