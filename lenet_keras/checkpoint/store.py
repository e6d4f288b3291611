"""The two newest states of a run: the one before is kept until the next is known to be whole."""

from __future__ import annotations

from pathlib import Path

from lenet_keras.checkpoint.archive import DamagedState, encode, read_state
from lenet_keras.checkpoint.state import TrainingState
from lenet_keras.errors import LenetKerasError
from lenet_keras.files import replaced, sync
from lenet_keras.notices import Notify, ignore


class StateStore:
    """Writes and reads `state.npz`, the newest state, and `state.previous.npz`, the one before it."""

    def __init__(self, folder: Path) -> None:
        """Take the states in `folder`. Nothing is read or made yet."""
        self.newest = folder / "state.npz"
        self.previous = folder / "state.previous.npz"
        self._newest_is_whole = False

    def write(self, state: TrainingState) -> None:
        """Make `state` the newest.

        A process killed at any instant leaves at least the states that were whole before, under one name or the other.

        Raises:
            OSError: the file cannot be written; the earlier states are intact.
        """
        content = encode(state)
        with replaced(self.newest) as aside:
            aside.write_bytes(content)
            sync(aside)
            if aside.read_bytes() != content:
                raise OSError(None, "the file system returned other bytes than were written")
            if self._newest_is_whole:  # one found damaged must not take the place of the whole one before it
                self.newest.replace(self.previous)
        self._newest_is_whole = True

    def read(self, notify: Notify = ignore) -> TrainingState | None:
        """The newest state that is whole; None where none was written yet.

        Args:
            notify: told when the newest is damaged and the one before it is returned.

        Raises:
            LenetKerasError: both are damaged, or one is of another format.
        """
        damage = []
        for path in (self.newest, self.previous):
            if not path.exists():  # there is a `previous` alone after a kill between the two renames
                continue
            try:
                state = read_state(path)
            except DamagedState as error:
                damage.append(str(error))
                continue
            if damage:
                notify(f"{damage[0]}. Going on from the state before it, {path.name}")
            self._newest_is_whole = path == self.newest
            return state
        if damage:
            raise LenetKerasError(f"{'; '.join(damage)}. No state is left to go on from: begin anew with --overwrite.")
        return None
