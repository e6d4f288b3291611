"""Workers on this machine, as processes that one process starts, watches and stops.

Each is in a session of its own, so that Ctrl-C in the terminal reaches the starting process only. Both sides see the
other end: that process waits for the workers, and they hold a pipe that ends with it, however it does.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import subprocess
import threading
import time
from collections.abc import Sequence

from lenet_keras.distribution.cluster import free_addresses, from_tf_config, tf_config
from lenet_keras.errors import InvalidArgument

_LIFELINE = "LENET_KERAS_LIFELINE"  # in a worker's environment: the number of its end of the pipe
_POLL = 0.1  # seconds between two checks of the workers
_NOTICE = 2.0  # seconds for the others to end by themselves once one is lost: they may say what is kept
_LOST = 10.0  # seconds that they get after SIGTERM; one that waits in TensorFlow for the lost worker ignores it
_GRACE = 30.0  # seconds for all workers to save and end when they are interrupted

logger = logging.getLogger(__name__)


def is_local_worker(count: int) -> bool:
    """Return whether this process is one of `count` workers, according to TF_CONFIG, and not the one that starts them.

    >>> is_local_worker(2)
    False

    Raises:
        InvalidCluster: TF_CONFIG cannot be used.
        InvalidArgument: it names another number of workers.
    """
    cluster = from_tf_config(os.environ.get("TF_CONFIG", ""))
    if cluster is None:
        return False
    named = len(cluster.addresses)
    if named != count:
        raise InvalidArgument(f"{count} workers were requested, but TF_CONFIG names {named}. Unset TF_CONFIG.")
    return True


def run_local_workers(command: Sequence[str], count: int) -> int:
    """Run `command` as `count` workers of a cluster on 127.0.0.1, and wait until all have ended.

    They share this process's standard streams. When one is lost, the log says which and how, and the others are
    stopped. When this process is interrupted, they get half a minute to end by themselves, and are then killed. Those
    that call `end_with_starter` also end if this process is killed.

    Returns:
        0 if all succeeded; otherwise the exit code of the first that failed, or 1 if a signal ended it.

    Raises:
        KeyboardInterrupt: passed on once the workers have ended.
    """
    addresses = free_addresses(count)
    lifeline, our_end = os.pipe()
    workers: list[subprocess.Popen[bytes]] = []
    try:
        for index in range(count):
            environment = {**os.environ, "TF_CONFIG": tf_config(addresses, index), _LIFELINE: str(lifeline)}
            workers.append(subprocess.Popen(command, env=environment, start_new_session=True, pass_fds=[lifeline]))
        while True:
            codes = [worker.poll() for worker in workers]
            if failed := {index: code for index, code in enumerate(codes) if code}:
                _stop_the_others(workers, [f"worker {i} ({addresses[i]}) {_end(code)}" for i, code in failed.items()])
                return max(next(iter(failed.values())), 1)
            if None not in codes:
                return 0
            time.sleep(_POLL)
    except KeyboardInterrupt:
        _terminate(workers, _GRACE)
        raise
    finally:
        for worker in workers:
            if worker.poll() is None:
                _kill_session(worker)
                worker.wait()
        os.close(lifeline)
        os.close(our_end)


def end_with_starter() -> None:
    """In a worker: from now on, end as by SIGTERM when the process that started it by `run_local_workers` has ended.

    >>> end_with_starter()  # does nothing in a process that was not started so
    """
    descriptor = os.environ.pop(_LIFELINE, "")
    if descriptor.isdecimal():
        threading.Thread(target=_wait_for_end, args=(int(descriptor),), name="lifeline", daemon=True).start()


def _wait_for_end(lifeline: int) -> None:
    try:
        os.read(lifeline, 1)
    except OSError:  # it is not open here: the environment was passed on to a process of another program
        return
    logger.warning("the process that started the workers has ended; this worker stops")
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(_GRACE)
    os.killpg(os.getpgrp(), signal.SIGKILL)


def _stop_the_others(workers: Sequence[subprocess.Popen[bytes]], ends: Sequence[str]) -> None:
    for worker in workers:
        if (worker.returncode or 0) < 0:
            _kill_session(worker)  # of what it has started, too, nothing goes on
    report = f"{', '.join(ends)}; all workers are stopped"
    was_killed = any((worker.returncode or 0) < 0 for worker in workers)
    if was_killed:
        logger.error(report)
    if not _wait_for_all(workers, _NOTICE):
        if not was_killed:  # otherwise all have failed for one reason, and said so
            logger.error(report)
        _terminate(workers, _LOST)


def _terminate(workers: Sequence[subprocess.Popen[bytes]], seconds: float) -> None:
    for worker in workers:
        worker.terminate()
    _wait_for_all(workers, seconds)


def _wait_for_all(workers: Sequence[subprocess.Popen[bytes]], seconds: float) -> bool:
    # Returns whether all have ended.
    deadline = time.monotonic() + seconds
    for worker in workers:
        with contextlib.suppress(subprocess.TimeoutExpired):
            worker.wait(max(0.0, deadline - time.monotonic()))
    return all(worker.returncode is not None for worker in workers)


def _kill_session(worker: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(worker.pid, signal.SIGKILL)


def _end(code: int) -> str:
    if code > 0:
        return f"ended with exit code {code}"
    try:
        return f"was ended by {signal.Signals(-code).name}"
    except ValueError:  # a real-time signal has no name
        return f"was ended by signal {-code}"
