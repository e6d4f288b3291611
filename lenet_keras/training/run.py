"""From settings to a finished run folder."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import keras

from lenet_keras import runtime
from lenet_keras.callbacks import EpochLog
from lenet_keras.checkpoint import StateStore, capture, restore
from lenet_keras.config import TrainConfig
from lenet_keras.data import Dataset, hold_out, load
from lenet_keras.distribution.cluster import DEFAULT_CLUSTER_TIMEOUT, find_cluster
from lenet_keras.distribution.placement import Placement, cpu_devices_before, place
from lenet_keras.distribution.rendezvous import meet, refuse, send_off
from lenet_keras.errors import InvalidArgument, LenetKerasError
from lenet_keras.notices import Notify, ignore
from lenet_keras.run_folder import RunFolder
from lenet_keras.training.compiled import compiled_model, trained_copy
from lenet_keras.training.conclusion import conclude
from lenet_keras.training.epochs import Epochs
from lenet_keras.training.plan import Plan, Step, agreed
from lenet_keras.training.record import Record


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
    cluster_timeout: float = DEFAULT_CLUSTER_TIMEOUT,
    notify: Notify = ignore,
) -> RunResult:
    """Train a LeNet-5 variant, measure it on every image once, and leave the record of it in `run_dir`.

    The test images are used once, after the training. The state is written at the end of every epoch, after every
    `config.checkpoint_steps` within one, and when the training is interrupted, so that little or nothing is lost.

    In a cluster (`lenet_keras.distribution.cluster.find_cluster`) every worker calls this with the same arguments. The
    chief alone looks at and writes to `run_dir`; what it finds there it tells the others.

    Args:
        config: the settings.
        run_dir: the run folder, which is made; see `lenet_keras.run_folder`.
        data_dir: where the data set lies, as `lenet_keras.data.load` takes it.
        resume: continue the run in `run_dir` where its state was written last. Nothing is done for a finished one,
            unless `config` has more epochs than it was begun with. "auto" begins one where there is none.
        overwrite: replace the run in `run_dir`.
        callbacks: further Keras callbacks. `on_train_batch_end` is called once for several steps, with the last one's
            number, as under Keras's `steps_per_execution`. In a cluster each worker has its own.
        cluster_timeout: seconds in which all workers must have come.
        notify: gets one-line notices: which data source, which devices, where a resumed run goes on.

    Raises:
        InvalidArgument: `run_dir` holds a run and neither `resume` nor `overwrite` is true; or, with `resume`, none or
            one with other settings.
        LenetKerasError: the data set cannot be had, another process trains in `run_dir`, the run's files are damaged,
            loss or weights became infinite or NaN, or a worker did not come, or was lost.
        OSError: `run_dir` cannot be written to; what was written before is intact.
        KeyboardInterrupt: passed on; the run can be resumed.
    """
    folder = RunFolder(run_dir)
    cluster = find_cluster(config.strategy)
    is_chief = cluster is None or cluster.is_chief
    cpu_devices = None
    if is_chief:
        try:
            next_step = _next_step(folder, config, resume, overwrite)
        except LenetKerasError as error:
            if cluster is not None:
                refuse(cluster, str(error))
            raise
        if next_step == "nothing":
            finished = _finished(folder, notify)
            if cluster is not None:
                send_off(cluster, finished.metrics)
            return finished
        if next_step == "resume":
            cpu_devices = cpu_devices_before(folder.read_record())
    if cluster is not None and (metrics := meet(cluster, _greeting(config), cluster_timeout, notify)) is not None:
        return RunResult(folder.path, metrics)
    placement = place(config, cluster, cpu_devices)
    if config.xla and placement.replicas > 1 and "batch_norm" in config.reg:
        raise InvalidArgument("XLA cannot compile batch normalisation over several devices. Leave out --xla.")
    notify(placement.describe(config.batch_size))
    with placement.workers.lost_named():
        dataset = load(config.dataset, data_dir, notify)
        with folder.locked() if is_chief else nullcontext():
            # Asked again: meanwhile another process may have been at work here.
            states = StateStore(folder.path)
            own = _plan(folder, states, config, resume, overwrite, notify) if is_chief else None
            plan = agreed(own, placement.workers)
            if plan.metrics is not None:
                return RunResult(folder.path, plan.metrics)
            record = Record(folder, states, is_chief)
            return _train(record, config, plan, dataset, placement, callbacks, notify)


def _greeting(config: TrainConfig) -> dict[str, Any]:
    # In what workers must not differ. Each may name its own devices.
    settings = {name: value for name, value in config.to_json().items() if name not in ("strategy", "devices")}
    versions = runtime.versions()
    return {**settings, **{f"{name} version": versions[name] for name in ("lenet-keras", "tensorflow", "keras")}}


def _next_step(folder: RunFolder, config: TrainConfig, resume: bool | Literal["auto"], overwrite: bool) -> Step:
    if not resume or (resume == "auto" and not folder.is_run):
        folder.check_vacant(overwrite)
        return "begin"
    _check_resumable(folder, config)
    return "nothing" if folder.is_finished and config.epochs <= folder.read_config().epochs else "resume"


def _plan(
    folder: RunFolder,
    states: StateStore,
    config: TrainConfig,
    resume: bool | Literal["auto"],
    overwrite: bool,
    notify: Notify,
) -> Plan:
    step = _next_step(folder, config, resume, overwrite)
    if step == "nothing":
        return Plan(step, metrics=_finished(folder, notify).metrics)
    return Plan(step, states.read(notify) if step == "resume" else None)


def _finished(folder: RunFolder, notify: Notify) -> RunResult:
    notify(f"{folder.path} is finished; more --epochs would continue it")
    return RunResult(folder.path, folder.read_metrics())


def _train(
    record: Record,
    config: TrainConfig,
    plan: Plan,
    dataset: Dataset,
    placement: Placement,
    callbacks: Sequence[keras.callbacks.Callback],
    notify: Notify,
) -> RunResult:
    folder, workers = record.folder, placement.workers
    model = compiled_model(config, dataset)
    trained = trained_copy(model, config, placement)
    training, validation = hold_out(dataset.train, config.held_out, config.seed)
    epochs = Epochs(trained, training, validation, config, placement)
    if plan.state is not None:
        epochs.restore(plan.state)
    if plan.step == "resume":
        notify(f"going on behind {epochs.place}")
    if workers.is_chief:
        # All that can be wrong with what is there has shown by now; from here on the folder is written to.
        _open(folder, config, plan, dataset, placement)
        callbacks = [EpochLog(folder.path, histograms=config.histograms), *callbacks]
    epochs.run(record, callbacks)
    restore(_variables(model), capture(_variables(trained)))
    return RunResult(folder.path, conclude(folder, config, dataset, (training, validation), epochs, model, workers))


def _variables(model: keras.Model) -> list[keras.Variable]:
    return [*model.variables, *model.optimizer.variables]


def _open(folder: RunFolder, config: TrainConfig, plan: Plan, dataset: Dataset, placement: Placement) -> None:
    record = {
        "data_source": dataset.source,
        "device": placement.device_name,
        "placement": placement.to_json(),
        "processor": runtime.processor(),
        "versions": runtime.versions(),
        "command": runtime.command(),
        "git_commit": runtime.git_commit(),
    }
    if plan.step == "resume":
        folder.metrics_json.unlink(missing_ok=True)  # those of a run that is now to have more epochs
        folder.write_config(config, record)
    else:
        folder.begin(config, record)


def _check_resumable(folder: RunFolder, config: TrainConfig) -> None:
    if not folder.is_run:
        raise InvalidArgument(f"{folder.path} holds no run to resume. Begin one without --resume.")
    differences = folder.read_config().differences(config)
    if differences:
        raise InvalidArgument(
            f"{folder.path} was begun with other settings ({'; '.join(differences)}). "
            "Resume it with its own, or name another folder with --run-dir."
        )
