"""The workers of a cluster join the chief before TensorFlow connects them.

TensorFlow waits an hour for missing workers, ignores Ctrl-C meanwhile, and does not say which are missing. So the
workers first connect to the chief by plain sockets, on the port that TensorFlow uses next. Each sends its terms, the
settings and versions that must be the same everywhere. When all have joined on the same terms, the chief sends each its
message: what to do, and the state to start from. There is no authentication, as in TensorFlow's own protocol: a cluster
belongs in a private network. But whoever connects by mistake, a port scanner or a monitor, delays nobody: the chief
reads all connections at once, and each has limits of time and size.
"""

from __future__ import annotations

import contextlib
import json
import logging
import selectors
import socket
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from lenet_keras.distribution.cluster import Cluster
from lenet_keras.errors import ClusterError, ClusterTimeout, excerpt

Terms = Mapping[str, Any]

_LONGEST_LINE = 64 * 1024  # bytes
_LARGEST_MESSAGE = 64 * 2**20  # bytes; a state of LeNet-5 has about one million
_MOST_UNREAD = 256  # connections that have not sent their line; one more ends the oldest
_CHUNK = 64 * 1024  # bytes
_REPORT_AFTER = 5.0  # seconds of waiting before the log says for which workers
_PAUSE = 0.2  # seconds between two attempts to reach the chief
_PATIENCE = 5.0  # seconds to connect, and for a line as a whole; a connection that takes longer is not a worker's
_MARGIN = 5.0  # seconds that a worker waits longer than the chief, whose answer then names the missing workers
_TRANSFER = 30.0  # seconds for the chief's message
_REJECTION = 10.0  # seconds in which a chief that cannot train answers workers that join

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
            either error. Or a worker left while it was sent the message.
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
        if error:
            chief.answer({"rejection": str(error), "is_timeout": bool(missing)}, b"", _MARGIN)
            raise error
        if lost := chief.answer({}, message, _TRANSFER):
            raise ClusterError(f"{_names(cluster, lost)} joined, but left before training started.")


def join(cluster: Cluster, terms: Terms, timeout: float) -> bytes:
    """As any other worker: join the chief, and return its message. Arguments and errors are those of `lead`.

    Raises:
        ClusterTimeout: the chief, or another worker, has not joined after `timeout`.
        ClusterError: terms differ, or the chief rejects the training.
    """
    deadline, is_reported, cause = time.monotonic() + timeout, False, "no answer"
    while True:
        left = deadline - time.monotonic()
        if left <= 0:
            raise ClusterTimeout(f"{cluster.name(0)}, the chief, did not join within {timeout:g} s: {cause}.")
        if not is_reported and timeout - left > _REPORT_AFTER:
            logger.info("%s is waiting for %s, the chief: %s", cluster.name(cluster.index), cluster.name(0), cause)
            is_reported = True
        try:
            answer = _ask_chief(cluster, terms, deadline, timeout)
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


def release(cluster: Cluster, message: bytes, timeout: float) -> None:
    """As a chief with nothing left to train: send `message` to the workers that join within `timeout` seconds."""
    _answer_for_a_while(cluster, {}, message, timeout)


def reject(cluster: Cluster, reason: str) -> None:
    """As a chief that cannot train: send the reason to the workers that join within ten seconds."""
    _answer_for_a_while(cluster, {"rejection": f"{cluster.name(0)} cannot train: {reason}"}, b"", _REJECTION)


def _answer_for_a_while(cluster: Cluster, header: Mapping[str, Any], message: bytes, seconds: float) -> None:
    with contextlib.suppress(OSError), _Chief(cluster) as chief:
        chief.wait(time.monotonic() + seconds)
        chief.answer(header, message, _MARGIN)


def _ask_chief(cluster: Cluster, terms: Terms, deadline: float, timeout: float) -> tuple[dict[str, Any], bytes] | None:
    # None if the connection was closed before the end of the answer. A chief that has started later than this worker
    # waits longer for the others, but no longer than `timeout` from now.
    patience = min(_PATIENCE, deadline - time.monotonic())
    with socket.create_connection(cluster.host_and_port(0), timeout=patience) as connection:
        connection.sendall(_line({"index": cluster.index, "terms": terms}))
        end = time.monotonic() + timeout + _MARGIN
        received = bytearray(_receive(connection, end))
        is_open = bool(received)
        line_end, end = min(end, time.monotonic() + _PATIENCE), min(end, time.monotonic() + _TRANSFER)
        while is_open and b"\n" not in received and len(received) < _LONGEST_LINE:
            received += (chunk := _receive(connection, line_end))
            is_open = bool(chunk)
        line, newline, message = received.partition(b"\n")
        if is_open and not newline:
            raise ValueError("the answer is not a chief's")
        if not newline:
            return None
        header = _parse(line)
        size = header.get("size")
        if not isinstance(size, int) or not 0 <= size <= _LARGEST_MESSAGE:
            raise ValueError("the answer is not a chief's")
        while is_open and len(message) < size:
            message += (chunk := _receive(connection, end))
            is_open = bool(chunk)
    return (header, bytes(message)) if len(message) == size else None


def _receive(connection: socket.socket, deadline: float) -> bytes:
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError("timed out")
    connection.settimeout(left)
    return connection.recv(_CHUNK)


@dataclass
class _Unread:
    """What a connection has sent of its line, and when that must be complete."""

    deadline: float
    received: bytearray = field(default_factory=bytearray)


class _Chief:
    """The chief's port, the connections to it, and among them the workers that have joined and wait for an answer."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._unread: dict[socket.socket, _Unread] = {}  # the oldest first
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
        self._listener.setblocking(False)
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._listener, selectors.EVENT_READ)

    def __enter__(self) -> _Chief:
        return self

    def __exit__(self, *_: object) -> None:
        for connection in (*self._unread, *self._waiting.values(), self._listener):
            connection.close()
        self._selector.close()

    def wait(self, deadline: float) -> list[int]:
        """Let workers join until none is missing or `deadline`, on the monotonic clock, passes; return the missing."""
        report_at = time.monotonic() + _REPORT_AFTER
        while True:
            missing, now = self._missing(), time.monotonic()
            if missing and now > report_at:
                logger.info("waiting for %s", _names(self._cluster, missing))
                report_at = deadline
            while self._unread and next(iter(self._unread.values())).deadline < now:
                self._drop(next(iter(self._unread)))
            # A last look when all have joined: one may have left again.
            for key, _ in self._selector.select(max(0.0, min(_PAUSE, deadline - now)) if missing else 0):
                if key.fileobj is self._listener:
                    self._accept(now)
                elif isinstance(key.fileobj, socket.socket) and key.fileobj.fileno() >= 0:  # not dropped since
                    self._read(key.fileobj)
            if now >= deadline or not (missing or self._missing()):
                return self._missing()

    def answer(self, header: Mapping[str, Any], message: bytes, seconds: float) -> list[int]:
        """Answer the workers that wait; return those that have not taken the answer after `seconds`."""
        content = memoryview(_line({**header, "size": len(message)}) + message)
        unsent = dict.fromkeys(self._waiting, content)
        deadline = time.monotonic() + seconds
        with selectors.DefaultSelector() as selector:
            for index, connection in self._waiting.items():
                selector.register(connection, selectors.EVENT_WRITE, index)
            while selector.get_map() and (left := deadline - time.monotonic()) > 0:
                for key, _ in selector.select(left):
                    try:
                        unsent[key.data] = unsent[key.data][self._waiting[key.data].send(unsent[key.data]) :]
                    except BlockingIOError:
                        continue
                    except OSError:
                        selector.unregister(key.fileobj)
                    else:
                        if not unsent[key.data]:
                            selector.unregister(key.fileobj)
        return sorted(index for index, rest in unsent.items() if rest)

    def _missing(self) -> list[int]:
        return [index for index in range(1, len(self._cluster.addresses)) if index not in self._waiting]

    def _accept(self, now: float) -> None:
        if len(self._unread) >= _MOST_UNREAD:
            self._drop(next(iter(self._unread)))
        with contextlib.suppress(OSError):  # the connection was closed at once
            connection = self._listener.accept()[0]
            connection.setblocking(False)
            self._unread[connection] = _Unread(now + _PATIENCE)
            self._selector.register(connection, selectors.EVENT_READ)

    def _read(self, connection: socket.socket) -> None:
        unread = self._unread.get(connection)
        try:
            if unread is None:  # a worker sends one line only: more, or the end of its connection, and it is gone
                raise ValueError
            chunk = connection.recv(_CHUNK)
            unread.received += chunk
            if chunk and b"\n" not in chunk and len(unread.received) < _LONGEST_LINE:
                return
            line, newline, more = unread.received.partition(b"\n")
            request = _parse(line)
            index, terms = request["index"], request["terms"]
            if (
                not newline
                or more
                or index not in range(1, len(self._cluster.addresses))
                or not isinstance(terms, dict)
            ):
                raise ValueError
        except BlockingIOError:
            return
        except (OSError, ValueError, KeyError):  # a port scanner, or a worker of something else
            self._drop(connection)
            return
        del self._unread[connection]
        if index in self._waiting:
            self._drop(self._waiting[index])  # it was restarted
        self._waiting[index], self.terms[index] = connection, terms

    def _drop(self, connection: socket.socket) -> None:
        self._unread.pop(connection, None)
        for index in [index for index, waiting in self._waiting.items() if waiting is connection]:
            del self._waiting[index], self.terms[index]
        self._selector.unregister(connection)
        connection.close()


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


def _parse(line: bytes | bytearray) -> dict[str, Any]:
    try:
        content = json.loads(line)
    except RecursionError as error:
        raise ValueError("not a message of a worker") from error
    if not isinstance(content, dict):
        raise ValueError("not a message of a worker")
    return content
