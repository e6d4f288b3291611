"""Requests to stop, at any instant, whatever becomes of the exception that obeys them."""

import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest

# The process of the command, with another command in it.
PROGRAM = """
import signal, sys, time, types, weakref
from lenet_keras_cli.interruption import interruption

class Thing:
    def __enter__(self): pass
    def __exit__(self, *_):
        signal.raise_signal(signal.SIGTERM)
        print("tidied up")

def command(prog_name):
{body}

sys.modules["lenet_keras_cli.main"] = types.SimpleNamespace(main=command)
from lenet_keras_cli.__main__ import main
main()
"""


def call(body, *wrapper):
    program = PROGRAM.format(body="\n".join(f"    {line}" for line in body))
    return subprocess.run(
        [*wrapper, sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=30
    )


@pytest.mark.parametrize(
    ("body", "code", "output"),
    [
        (["signal.raise_signal(signal.SIGINT)"], 130, ""),
        (["signal.raise_signal(signal.SIGHUP)"], 129, ""),
        # discarded by Python, in a callback of a weak reference
        (["t = Thing()", "r = weakref.ref(t, lambda _: signal.raise_signal(signal.SIGINT))", "del t",
          "print('discarded')", "time.sleep(60)"], 130, "discarded\n"),
        # discarded by a library, again and again
        (["for _ in range(3):", "    try: signal.raise_signal(signal.SIGTERM), time.sleep(60)",
          "    except BaseException: print('discarded')", "time.sleep(60)"], 143, "discarded\n" * 3),
        # discarded, and then the command ends as if nothing had happened
        (["try: signal.raise_signal(signal.SIGTERM)", "except BaseException: pass", "sys.exit(0)"], 143, ""),
        # turned into another exception, as by an import
        (["try: signal.raise_signal(signal.SIGTERM)", "except BaseException: raise ImportError('TF')"], 143, ""),
        # while something is tidied up, which is not disturbed
        (["with Thing(): pass", "time.sleep(60)"], 143, "tidied up\n"),
        (["interruption.hold_back()", "signal.raise_signal(signal.SIGTERM)", "signal.raise_signal(signal.SIGHUP)",
          "time.sleep(0.3)", "print('saved')", "interruption.check()"], 143, "saved\n"),
        # a second Ctrl-C
        (["interruption.hold_back()", "signal.raise_signal(signal.SIGINT)", "print('held')",
          "signal.raise_signal(signal.SIGINT)", "print('saved')"], 130, "held\n"),
    ],
)  # fmt: skip
def test_a_request_to_stop_is_never_lost(body, code, output):
    process = call(body)
    assert (process.returncode, process.stdout, process.stderr) == (code, output, "Interrupted.\n")


def test_a_signal_that_was_ignored_from_the_start_stays_ignored():
    body = [f"signal.raise_signal(signal.{name})" for name in ("SIGINT", "SIGTERM", "SIGHUP")]
    process = call([*body, "print('went on')"], "sh", "-c", 'trap "" INT TERM HUP; exec "$@"', "sh")
    assert (process.returncode, process.stdout, process.stderr) == (0, "went on\n", "")


def test_a_signal_at_a_random_instant_is_one_line_and_its_code(lenet_keras, chance: random.Random, repeats: int):
    for attempt in range(2 * repeats):  # real starts: the import of TensorFlow is what they interrupt
        number = chance.choice([signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
        process = subprocess.Popen([lenet_keras, "models", "none"], stderr=subprocess.PIPE, stdout=subprocess.DEVNULL)
        while not handles(process.pid, signal.SIGHUP):  # before that, Python's own handlers apply
            assert process.poll() is None
        try:
            process.wait(chance.uniform(0, 3) if attempt else 0)
        except subprocess.TimeoutExpired:
            process.send_signal(number)
        error = process.communicate()[1]
        if process.returncode:
            assert (process.returncode, error) in ((128 + number, b"Interrupted.\n"), (-number, b""))
        else:
            assert error == b""


def handles(pid, number):
    caught = next(line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("SigCgt"))
    return bool(int(caught.split()[1], 16) >> (number - 1) & 1)
