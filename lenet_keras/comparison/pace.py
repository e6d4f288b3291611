"""How long the runs of a comparison take: what is left while they train, and a measurement beforehand."""

from __future__ import annotations

import dataclasses
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from lenet_keras.comparison.jobs import Places, train_side_by_side
from lenet_keras.comparison.plan import PlannedRun
from lenet_keras.paths import AnyPath
from lenet_keras.runs import RunFolder


class Pace:
    """Watches runs train and tells how long the rest of them will take."""

    def __init__(self, runs: Sequence[PlannedRun], places: int) -> None:
        """Take the runs that are to be trained, and how many of them train at a time."""
        self._places = places
        self._left = {run: float(run.config.epochs) for run in runs}
        self._first: dict[PlannedRun, tuple[float, float]] = {}
        self._seconds_per_epoch: dict[PlannedRun, float] = {}

    @property
    def epochs_left(self) -> float:
        """The epochs of all runs that are still to be trained."""
        return sum(self._left.values())

    def update(self, run: PlannedRun, epochs: float) -> None:
        """Note that `run` has trained so many epochs by now."""
        now = time.monotonic()
        self._left[run] = run.config.epochs - epochs
        start, before = self._first.setdefault(run, (now, epochs))
        if epochs > before:
            self._seconds_per_epoch[run] = (now - start) / (epochs - before)

    @property
    def seconds_left(self) -> float | None:
        """How long the rest will take; None until an epoch has made some progress."""
        if not self._seconds_per_epoch:
            return None
        return seconds_for(self._left, _by_variant(self._seconds_per_epoch), self._places)


def seconds_for(epochs: Mapping[PlannedRun, float], seconds_per_epoch: Mapping[str, float], places: int) -> float:
    """Return how long runs take that still have to train so many epochs each.

    A variant whose pace is unknown counts with the mean of the others. The longest run is a lower bound.

    Args:
        epochs: of each run.
        seconds_per_epoch: of each variant whose pace is known, at least one.
        places: how many runs train at a time, 1 or more.
    """
    mean = sum(seconds_per_epoch.values()) / len(seconds_per_epoch)
    seconds = [left * seconds_per_epoch.get(run.variant, mean) for run, left in epochs.items()]
    return max(sum(seconds) / places, max(seconds, default=0.0))


def known_pace(runs: Sequence[PlannedRun]) -> dict[str, float]:
    """Return the seconds per epoch of each variant of which a run has trained before, from its history.csv.

    Raises:
        RunDamaged: a history.csv is damaged.
    """
    found = {}
    for run in runs:
        folder = RunFolder(run.run_dir)
        if folder.history_csv.exists():
            seconds = [row["seconds"] or 0.0 for row in folder.read_history()]
            found[run] = sum(seconds) / len(seconds)
    return _by_variant(found)


def measured_pace(runs: Sequence[PlannedRun], places: Places, data_dir: AnyPath | None = None) -> dict[str, float]:
    """Return the seconds per epoch of each variant: one epoch of each is trained, side by side, and thrown away.

    Args:
        runs: of any variants and seeds.
        places: as in `train_side_by_side`.
        data_dir: the folder that holds the dataset, as in `lenet_keras.data.load.load`.

    Raises:
        LenetKerasError: a training failed.
    """
    first = {run.variant: run for run in reversed(runs)}
    with tempfile.TemporaryDirectory() as folder:
        trials = [
            PlannedRun(name, dataclasses.replace(run.config, epochs=1), Path(folder, name))
            for name, run in first.items()
        ]
        train_side_by_side(trials, places, lambda run, epochs, is_finished: None, data_dir)  # noqa: ARG005
        return known_pace(trials)


def _by_variant(seconds_per_epoch: Mapping[PlannedRun, float]) -> dict[str, float]:
    values: dict[str, list[float]] = {}
    for run, seconds in seconds_per_epoch.items():
        values.setdefault(run.variant, []).append(seconds)
    return {variant: sum(found) / len(found) for variant, found in values.items()}
