"""A run folder and its lock, between real processes."""

import signal
import subprocess
import sys

import pytest
from filelock import lock_descriptor

from lenet_keras.config import TrainConfig
from lenet_keras.errors import RunInUse
from lenet_keras.runs import RunFolder

HOLDER = """
import sys
from pathlib import Path
from lenet_keras.runs import RunFolder
with RunFolder(Path(sys.argv[1])).locked():
    print("held", flush=True)
    sys.stdin.readline()
"""


def hold(folder):
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, folder], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "held\n"
    return process


def end(process):
    process.stdin.close()
    process.stdout.close()
    process.wait()


def test_a_second_process_is_rejected_with_the_name_of_the_holder(tmp_path):
    first = hold(tmp_path)
    with pytest.raises(RunInUse) as refused, RunFolder(tmp_path).locked():
        pass
    assert str(refused.value).startswith(f"{tmp_path} is in use by process {first.pid} on ")
    assert "\n" not in str(refused.value)
    end(first)
    with RunFolder(tmp_path).locked():
        pass


def test_where_no_run_was_started_nothing_remains(tmp_path):
    folder = RunFolder(tmp_path / "runs" / "fashion_mnist" / "0")
    with pytest.raises(KeyboardInterrupt), folder.locked():
        assert folder.path.is_dir()
        raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "thesis.tex").touch()
    with RunFolder(tmp_path).locked():
        pass
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]
    with folder.locked():
        folder.start(TrainConfig(), {})
    assert sorted(path.name for path in folder.path.iterdir()) == [".lock", "config.json"]


def test_a_lock_file_removed_between_opening_and_locking_locks_nothing(tmp_path, monkeypatch):
    """Otherwise two processes could hold the lock, each on a file of its own."""
    lock, attempts = tmp_path / ".lock", []

    def lock_after_removal(descriptor, blocking):
        attempts.append(descriptor)
        if len(attempts) == 1:
            lock.unlink()
        return lock_descriptor(descriptor, blocking=blocking)

    monkeypatch.setattr("lenet_keras.runs.lock_descriptor", lock_after_removal)
    with RunFolder(tmp_path).locked():
        assert len(attempts) == 2
        assert lock.read_text().startswith("process ")


def test_a_dead_process_holds_no_lock_and_is_not_named(tmp_path):
    dead = hold(tmp_path)
    dead.send_signal(signal.SIGKILL)
    end(dead)
    living = hold(tmp_path)
    with pytest.raises(RunInUse, match=f"process {living.pid} on"), RunFolder(tmp_path).locked():
        pass
    end(living)


def test_a_released_lock_names_nobody(tmp_path):
    (tmp_path / "config.json").touch()  # a run
    with RunFolder(tmp_path).locked():
        assert (tmp_path / ".lock").read_text().startswith("process ")
    assert (tmp_path / ".lock").read_text() == ""
