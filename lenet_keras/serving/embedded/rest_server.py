"""TensorFlow Serving's REST interface: predict, status and metadata of models, over HTTP."""

from __future__ import annotations

import asyncio
import contextlib
import re
import time
import zlib
from concurrent.futures import Future
from typing import Any

from grpc import StatusCode
from tornado import iostream, netutil, web

from lenet_keras.files import naming
from lenet_keras.serving.embedded import metrics, rest_json
from lenet_keras.serving.embedded.budget import Holding
from lenet_keras.serving.embedded.http_connections import Connections, Peer
from lenet_keras.serving.embedded.service import Service, event_loop_thread
from lenet_keras.serving.embedded.signatures import BadRequest, ServingError
from lenet_keras.serving.endpoint import MODEL, ROOT, ModelSpec

_POST = re.compile(rf"(?i:{ROOT}{MODEL}:(?P<method>predict|classify|regress))")
_GET = re.compile(rf"(?i:{ROOT}{MODEL}(?P<metadata>/metadata)?)")
_ORIGIN = re.compile("https?://")
# TensorFlow Serving's (model_servers/http_rest_api_util.cc).
_CORS = {
    "Access-Control-Allow-Origin": "*",
    "Access-Control-Allow-Methods": "POST, GET",
    "Access-Control-Allow-Headers": "Content-Type",
}
_GZIP = 16 + zlib.MAX_WBITS


class RestServer:
    """Answers HTTP requests on a thread of its own."""

    def __init__(self, service: Service, host: str, port: int, cors: bool) -> None:
        """Bind the port; connections wait until `start`.

        Args:
            service: the models, what runs them, and the limits.
            host: the address to listen on.
            port: 0 for any free one.
            cors: whether pages of any site may read the replies.

        Raises:
            OSError: the address or port is not available.
        """
        with naming(f"{host}:{port}"):
            self._sockets = netutil.bind_sockets(port, host)
        self.port: int = self._sockets[0].getsockname()[1]
        self.active: set[_Handler] = set()
        self.stopping = False
        settings: dict[str, Any] = {"service": service, "server": self, "headers": _CORS if cors else {}}
        application = web.Application([(".*", _Handler, settings)], log_function=lambda _handler: None)
        limits = service.limits
        self._connections = Connections(
            lambda connection: application.start_request(None, connection),
            self._sockets,
            limits.affordable_connections(),
            limits.idle,
            max_body=4 * limits.request_bytes,  # up to this, a refused body is read and dropped: see `_Handler._refuse`
        )
        self._loop: asyncio.AbstractEventLoop
        self._stop: asyncio.Event
        self._grace = 0.0
        self._started: Future[None] = Future()
        self._thread = event_loop_thread("rest", self._run, self._started)

    def start(self) -> None:
        """Start answering.

        Raises:
            OSError: there is no descriptor left.
        """
        self._thread.start()
        self._started.result()

    def stop(self, grace: float) -> None:
        """Accept no more connections, and give requests under way `grace` seconds; `join` waits for that."""
        self._grace = grace
        if self._thread.ident is None:
            for listener in self._sockets:
                listener.close()
        else:
            self._loop.call_soon_threadsafe(self._stop.set)

    def join(self) -> None:
        """Wait until the server has stopped."""
        if self._thread.ident is not None:
            self._thread.join()

    async def _run(self) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        self._connections.start()
        sweeping = asyncio.create_task(self._connections.cut_off_slow_clients())
        self._started.set_result(None)
        await self._stop.wait()
        self.stopping = True
        self._connections.stop()
        deadline = self._loop.time() + self._grace
        while self.active and self._loop.time() < deadline:
            await asyncio.sleep(0.01)
        sweeping.cancel()
        await self._connections.close()


@web.stream_request_body  # otherwise Tornado parses a body that claims to be a form, as curl's do
class _Handler(web.RequestHandler):
    SUPPORTED_METHODS = ("GET", "HEAD", "POST", "DELETE", "PATCH", "PUT", "OPTIONS")

    def initialize(self, service: Service, server: RestServer, headers: dict[str, str]) -> None:
        self._service = service
        self._server = server
        self._max_bytes = service.limits.request_bytes
        self._start = time.monotonic()
        self._model: ModelSpec | None = None
        self._is_metadata = False
        self._is_answered = False
        self._body = bytearray()
        self._holding = Holding(service.budget)
        self._unpacking: Any = None
        self._answer: asyncio.Future[Any] | None = None
        for name, value in headers.items():
            self.set_header(name, value)

    @property
    def _peer(self) -> Peer:
        peer: Peer = self.request.connection.context  # type: ignore[union-attr]
        return peer

    def set_default_headers(self) -> None:
        self.clear_header("Server")
        self.set_header("Content-Type", "application/json")

    def prepare(self) -> None:
        # Whatever the request line and the headers show is answered before the body arrives.
        self._peer.expects_body()
        try:
            self._read_request_line()
            if self.request.method == "POST" and self._announced_length() > self._max_bytes:
                raise _too_long(self._max_bytes)
        except Exception as exception:
            self._refuse(exception)
            return
        if "gzip" in self.request.headers.get("Content-Encoding", ""):
            self._unpacking = zlib.decompressobj(_GZIP)
        self._server.active.add(self)

    def data_received(self, chunk: bytes) -> None:
        if self._is_answered or self.request.method != "POST":
            return
        try:
            if self._unpacking is not None:
                chunk = self._unpacking.decompress(chunk, self._max_bytes - len(self._body) + 1)
                if self._unpacking.unused_data:
                    raise BadRequest("The request's body goes on after the end of its gzip")
            if len(self._body) + len(chunk) > self._max_bytes:
                raise _too_long(self._max_bytes)
            self._holding.add(len(chunk))
        except (ServingError, zlib.error) as error:
            self._refuse(BadRequest("The request's body is not gzip") if isinstance(error, zlib.error) else error)
        else:
            self._body += chunk

    def on_finish(self) -> None:
        self._let_go()

    def on_connection_close(self) -> None:
        super().on_connection_close()  # ends the wait for the rest of the body
        if self._answer is not None:
            self._answer.cancel()  # nobody waits for it any more
        self._let_go()

    async def get(self) -> None:
        if self._is_answered:
            if not self._finished:
                self.finish()
            return
        self._peer.waits_for_us()
        status = "OK"
        try:
            reply = await self._reply()
        except asyncio.CancelledError:
            if self._peer.stream.closed():
                return
            raise
        except Exception as exception:
            error = ServingError.from_exception(exception)
            status = error.code.name
            self.set_status(error.http_status)
            reply = rest_json.error_reply(str(error))
        if self._server.stopping:
            self.set_header("Connection", "close")
        self._record(status)
        self._peer.is_answered()
        with contextlib.suppress(iostream.StreamClosedError):  # the client is gone, or took too long
            await self.finish(reply)
        self._let_go()

    post = head = delete = patch = put = options = get

    def compute_etag(self) -> None:
        return None

    def write_error(self, status_code: int, **_kwargs: Any) -> None:
        request = f"{self.request.method} {self.request.uri}"
        self.finish(rest_json.error_reply(f"{request} failed with HTTP status {status_code}"))

    def _refuse(self, exception: Exception) -> None:
        """Answer now. The body is then dropped as it comes: were it left unread, its sender could lose the answer."""
        error = ServingError.from_exception(exception)
        self._is_answered = True
        # The client waits for the answer, or for word to go on, before it sends the body.
        is_unsent = "Expect" in self.request.headers and not self._body
        self._let_go()
        self._record(error.code.name)
        self.set_status(413 if isinstance(error, _TooLong) else error.http_status)
        reply = rest_json.error_reply(str(error))
        self._peer.is_answered()
        if is_unsent or self._announced_length() > 4 * self._max_bytes:
            self.set_header("Connection", "close")
            self.finish(reply)
        else:
            self.set_header("Content-Length", str(len(reply)))
            self.write(reply)
            self.flush()

    def _let_go(self) -> None:
        self._server.active.discard(self)
        self._body = bytearray()
        self._unpacking = None
        self._holding.release()

    def _record(self, status: str) -> None:
        if self._model is not None and self._service.store.knows(self._model.name):
            seconds = time.monotonic() - self._start
            if self.request.method == "POST" or status != "OK":
                self._service.metrics.record(self._model.name, status, "predict", "REST", seconds)

    def _announced_length(self) -> int:
        length = self.request.headers.get("Content-Length", "")
        return int(length[:19]) if length.isdecimal() else 0  # Python refuses to read numbers of thousands of digits

    def _read_request_line(self) -> None:
        method, path = self.request.method, self.request.uri or ""  # a query is part of the path, as in the real one
        if method == "GET" and path == metrics.PATH:
            return
        if not path.lower().startswith("/v1/"):
            raise ServingError(StatusCode.NOT_FOUND, f"Not found: {method} {path}")
        if method == "OPTIONS":
            if _ORIGIN.search(self.request.headers.get("Origin", "")) is None:
                raise ServingError(StatusCode.FAILED_PRECONDITION, "Origin header is missing in CORS preflight")
            return
        if method == "GET" and path.lower().rstrip("/") == ROOT:
            raise BadRequest("Missing model name in request.")
        match = {"POST": _POST, "GET": _GET}[method].fullmatch(path) if method in ("POST", "GET") else None
        if match is None:
            raise BadRequest(f"Malformed request: {method} {path}")
        try:
            self._model = ModelSpec.from_match(match)
        except ValueError as error:
            raise BadRequest(str(error)) from None
        if method == "GET":
            self._is_metadata = match["metadata"] is not None
        elif match["method"].lower() != "predict":
            raise ServingError(StatusCode.UNIMPLEMENTED, f"This server answers predict, not {match['method']}")
        else:
            with self._service.store.lease(self._model):  # it is served
                pass

    async def _reply(self) -> bytes:
        store = self._service.store
        if self._model is None:
            if self.request.method == "OPTIONS":
                return b""
            self.set_header("Content-Type", "text/plain")
            return self._service.metrics.page().encode()
        if self.request.method == "POST":
            return await self._predict(self._model)
        return (rest_json.metadata_reply if self._is_metadata else rest_json.status_reply)(store, self._model)

    async def _predict(self, model: ModelSpec) -> bytes:
        if self._unpacking is not None and not self._unpacking.eof:
            raise BadRequest("The request's body is not complete gzip")
        with contextlib.ExitStack() as lease:
            with rest_json.garbage_collection_paused():
                request = rest_json.read_request(self._body)
                self._body = bytearray()
                version = lease.enter_context(self._service.store.lease(model))
                signature = version.signature(request.signature_name, StatusCode.INVALID_ARGUMENT)
                arrays = request.arrays(signature.inputs, self._service.largest_sizes(signature))
                by_row = request.by_row
                del request  # its many lists, before collection resumes
            self._answer = asyncio.wrap_future(self._service.submit(signature, arrays, self._holding))
            try:
                outputs = await asyncio.wait_for(self._answer, self._service.limits.timeout)
            except asyncio.TimeoutError:
                raise ServingError(
                    StatusCode.DEADLINE_EXCEEDED, f"no answer within {self._service.limits.timeout:g} seconds"
                ) from None
        return rest_json.predict_reply(outputs, by_row)


class _TooLong(BadRequest):
    """A body that is too long; HTTP has a status of its own for that."""


def _too_long(max_bytes: int) -> _TooLong:
    return _TooLong(f"The request's body is longer than {max_bytes} bytes")
