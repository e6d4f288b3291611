"""A multi-worker training on this machine: one process a worker, for tries and tests."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import time
from collections.abc import Sequence

from lenet_keras.distribution.cluster import from_tf_config, tf_config
from lenet_keras.errors import InvalidArgument

_GRACE = 30.0  # seconds until the others of a worker that failed, or was interrupted, are killed
_GLANCE = 0.1  # seconds between two looks at the workers


def is_local_worker(count: int) -> bool:
    """Whether this process is one of `count` workers, as TF_CONFIG says, and not the one that is to start them.

    Raises:
        InvalidArgument: TF_CONFIG names another number of workers.
    """
    if not os.environ.get("TF_CONFIG"):
        return False
    named = len(from_tf_config(os.environ["TF_CONFIG"]).addresses)
    if named != count:
        raise InvalidArgument(f"{count} workers were asked for, and TF_CONFIG names {named}. Unset TF_CONFIG.")
    return True


def run_local_workers(command: Sequence[str], count: int) -> int:
    """Run `command` as `count` workers of a cluster on 127.0.0.1, and wait until all have ended.

    They share this process's standard streams. When one fails, or this process is interrupted, the others are given
    half a minute to end by themselves, and killed then.

    Returns:
        0 if all succeeded; else the exit code of the first that failed, 1 for one that a signal ended.

    Raises:
        KeyboardInterrupt: passed on, when the workers have ended.
    """
    addresses = free_addresses(count)
    workers: list[subprocess.Popen[bytes]] = []
    try:
        for index in range(count):
            environment = {**os.environ, "TF_CONFIG": tf_config(addresses, index)}
            # A session of its own: Ctrl-C in the terminal comes here alone, and is passed on once.
            workers.append(subprocess.Popen(command, env=environment, start_new_session=True))
        return _wait(workers)
    except KeyboardInterrupt:
        for worker in workers:
            worker.terminate()
        _wait_for_all(workers, time.monotonic() + _GRACE)
        raise
    finally:
        for worker in workers:
            worker.kill()
            worker.wait()


def _wait(workers: Sequence[subprocess.Popen[bytes]]) -> int:
    while True:
        ended = [worker.returncode for worker in workers if worker.poll() is not None]
        failed = [code for code in ended if code != 0]
        if failed:
            _wait_for_all(workers, time.monotonic() + _GRACE)
            return failed[0] if failed[0] > 0 else 1
        if len(ended) == len(workers):
            return 0
        time.sleep(_GLANCE)


def _wait_for_all(workers: Sequence[subprocess.Popen[bytes]], deadline: float) -> None:
    for worker in workers:
        with contextlib.suppress(subprocess.TimeoutExpired):
            worker.wait(max(0.0, deadline - time.monotonic()))


def free_addresses(count: int) -> tuple[str, ...]:
    """So many different addresses on 127.0.0.1 whose ports nobody has taken yet."""
    # All open at once, so that they differ.
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return tuple(f"127.0.0.1:{each.getsockname()[1]}" for each in sockets)
