"""Workers as real processes of the command line, on this machine."""

import contextlib
import os
import subprocess
import sys
import threading

from lenet_keras.distribution.cluster import tf_config
from lenet_keras.distribution.local_workers import free_addresses

TRAIN = [sys.executable, "-m", "lenet_keras_cli", "train", "--dataset", "fashion_mnist_sample", "--no-export"]


class Worker:
    """A process, with what it says on stderr as it says it."""

    def __init__(self, command, environment, folder):
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self.process = subprocess.Popen(
            command, env={**os.environ, **environment}, cwd=folder, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip
        self.lines = []
        self._changed = threading.Condition()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self):
        for line in self.process.stderr:
            with self._changed:
                self.lines.append(line.rstrip())
                self._changed.notify_all()

    def wait_for(self, text, timeout=90):
        """Return when a line that begins with `text` has come."""
        with self._changed:
            came = self._changed.wait_for(lambda: any(line.startswith(text) for line in self.lines), timeout)
        assert came, self.lines

    def result(self, timeout=90):
        """Exit code, stdout, and the last line of stderr."""
        code = self.process.wait(timeout)
        self._reader.join(timeout)
        return code, self.process.stdout.read(), self.lines[-1] if self.lines else ""


@contextlib.contextmanager
def cluster(count, *options, folder, command=TRAIN):
    """Start `count` workers, each in a current folder of its own; what is left of them at the end is killed."""
    addresses = free_addresses(count)
    workers = []
    try:
        for index in range(count):
            environment = {"TF_CONFIG": tf_config(addresses, index)}
            workers.append(Worker([*command, *map(str, options)], environment, folder / str(index)))
        yield workers
    finally:
        for worker in workers:
            worker.process.kill()
            worker.process.wait()
            worker.process.stdout.close()
