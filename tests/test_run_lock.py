"""The lock of a run folder, between real processes."""

import signal
import subprocess
import sys

import pytest

from lenet_keras.errors import LenetKerasError
from lenet_keras.run_lock import locked

HOLDER = """
import sys
from pathlib import Path
from lenet_keras.run_lock import locked
with locked(Path(sys.argv[1])):
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


def test_the_second_process_is_refused_and_told_who_holds_it(tmp_path):
    first = hold(tmp_path)
    with pytest.raises(LenetKerasError) as refused, locked(tmp_path):
        pass
    assert str(refused.value).startswith(f"{tmp_path} is in use by process {first.pid} on ")
    assert "\n" not in str(refused.value)
    end(first)
    with locked(tmp_path):
        pass


def test_a_dead_process_holds_nothing_and_is_not_named(tmp_path):
    dead = hold(tmp_path)
    dead.send_signal(signal.SIGKILL)
    end(dead)
    living = hold(tmp_path)
    with pytest.raises(LenetKerasError, match=f"process {living.pid} on"), locked(tmp_path):
        pass
    end(living)


def test_a_lock_that_ended_in_order_names_nobody(tmp_path):
    with locked(tmp_path):
        assert (tmp_path / ".lock").read_text().startswith("process ")
    assert (tmp_path / ".lock").read_text() == ""
