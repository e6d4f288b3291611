"""The end of a training: measured on every image once, and left in the run folder."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import numpy.typing as npt

from lenet_keras.callbacks import write_test_report
from lenet_keras.config import TrainConfig
from lenet_keras.data import Dataset, Split
from lenet_keras.distribution.workers import Workers
from lenet_keras.files import replaced
from lenet_keras.metrics import loss_and_accuracy, softmax
from lenet_keras.run_folder import RunFolder
from lenet_keras.training.epochs import Epochs
from lenet_keras.training.predictor import Predictor


def conclude(
    folder: RunFolder,
    config: TrainConfig,
    dataset: Dataset,
    splits: tuple[Split, Split],
    epochs: Epochs,
    model: keras.Model,
    workers: Workers,
) -> dict[str, Any]:
    """The content of metrics.json. The chief writes it, with the report on the test images and model.keras.

    Args:
        folder: the run's.
        config: its settings.
        dataset: its data set.
        splits: training and validation images.
        epochs: the training, at its end.
        model: the trained one as plain Keras in float32, the one that is saved and exported.
        workers: who share the images.
    """
    predict = Predictor(model, workers)
    training, validation = (_measured(predict, split) for split in splits)
    logits = predict(dataset.test.images)
    metrics = {
        "dataset": config.dataset,
        "reg": config.reg,
        "seed": config.seed,
        "train": training,
        "validation": validation,
        "test": loss_and_accuracy(logits, dataset.test.labels),
        "epochs": len(epochs.history),
        "best_epoch": epochs.best_epoch,
        "parameters": model.count_params(),
        "export": None,
    }
    if workers.is_chief:
        _write(folder, config, dataset, logits, metrics, model)
    return metrics


def _measured(predict: Predictor, split: Split) -> dict[str, float] | None:
    return loss_and_accuracy(predict(split.images), split.labels) if len(split) else None


def _write(
    folder: RunFolder,
    config: TrainConfig,
    dataset: Dataset,
    logits: npt.NDArray[np.float32],
    metrics: dict[str, Any],
    model: keras.Model,
) -> None:
    write_test_report(
        folder.path,
        settings={name: "off" if value is None else value for name, value in config.to_json().items()},
        images=dataset.test.images,
        labels=dataset.test.labels,
        probabilities=softmax(logits).astype("float32"),
        class_names=dataset.spec.class_names,
        loss=metrics["test"]["loss"],
        step=metrics["epochs"] - 1,
    )
    with replaced(folder.model_keras) as aside:
        model.save(aside)
    folder.write_metrics(metrics)
