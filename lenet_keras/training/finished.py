"""A finished run that is resumed: whether anything is left to train, and whether its files are what its state says."""

from __future__ import annotations

import io
import logging
import zipfile
from collections import Counter
from pathlib import Path
from typing import Any

import h5py

from lenet_keras.checkpoint import Arrays, StateDamaged, StateStore, TrainingState, read_state, restore
from lenet_keras.config import TrainConfig
from lenet_keras.errors import LenetKerasError, RunDamaged, SettingsDiffer
from lenet_keras.files import replacing
from lenet_keras.records import history_csv
from lenet_keras.runs import RunFolder
from lenet_keras.training.replicas import plain_model

logger = logging.getLogger(__name__)

_WEIGHTS = "model.weights.h5"  # Keras's name for it within a .keras file
_LARGEST_MODEL = 2**26  # bytes unpacked; ours have about one million
_SEEDS = "seed_generator_state"  # a variable of dropout that Keras does not save


def own_settings(folder: RunFolder, config: TrainConfig) -> TrainConfig:
    """Return the settings that the run in `folder` was started with.

    Raises:
        SettingsDiffer: `config` would make it a different run.
        RunDamaged, LenetKerasError: config.json cannot be read, or another version wrote it.
    """
    own = folder.read_config()
    if differences := own.differences(config, ignored={"epochs"}):  # more of them make a run longer, not another one
        raise SettingsDiffer(f"{folder.path} was started with other settings ({'; '.join(differences)}).")
    return own


def left_alone(folder: RunFolder, states: StateStore, config: TrainConfig, *, is_locked: bool) -> dict[str, Any] | None:
    """Return the metrics of a finished run for which `config` leaves nothing to do; None: there is something to do.

    A whole run is only read. With the lock held, history.csv and model.keras are restored from the state if they are
    not what it says; without the lock, such a run returns None.

    Raises:
        SettingsDiffer, RunDamaged, LenetKerasError: as `own_settings`.
        OSError: a file cannot be restored.
    """
    if not (folder.is_run and folder.is_finished):
        return None
    own = own_settings(folder, config)
    try:
        metrics = folder.read_metrics()
        folder.read_predictions()
    except RunDamaged as error:
        if is_locked:
            logger.warning("%s. The model is measured again.", str(error).rstrip("."))
        return None
    has_stopped_early = own.has_stopped_early(metrics["epochs"], metrics["best_epoch"])
    most = max(own.epochs, metrics["epochs"])
    if config.epochs > most and not has_stopped_early:
        return None
    try:
        state = read_state(states.newest)
        damaged = _damaged(folder, state)
        if len(damaged) == 2 and _is_whole(folder.model_keras) and folder.history_csv.is_file():
            raise StateDamaged(f"{states.newest} is another run's: history.csv and model.keras disagree with it")
    except LenetKerasError as error:
        if not _is_whole(folder.model_keras):
            return None  # the state before it may help
        logger.warning("%s. The run is finished; its results are not affected.", error)
    else:
        found = (metrics["dataset"], metrics["reg"], metrics["seed"], metrics["epochs"])
        if found != (own.dataset, own.reg, own.seed, len(state.history)):
            if is_locked:
                logger.warning("%s is another run's. The model is measured again.", folder.metrics_json)
            return None
        if damaged and not is_locked:
            return None
        for path in damaged:
            logger.warning("%s is missing, damaged or another run's: restoring it from %s", path, states.newest.name)
            _restore(folder, own, state, path)
    if has_stopped_early:
        logger.info("%s is finished: early stopping ended it after %d epochs", folder.path, metrics["epochs"])
    else:
        logger.info("%s is finished; more than %d epochs would continue it", folder.path, most)
    return metrics


def _final_values(state: TrainingState) -> Arrays:
    return {**state.variables, **state.best}  # the names of the best ones are the model's


def _damaged(folder: RunFolder, state: TrainingState) -> list[Path]:
    damaged = []
    if not folder.history_csv.is_file() or folder.history_csv.read_bytes() != history_csv(state.history):
        damaged.append(folder.history_csv)
    if not _is_whole(folder.model_keras, _final_values(state)):
        damaged.append(folder.model_keras)
    return damaged


def _restore(folder: RunFolder, config: TrainConfig, state: TrainingState, path: Path) -> None:
    if path == folder.history_csv:
        folder.write_history(state.history)
        return
    model = plain_model(config)
    restore([*model.variables, *model.optimizer.variables], _final_values(state))
    with replacing(path) as temporary:
        model.save(temporary)


def _is_whole(model_keras: Path, values: Arrays | None = None) -> bool:
    # Read without Keras: to load a model starts TensorFlow's devices, which a later training may want otherwise.
    if not model_keras.is_file():
        return False
    expected = Counter((v.shape, v.tobytes()) for k, v in (values or {}).items() if not k.endswith(_SEEDS))
    found: Counter[tuple[tuple[int, ...], bytes]] = Counter()

    def collect(_name: str, item: object) -> None:
        if isinstance(item, h5py.Dataset):
            found[item.shape, item[()].tobytes()] += 1

    try:
        with zipfile.ZipFile(model_keras) as archive:
            if sum(entry.file_size for entry in archive.infolist()) > _LARGEST_MODEL or archive.testzip() is not None:
                return False
            with h5py.File(io.BytesIO(archive.read(_WEIGHTS))) as weights:
                weights.visititems(collect)
    except Exception:  # damage raises OSError, BadZipFile, KeyError, zlib.error and more
        return False
    return expected <= found
