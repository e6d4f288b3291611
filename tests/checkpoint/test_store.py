"""At any instant at least one intact state exists; a damaged one costs itself and no more."""

import errno
import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest

from lenet_keras.checkpoint import StateStore
from lenet_keras.errors import LenetKerasError

from .conftest import make_state


def epochs(store):
    found = store.read()
    return None if found is None else len(found.history)


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_the_newest_is_read_and_the_one_before_is_kept(tmp_path):
    store = StateStore(tmp_path)
    assert epochs(store) is None
    for epoch in (1, 2, 3):
        store.write(make_state(epoch))
    assert names(tmp_path) == ["state.npz", "state.previous.npz"]
    assert epochs(StateStore(tmp_path)) == 3
    store.newest.unlink()
    assert epochs(StateStore(tmp_path)) == 2


@pytest.mark.parametrize("damage", [b"", b"half", None])
def test_a_damaged_newest_state_is_replaced_by_the_one_before_with_a_warning(tmp_path, caplog, damage):
    store = StateStore(tmp_path)
    for epoch in (1, 2):
        store.write(make_state(epoch))
    store.newest.write_bytes(store.newest.read_bytes()[:-50] if damage is None else damage)
    again = StateStore(tmp_path)
    assert epochs(again) == 1
    ((logger, level, message),) = caplog.record_tuples
    assert (logger, level) == ("lenet_keras.checkpoint", logging.WARNING)
    assert "state.npz" in message
    assert "state.previous.npz" in message

    again.write(make_state(5))
    assert epochs(StateStore(tmp_path)) == 5
    again.newest.unlink()
    assert epochs(StateStore(tmp_path)) == 1  # the damaged one did not replace the intact one


def test_both_damaged_is_one_clear_error(tmp_path):
    store = StateStore(tmp_path)
    for epoch in (1, 2):
        store.write(make_state(epoch))
    for path in (store.newest, store.previous):
        path.write_bytes(b"")
    with pytest.raises(LenetKerasError, match=r"state\.npz .*; .*state\.previous\.npz .*No state is left") as refused:
        StateStore(tmp_path).read()
    assert "\n" not in str(refused.value)


def test_a_newer_format_is_not_skipped(tmp_path, monkeypatch):
    store = StateStore(tmp_path)
    store.write(make_state(1))
    monkeypatch.setattr("lenet_keras.checkpoint.STATE_FORMAT", 99)
    store.write(make_state(2))
    monkeypatch.undo()
    with pytest.raises(LenetKerasError, match="format 99"):
        StateStore(tmp_path).read()


def test_a_file_system_that_corrupts_data_is_detected_before_the_earlier_state_is_touched(tmp_path, monkeypatch):
    store = StateStore(tmp_path)
    store.write(make_state(1))
    whole = Path.write_bytes
    monkeypatch.setattr(Path, "write_bytes", lambda path, content: whole(path, content[:-1] + b"?"))
    with pytest.raises(OSError, match="different bytes"):
        store.write(make_state(2))
    monkeypatch.undo()
    assert names(tmp_path) == ["state.npz"]
    assert epochs(StateStore(tmp_path)) == 1


def test_a_state_is_written_after_an_interruption_between_the_two_renames(tmp_path, monkeypatch):
    store = StateStore(tmp_path)
    for epoch in (1, 2):
        store.write(make_state(epoch))
    replaced = Path.replace

    def interrupted(path, target):
        replaced(path, target)
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "replace", interrupted)
    with pytest.raises(KeyboardInterrupt):
        store.write(make_state(3))
    monkeypatch.undo()
    assert epochs(StateStore(tmp_path)) == 2
    store.write(make_state(3))
    assert epochs(StateStore(tmp_path)) == 3


def test_a_full_disk_leaves_both_states(tmp_path, monkeypatch):
    store = StateStore(tmp_path)
    for epoch in (1, 2):
        store.write(make_state(epoch))

    def full(path, content):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OSError, match="No space left") as refused:
        store.write(make_state(3))
    monkeypatch.undo()
    assert refused.value.filename == str(store.newest)
    assert names(tmp_path) == ["state.npz", "state.previous.npz"]
    assert epochs(StateStore(tmp_path)) == 2


def test_a_kill_before_any_file_operation_leaves_an_intact_state(tmp_path):
    program = Path(__file__).with_name("killed_writer.py")
    finished = subprocess.run([sys.executable, program, tmp_path], stdout=subprocess.PIPE, text=True, check=True)
    outcomes = [int(line) for line in finished.stdout.split()]
    assert outcomes == sorted(outcomes)  # the later the kill, the newer the state
    assert set(outcomes) == {1, 2, 3}
    assert len(outcomes) > 10
