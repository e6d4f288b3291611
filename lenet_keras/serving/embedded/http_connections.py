"""HTTP connections: how many, for how long, and what is said to those that do not speak HTTP."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import time
from collections.abc import Callable
from typing import Any

from tornado import http1connection, httputil, iostream

from lenet_keras.serving.embedded import rest_json

logger = logging.getLogger(__name__)

_MOMENT = 0.2  # seconds: a connection that has waited no longer than this is not closed for another one
_PAUSE = 0.05  # seconds in which no connection is accepted, as there is no room for one
_RECOVERY = 1.0  # the same, after the system has refused one
_WARNING_PERIOD = 60.0  # seconds between two lines about the same trouble
_TORNADOS_REFUSAL = b"HTTP/1.1 400 Bad Request\r\n\r\n"  # what Tornado writes before it closes a connection
_HEADERS, _BODY, _COMPUTING, _REPLY = range(4)


class Peer:
    """A client at the other end of a connection, and what either side is waiting for; the context of its requests."""

    remote_ip, protocol = "", "http"  # Tornado asks for them

    def __init__(self, connection: socket.socket) -> None:
        """Take an accepted connection; the client is to send a request."""
        self.stream = _Stream(connection, self)
        self.expects_request()

    def expects_request(self) -> None:
        """Note that the client is to send a request, and has begun to be slow now."""
        self._enter(_HEADERS)

    def expects_body(self) -> None:
        """Note that the client has sent the headers, and is to send the body."""
        self._enter(_BODY)

    def is_answered(self) -> None:
        """Note that the client has its reply, or is to take it from the network."""
        self._enter(_REPLY)

    def waits_for_us(self) -> None:
        """Note that the client has done all that it had to."""
        self._enter(_COMPUTING)

    @property
    def slowness(self) -> float:
        """The seconds that the client has kept us waiting for what it is to do next."""
        return 0.0 if self.stage == _COMPUTING else time.monotonic() - self._since

    def _enter(self, stage: int) -> None:
        self.stage = stage
        self._since = time.monotonic()


class _Stream(iostream.IOStream):
    """A stream that words Tornado's refusals, which have no body, or are none at all."""

    def __init__(self, connection: socket.socket, peer: Peer) -> None:
        super().__init__(connection, read_chunk_size=65536)
        self._peer = peer

    def write(self, data: bytes | memoryview) -> asyncio.Future[None]:
        if data == _TORNADOS_REFUSAL:
            is_late = self._peer.stage == _REPLY  # the request has its reply already
            data = b"" if is_late else _refusal("400 Bad Request", "The request is not valid HTTP/1.1")
        return super().write(data)

    def close(self, exc_info: Any = False) -> None:
        if isinstance(exc_info, iostream.UnsatisfiableReadError) and not self.closed():
            refusal = b""
            if self._peer.stage == _HEADERS:
                refusal = _refusal(
                    "431 Request Header Fields Too Large", "The request's headers are longer than 64 KiB"
                )
            elif self._peer.stage == _BODY:
                refusal = _refusal("400 Bad Request", "The request's body is not valid HTTP/1.1")
            with contextlib.suppress(OSError):
                self.socket.send(refusal)
        super().close(exc_info)


class Connections(httputil.HTTPServerConnectionDelegate):
    """Accepts connections on some sockets, and hands their requests to an application.

    At most `most` connections are open. For a further one, the client that has kept us waiting longest has to go; if
    none has, for more than a moment, no connection is accepted until one ends. Whoever keeps us waiting for `idle`
    seconds has to go in any case.
    """

    def __init__(
        self, application: Callable[[Any], Any], sockets: list[socket.socket], most: int, idle: float, max_body: int
    ) -> None:
        """Take bound sockets; `start` listens to them.

        Args:
            application: returns the delegate for a connection that a request is to arrive by.
            sockets: not blocking.
            most: the most connections.
            idle: the most seconds to wait for a client.
            max_body: in bytes; a request with a longer body is not read.
        """
        self._application = application
        self._sockets = sockets
        self._most = most
        self._idle = idle
        self._parameters = http1connection.HTTP1ConnectionParameters(max_body_size=max_body)
        self._peers: dict[object, Peer] = {}
        self._warned: dict[str, float] = {}
        self._is_stopped = False

    @property
    def _is_full(self) -> bool:
        return len(self._peers) >= self._most

    def start(self) -> None:
        """Accept connections on the running event loop, until `stop`."""
        self._loop = asyncio.get_running_loop()
        self._listen()

    async def cut_off_slow_clients(self) -> None:
        """Close connections whose clients keep us waiting, for ever."""
        while True:
            await asyncio.sleep(min(1.0, self._idle / 4))
            for peer in list(self._peers.values()):
                if peer.slowness > self._idle:
                    peer.stream.close()

    def stop(self) -> None:
        """Accept no more connections."""
        self._is_stopped = True
        for listener in self._sockets:
            self._loop.remove_reader(listener)
            listener.close()

    async def close(self) -> None:
        """Close all connections."""
        while self._peers:
            for peer in list(self._peers.values()):
                peer.stream.close()
            await asyncio.sleep(0)

    def start_request(
        self,
        server_conn: object,  # noqa: ARG002
        request_conn: httputil.HTTPConnection,
    ) -> httputil.HTTPMessageDelegate:
        """Wait for the next request of a connection; Tornado calls this."""
        peer: Peer = request_conn.context  # type: ignore[attr-defined]
        if peer.stream.closed():  # nobody waits for the requests that Tornado has buffered
            return httputil.HTTPMessageDelegate()
        peer.expects_request()
        delegate: httputil.HTTPMessageDelegate = self._application(request_conn)
        return delegate

    def on_close(self, server_conn: object) -> None:
        """Forget a connection; Tornado calls this."""
        self._peers.pop(server_conn, None)

    def _listen(self) -> None:
        if not self._is_stopped:
            for listener in self._sockets:
                self._loop.add_reader(listener, self._accept, listener)

    def _pause(self, seconds: float) -> None:
        for listener in self._sockets:
            self._loop.remove_reader(listener)
        self._loop.call_later(seconds, self._listen)

    def _accept(self, listener: socket.socket) -> None:
        slowest = max(self._peers, key=lambda server: self._peers[server].slowness) if self._is_full else None
        if slowest is not None and self._peers[slowest].slowness < _MOMENT:
            self._warn(f"{self._most} connections are open, the most that may be; others wait")
            self._pause(_PAUSE)
            return
        try:
            connection, _ = listener.accept()
        except (BlockingIOError, ConnectionAbortedError):
            return
        except OSError as error:
            self._warn(f"no connection can be accepted: {error.strerror}")
            self._pause(_RECOVERY)
            return
        if slowest is not None:
            self._warn(f"{self._most} connections are open, the most that may be; idle ones are closed for others")
            self._peers.pop(slowest).stream.close()
        peer = Peer(connection)
        server = http1connection.HTTP1ServerConnection(peer.stream, self._parameters, peer)
        self._peers[server] = peer
        server.start_serving(self)

    def _warn(self, message: str) -> None:
        now = time.monotonic()
        if now - self._warned.get(message, -_WARNING_PERIOD) >= _WARNING_PERIOD:
            self._warned[message] = now
            logger.warning("%s (said at most once a minute)", message)


def _refusal(status: str, message: str) -> bytes:
    body = rest_json.error_reply(message)
    head = f"HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\nConnection: close"
    return head.encode() + b"\r\n\r\n" + body
