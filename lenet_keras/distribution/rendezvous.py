"""The workers of a cluster wait for each other before TensorFlow does.

TensorFlow, once asked to connect a cluster, waits an hour for the missing, deaf to Ctrl-C, and does not say who is
missing. So the workers first meet by plain sockets, on the chief's own port: each sends what it was started with, the
chief waits until all have come, compares, and answers each. Nobody is authenticated, as in TensorFlow's own protocol
that follows on the same port: a cluster belongs into a network of its own.
"""

from __future__ import annotations

import contextlib
import json
import select
import socket
import time
from collections.abc import Mapping, Sequence
from typing import Any

from lenet_keras.distribution.cluster import Cluster
from lenet_keras.errors import LenetKerasError
from lenet_keras.models.variants import shown
from lenet_keras.notices import Notify, ignore

Greeting = Mapping[str, Any]

_LARGEST_MESSAGE = 64 * 1024
_NOTICE_AFTER = 5.0  # seconds of waiting until somebody is told of it
_PAUSE = 0.2  # seconds between two calls at a door that is closed
_PATIENCE = 5.0  # seconds for a message that has begun; whoever sends none is no worker
_SENDING_OFF = 10.0  # seconds in which a chief that will not train tells those who come


def meet(cluster: Cluster, greeting: Greeting, timeout: float, notify: Notify) -> dict[str, Any] | None:
    """Return when all workers are there, all with the same `greeting`: None, or what the chief has sent them off with.

    Args:
        cluster: the workers.
        greeting: JSON values that must be the same for all: settings, versions.
        timeout: seconds to wait.
        notify: told who is waited for, if that takes long.

    Raises:
        LenetKerasError: after `timeout` somebody is missing, or greetings differ; the message names workers and
            difference. All workers that have come get it.
        OSError: the chief's port is taken.
    """
    if not cluster.is_chief:
        return _follow(cluster, greeting, timeout, notify)
    _lead(cluster, greeting, timeout, notify)
    return None


def refuse(cluster: Cluster, reason: str) -> None:
    """As a chief that cannot train: tell the workers who come why."""
    _answer_who_comes(cluster, {"refusal": f"{cluster.name(0)} cannot train: {reason}"})


def send_off(cluster: Cluster, result: Mapping[str, Any]) -> None:
    """As a chief with nothing left to train: give the workers who come the `result`."""
    _answer_who_comes(cluster, {"result": result})


def _answer_who_comes(cluster: Cluster, answer: Mapping[str, Any]) -> None:
    with contextlib.suppress(OSError), _Door(cluster) as door:
        door.wait(time.monotonic() + _SENDING_OFF, ignore)
        door.answer(answer)


def _lead(cluster: Cluster, greeting: Greeting, timeout: float, notify: Notify) -> None:
    with _Door(cluster) as door:
        missing = door.wait(time.monotonic() + timeout, notify)
        refusal = None
        if missing:
            refusal = f"{_names(cluster, missing)} did not come within {timeout:g} s (--cluster-timeout)."
        for index, theirs in sorted(door.greetings.items()):
            refusal = refusal or _difference(cluster.name(index), theirs, json.loads(json.dumps(greeting)))
        door.answer({"refusal": refusal})
    if refusal:
        raise LenetKerasError(refusal)


def _names(cluster: Cluster, indices: Sequence[int]) -> str:
    return ", ".join(cluster.name(index) for index in indices)


def _difference(name: str, theirs: Greeting, ours: Greeting) -> str | None:
    for key in sorted({*theirs, *ours}):
        if theirs.get(key) != ours.get(key):
            return (
                f"{name} was started with {key} {shown(theirs.get(key))}, the chief with {shown(ours.get(key))}. "
                "All workers need the same settings and versions."
            )
    return None


def _follow(cluster: Cluster, greeting: Greeting, timeout: float, notify: Notify) -> dict[str, Any] | None:
    begun, is_told, answer = time.monotonic(), False, None
    hello = {"index": cluster.index, "greeting": greeting}
    cause: object = "no answer"
    while answer is None:
        left = begun + timeout - time.monotonic()
        if left <= 0:
            raise LenetKerasError(
                f"{cluster.name(0)}, the chief, did not come within {timeout:g} s (--cluster-timeout): {cause}."
            )
        if not is_told and timeout - left > _NOTICE_AFTER:
            notify(f"{cluster.name(cluster.index)} waits for {cluster.name(0)}, the chief: {cause}")
            is_told = True
        try:
            with socket.create_connection(cluster.host_and_port(0), timeout=min(left, _PATIENCE)) as chief:
                _send(chief, hello)
                # The chief's own patience ends first, and its answer says who is missing.
                chief.settimeout(left + _SENDING_OFF)
                answer = _receive(chief)
                cause = "the connection was closed"
        except (OSError, ValueError) as error:
            cause = getattr(error, "strerror", None) or error
        if answer is None:
            time.sleep(_PAUSE)
    if answer.get("refusal"):
        raise LenetKerasError(str(answer["refusal"]))
    result: dict[str, Any] | None = answer.get("result")
    return result


class _Door:
    """The chief's port, and the workers that wait there for an answer."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._waiting: dict[int, socket.socket] = {}
        self.greetings: dict[int, Greeting] = {}
        port = cluster.host_and_port(0)[1]
        try:
            if socket.has_dualstack_ipv6():
                self._listener = socket.create_server(("", port), family=socket.AF_INET6, dualstack_ipv6=True)
            else:
                self._listener = socket.create_server(("", port))
        except OSError as error:
            raise OSError(error.errno, f"{error.strerror} (the chief's port)", cluster.addresses[0]) from error

    def __enter__(self) -> _Door:
        return self

    def __exit__(self, *_: object) -> None:
        for connection in self._waiting.values():
            connection.close()
        self._listener.close()

    def wait(self, deadline: float, notify: Notify) -> list[int]:
        """Let workers in until all are here or `deadline`, on the monotonic clock, has passed; return the missing."""
        tell_at = time.monotonic() + _NOTICE_AFTER
        while (missing := self._missing()) and (now := time.monotonic()) < deadline:
            if now > tell_at:
                notify(f"waiting for {_names(self._cluster, missing)}")
                tell_at = deadline
            self._listener.settimeout(min(_PAUSE, deadline - now))
            with contextlib.suppress(OSError):  # nobody came, or left at once
                self._let_in(self._listener.accept()[0])
        return missing

    def _missing(self) -> list[int]:
        # Who went again is forgotten.
        for index, connection in list(self._waiting.items()):
            # Nobody sends a second message: what can be read is the end.
            if select.select([connection], [], [], 0)[0]:
                self._forget(index)
        return [index for index in range(1, len(self._cluster.addresses)) if index not in self._waiting]

    def answer(self, message: Mapping[str, Any]) -> None:
        """Answer all who wait."""
        for connection in self._waiting.values():
            with contextlib.suppress(OSError):
                _send(connection, message)

    def _let_in(self, connection: socket.socket) -> None:
        connection.settimeout(_PATIENCE)
        try:
            hello = _receive(connection) or {}
            index, greeting = hello["index"], hello["greeting"]
            if index not in range(1, len(self._cluster.addresses)) or not isinstance(greeting, dict):
                raise ValueError
        except (OSError, ValueError, KeyError):  # a scanner, or a worker of something else
            connection.close()
            return
        self._forget(index)  # it was started anew
        self._waiting[index], self.greetings[index] = connection, greeting

    def _forget(self, index: int) -> None:
        if index in self._waiting:
            self._waiting.pop(index).close()
            self.greetings.pop(index)


def _send(connection: socket.socket, message: Mapping[str, Any]) -> None:
    connection.sendall(json.dumps(message).encode() + b"\n")


def _receive(connection: socket.socket) -> dict[str, Any] | None:
    # A line of JSON; None if the connection was closed before its end.
    with connection.makefile("rb") as stream:
        line = stream.readline(_LARGEST_MESSAGE)
    if not line.endswith(b"\n"):
        return None
    try:
        message = json.loads(line)
    except RecursionError as error:
        raise ValueError("no message of a worker") from error
    if not isinstance(message, dict):
        raise ValueError("no message of a worker")
    return message
