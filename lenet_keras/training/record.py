"""What a training writes while it goes on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from lenet_keras.checkpoint import StateStore, TrainingState
from lenet_keras.run_folder import RunFolder


class Record:
    """States and history in a run folder, by the chief; the other workers of a run write nothing."""

    def __init__(self, folder: RunFolder, states: StateStore, is_chief: bool) -> None:
        """Take the files, `states` being what a resumed run's state was read with; nothing is written yet."""
        self.folder = folder
        self._states = states
        self._is_chief = is_chief

    def save(self, state: TrainingState) -> None:
        """Write `state`."""
        if self._is_chief:
            self._states.write(state)

    def write_history(self, rows: Sequence[Mapping[str, float]]) -> None:
        """Write history.csv."""
        if self._is_chief:
            self.folder.write_history(rows)
