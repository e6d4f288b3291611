"""The workers of a cluster join the chief before TensorFlow connects them.

TensorFlow waits an hour for missing workers, ignores Ctrl-C meanwhile, and does not say which are missing. So the
workers first connect to the chief by plain sockets, on the port that TensorFlow uses next. Each sends its terms, the
settings and versions that must be the same everywhere. When all have joined on the same terms, the chief sends each its
message: what to do, and the state to start from. There is no authentication, as in TensorFlow's own protocol: a cluster
belongs in a private network.
"""

from __future__ import annotations

import contextlib
import json
import logging
import select
import socket
import time
from collections.abc import Mapping, Sequence
from typing import Any

from lenet_keras.distribution.cluster import Cluster
from lenet_keras.errors import ClusterError, ClusterTimeout, excerpt

Terms = Mapping[str, Any]

_LONGEST_LINE = 64 * 1024  # bytes
_REPORT_AFTER = 5.0  # seconds of waiting before the log says for which workers
_PAUSE = 0.2  # seconds between two attempts to reach the chief
_PATIENCE = 5.0  # seconds for a line that has started; a connection that sends none is not a worker's
_TRANSFER = 60.0  # seconds for the chief's message
_RELEASE = 10.0  # seconds in which a chief that will not train answers workers that join

logger = logging.getLogger(__name__)


def lead(cluster: Cluster, terms: Terms, message: bytes, timeout: float) -> None:
    """As the chief: wait until all workers have joined on the same terms, then send them `message`.

    Args:
        cluster: the workers.
        terms: JSON values that must be the same for all: settings, versions.
        message: what `join` returns in the other workers.
        timeout: seconds to wait.

    Raises:
        ClusterTimeout: a worker has not joined after `timeout`; the message names it.
        ClusterError: terms differ; the message names the worker and the difference. Workers that have joined receive
            either error.
        OSError: the chief's port is taken.
    """
    with _Chief(cluster) as chief:
        missing = chief.wait(time.monotonic() + timeout)
        error: ClusterError | None = None
        if missing:
            error = ClusterTimeout(f"{_names(cluster, missing)} did not join within {timeout:g} s.")
        else:
            ours = json.loads(json.dumps(terms))
            differences = (_difference(cluster.name(i), theirs, ours) for i, theirs in sorted(chief.terms.items()))
            difference = next(filter(None, differences), None)
            error = ClusterError(difference) if difference else None
        chief.answer({"rejection": str(error), "is_timeout": bool(missing)} if error else {}, message)
    if error:
        raise error


def join(cluster: Cluster, terms: Terms, timeout: float) -> bytes:
    """As any other worker: join the chief, and return its message. Arguments and errors are those of `lead`.

    Raises:
        ClusterTimeout: the chief, or another worker, has not joined after `timeout`.
        ClusterError: terms differ, or the chief rejects the training.
    """
    start, is_reported, cause = time.monotonic(), False, "no answer"
    while True:
        left = start + timeout - time.monotonic()
        if left <= 0:
            raise ClusterTimeout(f"{cluster.name(0)}, the chief, did not join within {timeout:g} s: {cause}.")
        if not is_reported and timeout - left > _REPORT_AFTER:
            logger.info("%s is waiting for %s, the chief: %s", cluster.name(cluster.index), cluster.name(0), cause)
            is_reported = True
        try:
            answer = _ask_chief(cluster, terms, left)
        except (OSError, ValueError) as error:
            cause = str(getattr(error, "strerror", None) or error)
        else:
            if answer is not None:
                break
            cause = "the connection was closed"
        time.sleep(_PAUSE)
    header, message = answer
    if "rejection" in header:
        raise (ClusterTimeout if header.get("is_timeout") else ClusterError)(str(header["rejection"]))
    return message


def release(cluster: Cluster, message: bytes) -> None:
    """As a chief with nothing left to train: send `message` to the workers that join within ten seconds."""
    _answer_for_a_while(cluster, {}, message)


def reject(cluster: Cluster, reason: str) -> None:
    """As a chief that cannot train: send the reason to the workers that join within ten seconds."""
    _answer_for_a_while(cluster, {"rejection": f"{cluster.name(0)} cannot train: {reason}"})


def _answer_for_a_while(cluster: Cluster, header: Mapping[str, Any], message: bytes = b"") -> None:
    with contextlib.suppress(OSError), _Chief(cluster) as chief:
        chief.wait(time.monotonic() + _RELEASE)
        chief.answer(header, message)


def _ask_chief(cluster: Cluster, terms: Terms, seconds: float) -> tuple[dict[str, Any], bytes] | None:
    with socket.create_connection(cluster.host_and_port(0), timeout=min(seconds, _PATIENCE)) as connection:
        connection.sendall(_line({"index": cluster.index, "terms": terms}))
        # The chief's own timeout comes first, so that its answer can name the missing workers.
        connection.settimeout(seconds + _RELEASE)
        with connection.makefile("rb") as stream:
            header = _parse(stream.readline(_LONGEST_LINE))
            if header is None:
                return None
            size = header.get("size")
            if not isinstance(size, int) or size < 0:
                raise ValueError("the answer is not a chief's")
            connection.settimeout(_TRANSFER)
            message = stream.read(size)
    return (header, message) if len(message) == size else None


class _Chief:
    """The chief's port, and the workers that have joined and wait for an answer."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._waiting: dict[int, socket.socket] = {}
        self.terms: dict[int, Terms] = {}
        port = cluster.host_and_port(0)[1]
        try:
            if socket.has_dualstack_ipv6():
                self._listener = socket.create_server(("", port), family=socket.AF_INET6, dualstack_ipv6=True)
            else:
                self._listener = socket.create_server(("", port))
        except OSError as error:
            raise OSError(error.errno, f"{error.strerror} (the chief's port)", cluster.addresses[0]) from error

    def __enter__(self) -> _Chief:
        return self

    def __exit__(self, *_: object) -> None:
        for connection in self._waiting.values():
            connection.close()
        self._listener.close()

    def wait(self, deadline: float) -> list[int]:
        """Let workers join until none is missing or `deadline`, on the monotonic clock, passes; return the missing."""
        report_at = time.monotonic() + _REPORT_AFTER
        while (missing := self._missing()) and (now := time.monotonic()) < deadline:
            if now > report_at:
                logger.info("waiting for %s", _names(self._cluster, missing))
                report_at = deadline
            self._listener.settimeout(min(_PAUSE, deadline - now))
            with contextlib.suppress(OSError):  # nothing connected, or the connection was closed at once
                self._accept(self._listener.accept()[0])
        return missing

    def answer(self, header: Mapping[str, Any], message: bytes) -> None:
        """Answer the workers that wait."""
        for connection in self._waiting.values():
            connection.settimeout(_TRANSFER)
            with contextlib.suppress(OSError):
                connection.sendall(_line({**header, "size": len(message)}) + message)

    def _missing(self) -> list[int]:
        for index, connection in list(self._waiting.items()):
            # A worker sends one line only: anything else that can be read is the end of its connection.
            if select.select([connection], [], [], 0)[0]:
                self._forget(index)
        return [index for index in range(1, len(self._cluster.addresses)) if index not in self._waiting]

    def _accept(self, connection: socket.socket) -> None:
        connection.settimeout(_PATIENCE)
        try:
            with connection.makefile("rb") as stream:
                request = _parse(stream.readline(_LONGEST_LINE)) or {}
            index, terms = request["index"], request["terms"]
            if index not in range(1, len(self._cluster.addresses)) or not isinstance(terms, dict):
                raise ValueError
        except (OSError, ValueError, KeyError):  # a port scanner, or a worker of something else
            connection.close()
            return
        self._forget(index)  # it was restarted
        self._waiting[index], self.terms[index] = connection, terms

    def _forget(self, index: int) -> None:
        if index in self._waiting:
            self._waiting.pop(index).close()
            self.terms.pop(index)


def _names(cluster: Cluster, indices: Sequence[int]) -> str:
    return ", ".join(cluster.name(index) for index in indices)


def _difference(name: str, theirs: Terms, ours: Terms) -> str | None:
    for key in sorted({*theirs, *ours}):
        if theirs.get(key) != ours.get(key):
            return (
                f"{name} was started with {key} {excerpt(theirs.get(key))}, the chief with {excerpt(ours.get(key))}. "
                "All workers need the same settings and versions."
            )
    return None


def _line(content: Mapping[str, Any]) -> bytes:
    return json.dumps(content).encode() + b"\n"


def _parse(line: bytes) -> dict[str, Any] | None:
    # None if the connection was closed before the end of the line.
    if not line.endswith(b"\n"):
        return None
    try:
        content = json.loads(line)
    except RecursionError as error:
        raise ValueError("not a message of a worker") from error
    if not isinstance(content, dict):
        raise ValueError("not a message of a worker")
    return content
