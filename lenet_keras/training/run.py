"""From settings to a finished run folder."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import keras

from lenet_keras import runtime
from lenet_keras.callbacks import EpochLog, write_test_report
from lenet_keras.checkpoint import StateStore
from lenet_keras.config import TrainConfig
from lenet_keras.data import Dataset, Split, hold_out, load
from lenet_keras.distribution import Placement, place
from lenet_keras.errors import InvalidArgument
from lenet_keras.files import replaced
from lenet_keras.metrics import loss_and_accuracy, softmax
from lenet_keras.models import build_lenet5
from lenet_keras.notices import Notify, ignore
from lenet_keras.run_folder import RunFolder
from lenet_keras.training.epochs import Epochs


@dataclass(frozen=True)
class RunResult:
    """A finished run: its folder, and the content of its metrics.json."""

    run_dir: Path
    metrics: dict[str, Any]


def train(
    config: TrainConfig,
    run_dir: Path,
    *,
    data_dir: Path | None = None,
    resume: bool | Literal["auto"] = False,
    overwrite: bool = False,
    callbacks: Sequence[keras.callbacks.Callback] = (),
    notify: Notify = ignore,
) -> RunResult:
    """Train a LeNet-5 variant, measure it on every image once, and leave the record of it in `run_dir`.

    The test images are used once, after the training. The state is written at the end of every epoch, after every
    `config.checkpoint_steps` within one, and when the training is interrupted, so that little or nothing is lost.

    Args:
        config: the settings.
        run_dir: the run folder, which is made; see `lenet_keras.run_folder`.
        data_dir: where the data set lies, as `lenet_keras.data.load` takes it.
        resume: continue the run in `run_dir` where its state was written last. Nothing is done for a finished one,
            unless `config` has more epochs than it was begun with. "auto" begins one where there is none.
        overwrite: replace the run in `run_dir`.
        callbacks: further Keras callbacks. `on_train_batch_end` is called once for several steps, with the last one's
            number, as under Keras's `steps_per_execution`.
        notify: gets one-line notices: which data source, which device, where a resumed run goes on.

    Raises:
        InvalidArgument: `run_dir` holds a run and neither `resume` nor `overwrite` is true; or, with `resume`, none or
            one with other settings.
        LenetKerasError: the data set cannot be had, another process trains in `run_dir`, the run's files are damaged,
            or loss or weights became infinite or NaN.
        OSError: `run_dir` cannot be written to; what was written before is intact.
        KeyboardInterrupt: passed on; the run can be resumed.
    """
    folder = RunFolder(run_dir)
    if _next_step(folder, config, resume, overwrite) == "nothing":
        return _finished(folder, notify)
    dataset = load(config.dataset, data_dir, notify)
    placement = place(config.strategy)
    notify(f"device: {placement.device_name} ({placement.reason})")
    with folder.locked():
        # Asked again: meanwhile another process may have been at work here.
        next_step = _next_step(folder, config, resume, overwrite)
        if next_step == "nothing":
            return _finished(folder, notify)
        return _train(folder, config, next_step == "resume", dataset, placement, callbacks, notify)


def _next_step(
    folder: RunFolder, config: TrainConfig, resume: bool | Literal["auto"], overwrite: bool
) -> Literal["begin", "resume", "nothing"]:
    if not resume or (resume == "auto" and not folder.is_run):
        folder.check_vacant(overwrite)
        return "begin"
    _check_resumable(folder, config)
    return "nothing" if folder.is_finished and config.epochs <= folder.read_config().epochs else "resume"


def _finished(folder: RunFolder, notify: Notify) -> RunResult:
    notify(f"{folder.path} is finished; more --epochs would continue it")
    return RunResult(folder.path, folder.read_metrics())


def _train(
    folder: RunFolder,
    config: TrainConfig,
    resume: bool,
    dataset: Dataset,
    placement: Placement,
    callbacks: Sequence[keras.callbacks.Callback],
    notify: Notify,
) -> RunResult:
    record = {
        "data_source": dataset.source,
        "device": placement.device_name,
        "processor": runtime.processor(),
        "versions": runtime.versions(),
        "command": runtime.command(),
        "git_commit": runtime.git_commit(),
    }
    states = StateStore(folder.path)
    state = states.read(notify) if resume else None
    with placement.strategy.scope():
        model = compiled_model(config, dataset)
    training, validation = hold_out(dataset.train, config.held_out, config.seed)
    epochs = Epochs(model, training, validation, config, placement.strategy)
    if state is not None:
        epochs.restore(state)
    # All that can be wrong with what is there has shown by now; from here on the folder is written to.
    if resume:
        notify(f"going on behind {epochs.place}")
        folder.metrics_json.unlink(missing_ok=True)  # those of a run that is now to have more epochs
        folder.write_config(config, record)
    else:
        folder.begin(config, record)
    epochs.run(folder, states, [EpochLog(folder.path, histograms=config.histograms), *callbacks])
    return _conclude(folder, config, dataset, epochs, training, validation)


def _conclude(
    folder: RunFolder, config: TrainConfig, dataset: Dataset, epochs: Epochs, training: Split, validation: Split
) -> RunResult:
    logits = epochs.predict(dataset.test.images)
    metrics = {
        "dataset": config.dataset,
        "reg": config.reg,
        "seed": config.seed,
        "train": epochs.measure(training),
        "validation": epochs.measure(validation) if len(validation) else None,
        "test": loss_and_accuracy(logits, dataset.test.labels),
        "epochs": len(epochs.history),
        "best_epoch": epochs.best_epoch,
        "parameters": epochs.model.count_params(),
        "export": None,
    }
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
        epochs.model.save(aside)
    folder.write_metrics(metrics)
    return RunResult(folder.path, metrics)


def _check_resumable(folder: RunFolder, config: TrainConfig) -> None:
    if not folder.is_run:
        raise InvalidArgument(f"{folder.path} holds no run to resume. Begin one without --resume.")
    differences = folder.read_config().differences(config)
    if differences:
        raise InvalidArgument(
            f"{folder.path} was begun with other settings ({'; '.join(differences)}). "
            "Resume it with its own, or name another folder with --run-dir."
        )


def compiled_model(config: TrainConfig, dataset: Dataset) -> keras.Model:
    """The variant that `config` describes, compiled for `dataset`; to be called in a strategy's scope."""
    model = build_lenet5(
        reg=config.reg,
        num_classes=len(dataset.spec.class_names),
        input_shape=dataset.train.images.shape[1:],
        activation=config.activation,
        pooling=config.pooling,
        dropout_rate=config.dropout_rate,
        weight_decay=config.weight_decay,
        seed=config.seed,
    )
    model.compile(
        optimizer=keras.optimizers.Adam(config.learning_rate),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    model.optimizer.build(model.trainable_variables)
    return model
