"""What runs there are below a folder, and the mean of each variant."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lenet_keras.comparison.statistics import Spread, spread
from lenet_keras.config import TrainConfig
from lenet_keras.errors import LenetKerasError
from lenet_keras.paths import AnyPath, local_path
from lenet_keras.runs import RunFolder


@dataclass(frozen=True)
class RunState:
    """A run, finished or not.

    Attributes:
        path: its folder.
        config: its settings.
        epochs: that are trained.
        metrics: its metrics.json; None if it is not finished.
    """

    path: Path
    config: TrainConfig
    epochs: int
    metrics: dict[str, Any] | None


@dataclass(frozen=True)
class VariantMeans:
    """The finished runs of a variant: those that differ in their seeds only; accuracies are fractions.

    Attributes:
        name: the regularisation, and any settings in which variants of the same regularisation and dataset differ.
        dataset: the name of its dataset.
        seeds: of its runs.
        train, test: accuracies measured after training.
    """

    name: str
    dataset: str
    seeds: tuple[int, ...]
    train: Spread
    test: Spread


def find_runs(folder: AnyPath) -> tuple[list[RunState], list[LenetKerasError]]:
    """Return the runs in `folder` and below, by their paths, and why others could not be read.

    Raises:
        OSError: `folder` cannot be read.
    """
    found, problems = [], []
    for path, folders, _ in os.walk(local_path(folder), onerror=_raise):
        run = RunFolder(Path(path))
        if not run.is_run:
            folders.sort()
            continue
        folders.clear()  # there are no runs inside a run
        try:
            config = run.read_config()
            metrics = run.read_metrics() if run.is_finished else None
            epochs = len(run.read_history()) if run.history_csv.exists() else 0
        except LenetKerasError as error:
            problems.append(error)
        else:
            found.append(RunState(run.path, config, epochs, metrics))
    return found, problems


def means_by_variant(runs: Sequence[RunState]) -> list[VariantMeans]:
    """Return the mean of each variant's finished runs, in the order in which variants appear; a seed counts once.

    >>> means_by_variant([])
    []
    """
    groups: dict[tuple[tuple[str, Any], ...], dict[int, RunState]] = {}
    for run in runs:
        if run.metrics is not None:
            groups.setdefault(_settings(run.config), {}).setdefault(run.config.seed, run)
    return [
        VariantMeans(
            name=_name(key, [other for other in groups if other != key]),
            dataset=dict(key)["dataset"],
            seeds=tuple(sorted(by_seed)),
            train=spread([run.metrics["train"]["accuracy"] for run in by_seed.values() if run.metrics]),
            test=spread([run.metrics["test"]["accuracy"] for run in by_seed.values() if run.metrics]),
        )
        for key, by_seed in groups.items()
    ]


def _settings(config: TrainConfig) -> tuple[tuple[str, Any], ...]:
    return tuple((name, value) for name, value in config.with_effect().items() if name not in ("seed", "record_test"))


def _name(settings: tuple[tuple[str, Any], ...], others: Sequence[tuple[tuple[str, Any], ...]]) -> str:
    own = dict(settings)
    alike = [dict(other) for other in others if all(dict(other)[name] == own[name] for name in ("reg", "dataset"))]
    differing = [f"{name}={value}" for name, value in own.items() if any(other.get(name) != value for other in alike)]
    return ", ".join([own["reg"], *differing])


def _raise(error: OSError) -> None:
    raise error
