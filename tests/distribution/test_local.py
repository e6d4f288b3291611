"""Processes that stand in for the workers of one machine: how they are watched, stopped and reported."""

import os
import re
import select
import signal
import subprocess
import sys
import time

import pytest

from lenet_keras.distribution import local as module
from lenet_keras.distribution.cluster import tf_config
from lenet_keras.distribution.local import run_local_workers

# A worker, with what each of two does. Its standard output, and that of all that it starts, is the tests' pipe.
WORKER = """
import json, os, signal, subprocess, sys, time
index = json.loads(os.environ["TF_CONFIG"])["task"]["index"]
os.dup2(os.open(os.environ["PIPE"], os.O_WRONLY), 1)
exec(sys.argv[1 + index])
"""
WAIT = "signal.signal(signal.SIGTERM, lambda *_: sys.exit(7)); time.sleep(60)"
DEAF = "signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(60)"


def kill_self(number):
    return f"os.kill(os.getpid(), {int(number)})"


def run(first, second):
    """Run two workers; return the exit code and the seconds that it took."""
    started = time.monotonic()
    code = run_local_workers([sys.executable, "-I", "-S", "-c", WORKER, first, second], 2)
    return code, time.monotonic() - started


@pytest.fixture(autouse=True)
def nothing_is_left(tmp_path, monkeypatch):
    """Wait after the test until all workers, and all that they have started, have ended."""
    os.mkfifo(tmp_path / "pipe")
    monkeypatch.setenv("PIPE", str(tmp_path / "pipe"))
    ours = os.open(tmp_path / "pipe", os.O_RDONLY | os.O_NONBLOCK)
    yield
    with os.fdopen(ours, "rb") as pipe:
        assert select.select([pipe], [], [], 20)[0], "something is left"
        assert pipe.read() == b""


@pytest.mark.parametrize("lost", [0, 1])
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV, signal.SIGRTMIN + 3])
def test_a_worker_that_a_signal_ends_is_named_at_once_and_the_other_stopped(caplog, monkeypatch, lost, number):
    monkeypatch.setattr(module, "_NOTICE", 0.3)
    programs = [WAIT, WAIT]
    programs[lost] = kill_self(number)
    code, seconds = run(*programs)
    name = number.name if isinstance(number, signal.Signals) else f"signal {number}"
    (message,) = caplog.messages
    assert re.fullmatch(rf"worker {lost} \(127.0.0.1:\d+\) was ended by {name}; all workers are stopped", message)
    assert code == 1
    assert seconds < 10


def test_the_loss_is_reported_before_the_others_are_waited_for(monkeypatch):
    reported = []
    monkeypatch.setattr(module.logger, "error", lambda text: reported.append(time.monotonic()))
    monkeypatch.setattr(module, "_NOTICE", 1.0)
    run(WAIT, kill_self(signal.SIGKILL))
    assert time.monotonic() - reported[0] > 0.9


def test_the_others_may_say_themselves_that_one_is_lost(caplog):
    code, _ = run("time.sleep(0.3); sys.exit(1)", kill_self(signal.SIGKILL))
    assert code == 1
    assert "worker 1" in caplog.text


def test_a_worker_that_fails_is_named_if_the_others_must_be_stopped(caplog, monkeypatch):
    monkeypatch.setattr(module, "_NOTICE", 0.3)
    assert run(WAIT, "sys.exit(3)")[0] == 3
    assert re.fullmatch(r"worker 1 \(\S+\) ended with exit code 3; all workers are stopped", *caplog.messages)


def test_workers_that_fail_together_have_said_why(caplog):
    assert run("sys.exit(2)", "sys.exit(2)")[0] == 2
    assert caplog.messages == []


def test_workers_that_succeed_at_different_times(caplog):
    assert run("time.sleep(0.3)", "pass")[0] == 0
    assert caplog.messages == []


def test_a_worker_that_does_not_stop_is_killed_with_all_that_it_has_started(monkeypatch):
    """As one that waits in TensorFlow for the lost worker."""
    monkeypatch.setattr(module, "_NOTICE", 0.3)
    monkeypatch.setattr(module, "_LOST", 0.3)
    child = f"subprocess.Popen([sys.executable, '-c', 'import signal, time; ' + {DEAF!r}]); "
    code, seconds = run(child + DEAF, f"time.sleep(0.5); {kill_self(signal.SIGKILL)}")
    assert code == 1
    assert seconds < 20


def test_what_a_killed_worker_has_started_is_ended_too(monkeypatch):
    monkeypatch.setattr(module, "_NOTICE", 0.3)
    child = "subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)']); "
    assert run(WAIT, child + kill_self(signal.SIGKILL))[0] == 1


# The starter's own program; its workers call `end_with_starter`, as those of the command line do.
STARTER = """
import logging, sys
from lenet_keras.distribution import local
local._GRACE = 0.3
logging.basicConfig(stream=sys.stderr, format="%(message)s")
local.run_local_workers([sys.executable, "-c", sys.argv[1], *sys.argv[2:]], 2)
"""
JOINED = "import lenet_keras.distribution.local as local; local._GRACE = 0.3; local.end_with_starter()\n" + WORKER


@pytest.mark.parametrize("program", [WAIT, DEAF])
def test_workers_end_when_the_process_that_started_them_is_killed(program, tmp_path):
    """Those that do not end by SIGTERM are killed; the fixture waits for their end."""
    ready = f"open(f'{tmp_path}/ready{{index}}', 'w').close(); "
    starter = subprocess.Popen([sys.executable, "-c", STARTER, JOINED, ready + program, ready + program])
    try:
        deadline = time.monotonic() + 60
        while len(list(tmp_path.glob("ready*"))) < 2:
            assert time.monotonic() < deadline
            time.sleep(0.02)
    finally:
        starter.kill()
        starter.wait()


def test_a_number_that_is_not_an_open_pipe_ends_nothing(monkeypatch):
    monkeypatch.setenv(module._LIFELINE, "987")
    program = JOINED.replace("exec(sys.argv[1 + index])", "time.sleep(0.3)")
    environment = {**os.environ, "TF_CONFIG": tf_config(["127.0.0.1:1"], 0)}
    assert subprocess.run([sys.executable, "-c", program], env=environment, check=False).returncode == 0
