"""Processes of the command line, forked from one that has imported TensorFlow and not used it: seconds less for each.

Run by its path, this file is that process: it listens on the Unix socket named by its argument until its standard input
ends. A connection sends one line of JSON (arguments, folder, environment) with two descriptors for stdout and stderr,
and receives the process's number and, when it has ended, its exit code.
"""

import contextlib
import functools
import importlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
from pathlib import Path


class Forked:
    """A process of `lenet-keras`, to be used like a `subprocess.Popen` in text mode."""

    def __init__(self, arguments, *, cwd, env):
        (out, out_end), (err, err_end) = os.pipe(), os.pipe()
        self._connection = socket.socket(socket.AF_UNIX)
        self._connection.connect(_server()[1])
        request = {"arguments": [str(each) for each in arguments], "cwd": str(cwd), "env": dict(env)}
        socket.send_fds(self._connection, [json.dumps(request).encode() + b"\n"], [out_end, err_end])
        for end in (out_end, err_end):
            os.close(end)
        self.stdout, self.stderr = os.fdopen(out), os.fdopen(err)
        self.pid = int(self._connection.recv(20))
        self.returncode = None

    def wait(self, timeout=None):
        """Return the exit code."""
        if self.returncode is None:
            self._connection.settimeout(timeout)
            try:
                self.returncode = int(self._connection.recv(20))
            except TimeoutError as error:
                raise subprocess.TimeoutExpired(f"process {self.pid}", timeout) from error
            self._connection.close()
        return self.returncode

    def send_signal(self, number):
        """Send a signal."""
        if self.returncode is None:
            os.kill(self.pid, number)

    def kill(self):
        """Kill the process, if it still runs."""
        with contextlib.suppress(ProcessLookupError):
            self.send_signal(signal.SIGKILL)


@functools.cache
def _server():
    path = Path(tempfile.mkdtemp(), "socket")
    process = subprocess.Popen(
        [sys.executable, __file__, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True
    )
    assert process.stdout.readline() == b"ready\n"
    return process, str(path)  # kept together: its standard input ends with this process


def _fork(connection):
    """Fork for one request; in the child, return its arguments, in the parent, the child's number."""
    line, descriptors, _, _ = socket.recv_fds(connection, 1 << 20, 2)
    while not line.endswith(b"\n"):
        line += connection.recv(1 << 20)
    request = json.loads(line)
    child = os.fork()
    if child:
        for descriptor in descriptors:
            os.close(descriptor)
        connection.sendall(str(child).encode())
        return child, None
    for target, descriptor in enumerate([os.open(os.devnull, os.O_RDONLY), *descriptors]):
        os.dup2(descriptor, target)
        os.close(descriptor)
    os.chdir(request["cwd"])
    os.environ.clear()
    os.environ.update(request["env"])
    signal.signal(signal.SIGINT, signal.default_int_handler)
    return 0, request["arguments"]


def _serve(path):
    """Fork children until standard input ends; return in a child, with its arguments."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path)
    listener.listen()
    print("ready", flush=True)
    running = {}
    while True:
        readable = select.select([listener, sys.stdin], [], [], 0.02)[0]
        if sys.stdin in readable:
            return None
        if listener in readable:
            connection = listener.accept()[0]
            child, arguments = _fork(connection)
            if not child:
                for each in (listener, connection, *running.values()):
                    each.close()
                return arguments
            running[child] = connection
        while running and (ended := os.waitpid(-1, os.WNOHANG))[0]:
            with running.pop(ended[0]) as connection, contextlib.suppress(BrokenPipeError):
                connection.sendall(str(os.waitstatus_to_exitcode(ended[1])).encode())


def _main():
    from lenet_keras import runtime

    runtime.load_tensorflow()
    for name in ("lenet_keras.training.train", "lenet_keras.export.publish", "lenet_keras_cli.main"):
        importlib.import_module(name)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    socket_path = Path(sys.argv[1])
    arguments = _serve(str(socket_path))
    if arguments is None:
        socket_path.unlink()
        socket_path.parent.rmdir()
    else:
        from lenet_keras_cli.__main__ import main

        sys.argv = ["lenet-keras", *arguments]
        main()


if __name__ == "__main__":
    _main()
