"""From settings to a finished run folder."""

from __future__ import annotations

import contextlib
import functools
import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast

from lenet_keras.backend import keras
from lenet_keras.checkpoint import StateStore, TrainingState, decode, encode
from lenet_keras.config import TrainConfig
from lenet_keras.data.arrays import Dataset, Split, hold_out
from lenet_keras.data.load import load
from lenet_keras.distribution.cluster import DEFAULT_CLUSTER_TIMEOUT, find_cluster
from lenet_keras.distribution.join import join, lead, reject, release
from lenet_keras.distribution.strategy import Placement, bypassing_proxies, place, recorded_cores
from lenet_keras.distribution.workers import Workers
from lenet_keras.errors import InvalidArgument, LenetKerasError, RunDamaged, RunNotFound
from lenet_keras.files import replacing
from lenet_keras.inference.measure import Predictor, loss_and_accuracy, softmax
from lenet_keras.inference.run_model import load_run_model
from lenet_keras.paths import AnyPath
from lenet_keras.runs import RunFolder
from lenet_keras.runtime import command, git_commit, processor, versions
from lenet_keras.tensorboard.callback import EpochLog
from lenet_keras.tensorboard.hparams import write_hparams
from lenet_keras.tensorboard.report import write_test_report
from lenet_keras.training.epochs import Epochs
from lenet_keras.training.finished import left_alone, own_settings
from lenet_keras.training.replicas import compile_model, trained_model, training_model

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class TrainResult:
    """A finished run. What it left in its folder is read when it is first asked for.

    Attributes:
        run_dir: its folder.
        metrics: the content of its metrics.json: loss and accuracy of each split, measured after training.
    """

    run_dir: Path
    metrics: dict[str, Any]

    @functools.cached_property
    def history(self) -> dict[str, list[float]]:
        """The metrics of the epochs by name, as in `keras.callbacks.History.history`: "loss", "val_accuracy"...

        Raises:
            RunDamaged: history.csv is missing or damaged.
        """
        rows = RunFolder(self.run_dir).read_history()
        recorded = [name for name in rows[0] if name != "epoch" and rows[0][name] is not None]
        return {name: [cast(float, row[name]) for row in rows] for name in recorded}

    @functools.cached_property
    def model(self) -> keras.Model:
        """The trained model: plain Keras in float32, compiled, pixels [N, 28, 28, 1] in 0..255 to logits.

        Its optimizer starts anew; `keras.saving.load_model(run_dir / "model.keras")` has that of the training.

        Raises:
            RunDamaged: model.keras is missing or damaged.
        """
        folder = RunFolder(self.run_dir)
        model = load_run_model(folder)
        compile_model(model, folder.read_config())
        return model


def train(
    config: TrainConfig,
    run_dir: AnyPath,
    *,
    data_dir: AnyPath | None = None,
    resume: bool | Literal["auto"] = False,
    overwrite: bool = False,
    callbacks: Sequence[keras.callbacks.Callback] = (),
    cluster_timeout: float = DEFAULT_CLUSTER_TIMEOUT,
    verbose: Literal[0, 1, 2] = 0,
) -> TrainResult:
    """Train a LeNet-5 variant, measure it once on every image, and leave the record in `run_dir`.

    The test images are used once, after training, unless `config.record_test` has them measured after every epoch; they
    select nothing. The state is saved at the end of every epoch, after every `config.checkpoint_steps` steps within
    one, and when training is interrupted, so that little or nothing is lost.

    In a cluster (`lenet_keras.distribution.cluster.find_cluster`) every worker calls this with the same arguments. Only
    the chief reads and writes `run_dir`; it decides what to do, and tells the others when they join.

    >>> config = TrainConfig(dataset="fashion_mnist_sample", epochs=1)
    >>> result = train(config, "runs/first")
    >>> sorted(result.metrics["test"]), len(result.history["val_accuracy"]), result.model.count_params()
    (['accuracy', 'loss'], 1, 61706)

    Args:
        config: the settings.
        run_dir: the run folder, created if it is missing; see `lenet_keras.runs`.
        data_dir: the folder that holds the dataset, as in `lenet_keras.data.load.load`.
        resume: continue the run in `run_dir` from its last saved state. A finished one is only read, unless `config`
            has more epochs than it was started with and early stopping did not end it, or one of its files is damaged
            and follows from the state. "auto" starts a run if there is none.
        overwrite: replace the run in `run_dir`.
        callbacks: further Keras callbacks. `on_train_batch_begin` and `on_train_batch_end` are called once for several
            steps, with the number of the first and of the last, as under Keras's `steps_per_execution`. In a cluster
            each worker has its own.
        cluster_timeout: seconds within which all workers must join.
        verbose: what to print of the progress, as Keras's `fit` does: 0, nothing; 1, a bar for each epoch; 2, a line.

    Raises:
        RunExists: `run_dir` holds a run, and neither `resume` nor `overwrite` is true.
        NotARunFolder: `run_dir` holds something else.
        RunNotFound, SettingsDiffer: `resume` is true, and `run_dir` holds no run, or one with other settings.
        InvalidArgument: the devices do not exist, or do not fit the settings; or more epochs are trained already than
            `config` has.
        RunInUse: another process is training in `run_dir`.
        RunDamaged: a file of the run is damaged.
        DatasetNotFound, DatasetDamaged: the dataset cannot be found or fetched, or is not what it should be.
        ClusterError: a worker did not join, has other settings or versions, or was lost.
        Diverged: the loss or a weight became infinite or NaN.
        OSError: `run_dir` cannot be written to; what was saved before is intact.
        KeyboardInterrupt: passed on; the run can be resumed. Unless the program handles SIGINT itself, a first Ctrl-C
            waits until the current steps are done and loses none.
    """
    folder = RunFolder(run_dir)
    states = StateStore(folder.path)
    cluster = find_cluster(config.strategy)
    is_chief = cluster is None or cluster.is_chief
    with contextlib.ExitStack() as stack:
        if cluster is not None and not is_chief:
            plan = Plan.from_bytes(join(cluster, _terms(config), cluster_timeout))
        else:
            try:
                # A finished run needs no lock: it may be on a medium that cannot be written to.
                finished = left_alone(folder, states, config, is_locked=False) if resume else None
                if finished is None:
                    stack.enter_context(folder.locked())
                    plan = _decide(folder, states, config, resume, overwrite)
                else:
                    plan = Plan("nothing", metrics=finished)
            except LenetKerasError as error:
                if cluster is not None:
                    reject(cluster, str(error))
                raise
            if cluster is not None and plan.action == "nothing":
                release(cluster, plan.to_bytes(), cluster_timeout)
            elif cluster is not None:
                lead(cluster, _terms(config), plan.to_bytes(), cluster_timeout)
        if plan.metrics is not None:
            return TrainResult(folder.path, plan.metrics)

        stack.enter_context(bypassing_proxies(cluster))
        placement = place(config, cluster, plan.cores)
        if config.xla and placement.replicas > 1 and "batch_norm" in config.reg:
            raise InvalidArgument("XLA cannot compile batch normalisation across several devices.")
        logger.info(placement.describe(config.batch_size))
        stack.enter_context(placement.workers.naming_the_lost())
        dataset = load(config.dataset, data_dir)
        training, validation = hold_out(dataset.train, config.held_out, config.seed)
        model = training_model(config, placement)
        recorded = dataset.test if config.record_test else None
        epochs = Epochs(model, training, validation, config, placement, recorded)
        if plan.state is not None:
            epochs.restore(plan.state)
        if plan.action == "resume":
            if epochs.place:
                logger.info("resuming after %s", epochs.place)
            else:
                logger.info("starting again: the run ended before its first state was saved")
        if is_chief:
            # Anything wrong with an earlier run has shown itself by now; from here on the folder is written to.
            _open(folder, config, plan, dataset, placement)
            callbacks = [EpochLog(folder.path, epochs.history, histograms=config.histograms), *callbacks]

        def save(state: TrainingState) -> None:
            if is_chief:
                states.write(state)
                if state.progress.step == 0:
                    folder.write_history(state.history)

        epochs.run(callbacks, save, verbose=verbose if is_chief else 0)
        metrics = _finalize(folder, config, dataset, (training, validation), epochs, placement.workers)
        return TrainResult(folder.path, metrics)


@dataclass(frozen=True)
class Plan:
    """What the chief decides from the run folder, and all workers do.

    Attributes:
        action: "nothing" if the run is finished.
        state: to resume from; None: none was saved yet.
        metrics: of a finished run.
        cores: how many processor cores shared the batches before; None: unknown.
    """

    action: Literal["start", "resume", "nothing"]
    state: TrainingState | None = None
    metrics: dict[str, Any] | None = None
    cores: int | None = None

    def to_bytes(self) -> bytes:
        """Encode the plan for the other workers."""
        head = json.dumps({"action": self.action, "metrics": self.metrics}).encode()
        return head + b"\n" + (encode(self.state) if self.state else b"")

    @classmethod
    def from_bytes(cls, content: bytes) -> Plan:
        """Decode what `to_bytes` encoded.

        Raises:
            StateDamaged: the state is not what was sent.
        """
        head, _, state = content.partition(b"\n")
        return cls(**json.loads(head), state=decode(state, "the chief's state") if state else None)


def _terms(config: TrainConfig) -> dict[str, Any]:
    # What workers must agree on. Each may name its own devices.
    settings = {name: value for name, value in config.to_json().items() if name not in ("strategy", "devices")}
    installed = versions()
    return {**settings, **{f"{name} version": installed[name] for name in ("lenet-keras", "tensorflow", "keras")}}


def _decide(
    folder: RunFolder, states: StateStore, config: TrainConfig, resume: bool | Literal["auto"], overwrite: bool
) -> Plan:
    if not resume or (resume == "auto" and not folder.is_run):
        folder.check_vacant(overwrite)
        return Plan("start")
    if not folder.is_run:
        raise RunNotFound(f"{folder.path} holds no run to resume.")
    own_settings(folder, config)
    if (metrics := left_alone(folder, states, config, is_locked=True)) is not None:
        return Plan("nothing", metrics=metrics)
    state = states.read()
    trained = 0 if state is None else len(state.history) + (state.progress.step > 0)
    if config.epochs < trained:
        raise InvalidArgument(
            f"epochs must be {trained} or more to resume {folder.path}, which has been trained up to there. "
            f"Received: {config.epochs}"
        )
    if state is None and (folder.is_finished or folder.history_csv.exists()):
        raise RunDamaged(f"{states.newest} is missing: the run cannot be continued without it.")
    return Plan("resume", state, cores=recorded_cores(folder.read_record()))


def _open(folder: RunFolder, config: TrainConfig, plan: Plan, dataset: Dataset, placement: Placement) -> None:
    record = {
        "data_source": dataset.source,
        "device": placement.device_name,
        "placement": placement.to_json(),
        "processor": processor(),
        "versions": versions(),
        "command": command(),
        "git_commit": git_commit(),
    }
    if plan.action == "start":
        folder.start(config, record)
        return
    folder.metrics_json.unlink(missing_ok=True)  # of a finished run that is to train for more epochs
    folder.write_config(config, record)
    if plan.state is not None:
        folder.write_history(plan.state.history)  # a process killed after saving the state leaves it one row short


def _finalize(
    folder: RunFolder,
    config: TrainConfig,
    dataset: Dataset,
    splits: tuple[Split, Split],
    epochs: Epochs,
    workers: Workers,
) -> dict[str, Any]:
    # All workers measure; the chief writes the report on the test images, model.keras and metrics.json.
    model = trained_model(epochs.model, config)
    predict = Predictor(model, workers)
    training, validation = (
        loss_and_accuracy(predict(split.images), split.labels) if len(split) else None for split in splits
    )
    logits = predict(dataset.test.images)
    test = loss_and_accuracy(logits, dataset.test.labels)
    metrics = {
        "dataset": config.dataset,
        "reg": config.reg,
        "seed": config.seed,
        "train": training,
        "validation": validation,
        "test": test,
        "epochs": len(epochs.history),
        "best_epoch": epochs.best_epoch,
        "parameters": model.count_params(),
        "export": None,
    }
    if workers.is_chief:
        probabilities = softmax(logits).astype("float32")
        folder.write_predictions(dataset.test.labels, probabilities)
        write_test_report(
            folder.path,
            images=dataset.test.images,
            labels=dataset.test.labels,
            probabilities=probabilities,
            history=epochs.history,
            class_names=dataset.spec.class_names,
            step=len(epochs.history) - 1,
        )
        write_hparams(
            folder.path,
            settings=config.with_effect(),
            metrics={"train": training, "validation": validation, "test": test},
            step=len(epochs.history) - 1,
        )
        with replacing(folder.model_keras) as temporary:
            model.save(temporary)
        folder.write_metrics(metrics)
    return metrics
