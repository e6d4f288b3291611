"""Standard streams that are closed, full or gone."""

import os
import pty
import subprocess
import sys
import threading

import pytest

from lenet_keras.checkpoint import StateStore
from lenet_keras_cli.streams import _Stream

from ..forked import Forked

FULL = "Error: the results could not be written to stdout: No space left on device\n"
CLOSED = "Error: the results could not be written to stdout: Bad file descriptor\n"


@pytest.mark.parametrize(
    ("redirection", "code", "error"),
    [
        (">&-", 1, CLOSED),
        (">/dev/full", 1, FULL),
        ("2>&-", 0, ""),
        ("2>/dev/full", 0, ""),
        (">&- 2>&- <&-", 1, ""),
        (">/dev/full 2>&-", 1, ""),
    ],
)
@pytest.mark.parametrize("arguments", ["models", "--version", "serve --help"])
def test_only_lost_results_are_an_error(lenet_keras, redirection, code, error, arguments):
    line = f"exec {lenet_keras} {arguments} {redirection}"
    process = subprocess.run(["sh", "-c", line], capture_output=True, text=True, check=False)
    assert (process.returncode, process.stderr) == (code, error)
    assert bool(process.stdout) == (code == 0)


def test_a_usage_error_keeps_its_code_when_nobody_can_read_it(lenet_keras):
    process = subprocess.run(["sh", "-c", f"exec {lenet_keras} nonsense >&- 2>&-"], check=False)
    assert process.returncode == 2


def test_a_reader_that_has_gone_is_an_error_without_a_word(lenet_keras):
    reader, writer = os.pipe()
    os.close(reader)
    process = subprocess.run([lenet_keras, "models"], stdout=writer, stderr=subprocess.PIPE, check=False)
    os.close(writer)
    assert (process.returncode, process.stderr) == (1, b"")


def test_training_goes_on_when_nobody_reads_its_progress(tmp_path):
    arguments = ["train", "--dataset", "fashion_mnist_sample", "--epochs", "2", "--no-export"]
    process = Forked(arguments, cwd=tmp_path, env=os.environ)
    process.stderr.close()
    with process.stdout as out:
        assert "lenet-keras tensorboard" in out.read()
    assert process.wait() == 0
    assert len(StateStore(tmp_path / "runs/fashion_mnist_sample/none/0").read().history) == 2


def test_training_goes_on_when_its_terminal_has_gone(lenet_keras, tmp_path):
    terminal, inner = pty.openpty()
    process = subprocess.Popen(  # a real start: a forked process has no terminal
        [lenet_keras, "train", "--dataset", "fashion_mnist_sample", "--epochs", "20", "--no-export", "--json"],
        cwd=tmp_path, stderr=inner, stdout=subprocess.DEVNULL, env={**os.environ, "TERM": "xterm"},
    )  # fmt: skip
    os.close(inner)
    shown = b""
    while b"1/20" not in shown:
        shown += os.read(terminal, 4096)
    os.close(terminal)
    assert process.wait() == 0
    assert len(StateStore(tmp_path / "runs/fashion_mnist_sample/none/0").read().history) == 20


@pytest.mark.parametrize("closed", ["<&-", "<&- 2>&-", "<&- 2>&- >&-"])
def test_no_file_receives_the_number_of_a_closed_stream(tmp_path, closed):
    program = """
import sys
from lenet_keras_cli import streams
streams.prepare()
with open(sys.argv[1], "w") as file:
    file.write(str(file.fileno()))
"""
    line = f'exec "$@" {closed}'
    subprocess.run(["sh", "-c", line, "sh", sys.executable, "-c", program, tmp_path / "number"], check=True)
    assert int((tmp_path / "number").read_text()) > 2


def test_a_pipe_that_somebody_made_non_blocking_loses_nothing():
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    received = []
    with os.fdopen(reader, "rb") as source:
        thread = threading.Thread(target=lambda: received.append(source.read()))
        stream = _Stream(writer, "w")
        rest = memoryview(bytes(500_000))
        rest = rest[stream.write(rest) :]
        thread.start()
        while rest:
            rest = rest[stream.write(rest) :]
        stream.close()
        thread.join()
    assert stream.error is None
    assert len(received[0]) == 500_000
