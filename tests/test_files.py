"""Files and folders that appear complete or not at all, also when the writer is killed."""

import os
import subprocess
import sys
import time

import pytest

from lenet_keras.files import creating_folder, remove_temporary, replacing, write_atomically


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_file_is_replaced(tmp_path):
    path = tmp_path / "a.json"
    write_atomically(path, b"one")
    write_atomically(path, b"two")
    assert path.read_bytes() == b"two"
    assert names(tmp_path) == ["a.json"]


def test_a_folder_that_has_vanished_is_not_created_again(tmp_path):
    path = tmp_path / "gone" / "a.json"
    with pytest.raises(FileNotFoundError) as refused:
        write_atomically(path, b"one")
    assert refused.value.filename == str(path)
    assert names(tmp_path) == []


def test_what_killed_writers_left_is_removed_and_nothing_else(tmp_path):
    for name in (".0123abcd.state.npz", ".0123abc.state.npz", ".lock", "state.npz", ".git"):
        (tmp_path / name).touch()
    (tmp_path / ".deadbeef.export" / "variables").mkdir(parents=True)
    remove_temporary(tmp_path, seconds=3600)
    assert len(names(tmp_path)) == 6  # a writer may be at work
    remove_temporary(tmp_path)
    assert names(tmp_path) == [".0123abc.state.npz", ".git", ".lock", "state.npz"]


def test_creating_a_folder_removes_what_was_abandoned_long_ago(tmp_path):
    for name in (".0123abcd.set", ".4567abcd.set"):
        (tmp_path / name).mkdir()
    hours_ago = time.time() - 7200
    os.utime(tmp_path / ".0123abcd.set", (hours_ago, hours_ago))
    with creating_folder(tmp_path / "set"):
        pass
    assert names(tmp_path) == [".4567abcd.set", "set"]


def test_a_failure_leaves_the_old_file(tmp_path):
    path = tmp_path / "a.keras"
    write_atomically(path, b"old")
    with pytest.raises(RuntimeError), replacing(path) as temporary:
        assert temporary.suffix == ".keras"
        temporary.write_bytes(b"half")
        raise RuntimeError
    assert path.read_bytes() == b"old"
    assert names(tmp_path) == ["a.keras"]


def test_a_file_has_the_permissions_of_any_other(tmp_path):
    write_atomically(tmp_path / "a", b"")
    (tmp_path / "b").write_bytes(b"")
    assert (tmp_path / "a").stat().st_mode == (tmp_path / "b").stat().st_mode


def test_a_folder_appears_when_it_is_complete(tmp_path):
    target = tmp_path / "cache" / "set"
    with creating_folder(target) as temporary:
        (temporary / "file").write_bytes(b"x")
        assert not target.exists()
        assert temporary.name.startswith(".")
    assert names(target) == ["file"]
    assert names(target.parent) == ["set"]


def test_a_failed_folder_leaves_nothing(tmp_path):
    with pytest.raises(KeyboardInterrupt), creating_folder(tmp_path / "set") as temporary:
        (temporary / "file").write_bytes(b"x")
        raise KeyboardInterrupt
    assert names(tmp_path) == []


def test_an_existing_folder_is_not_touched(tmp_path):
    (tmp_path / "set").mkdir()
    with pytest.raises(FileExistsError), creating_folder(tmp_path / "set"):
        pass
    assert names(tmp_path) == ["set"]


def test_a_killed_writer_leaves_the_old_file(tmp_path):
    path = tmp_path / "state"
    path.write_bytes(b"old")
    program = f"""
import os, signal
from pathlib import Path
from lenet_keras.files import replacing
with replacing(Path({str(path)!r})) as temporary:
    temporary.write_bytes(b"new")
    os.kill(os.getpid(), signal.SIGKILL)
"""
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == -9
    assert path.read_bytes() == b"old"
