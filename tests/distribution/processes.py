"""Workers as real processes of the command line, on this machine."""

import contextlib
import os
import threading

from lenet_keras.distribution.cluster import free_addresses, tf_config

from ..forked import Forked

TRAIN = ["train", "--dataset", "fashion_mnist_sample", "--no-export"]


class Worker:
    """A process, and the lines that it has written to stderr so far."""

    def __init__(self, arguments, environment, folder):
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self.process = Forked(arguments, env={**os.environ, **environment}, cwd=folder)
        self.lines = []
        self._changed = threading.Condition()
        self.reader = threading.Thread(target=self._read, daemon=True)
        self.reader.start()

    def _read(self):
        with self.process.stderr as lines:
            for line in lines:
                with self._changed:
                    self.lines.append(line.rstrip())
                    self._changed.notify_all()

    def wait_for(self, text, timeout=90):
        """Return when a line that starts with `text` has been read."""
        with self._changed:
            is_read = self._changed.wait_for(lambda: any(line.startswith(text) for line in self.lines), timeout)
        assert is_read, self.lines

    def result(self, timeout=90):
        """Return the exit code, stdout, and the last line of stderr."""
        code = self.process.wait(timeout)
        self.reader.join(timeout)
        with self.process.stdout as out:
            return code, out.read(), self.lines[-1] if self.lines else ""


@contextlib.contextmanager
def cluster(count, *options, folder, command=TRAIN):
    """Start `count` workers, each in its own current folder; those that still run at the end are killed."""
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
            worker.reader.join()
