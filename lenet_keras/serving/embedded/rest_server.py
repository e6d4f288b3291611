"""TensorFlow Serving's REST interface: predict, status and metadata of models, over HTTP."""

from __future__ import annotations

import asyncio
import contextlib
import re
import threading
from typing import Any

from grpc import StatusCode
from tornado import httpserver, iostream, netutil, web

from lenet_keras.files import naming
from lenet_keras.serving.embedded import rest_json
from lenet_keras.serving.embedded.batching import Batcher
from lenet_keras.serving.embedded.signatures import BadRequest, ServingError
from lenet_keras.serving.embedded.store import ModelStore
from lenet_keras.serving.endpoint import MODEL, ROOT, ModelSpec

_POST = re.compile(rf"(?i:{ROOT}{MODEL}:(?P<method>predict|classify|regress))")
_GET = re.compile(rf"(?i:{ROOT}{MODEL}(?P<metadata>/metadata)?)")
_IDLE = 60.0  # seconds for a client to send its headers, and again for the body


class RestServer:
    """Answers HTTP requests on a thread of its own."""

    def __init__(self, store: ModelStore, batcher: Batcher, host: str, port: int, max_bytes: int) -> None:
        """Bind the port; connections wait until `start`.

        Args:
            store: the models.
            batcher: runs them.
            host: the address to listen on.
            port: 0 for any free one.
            max_bytes: the largest body of a request.

        Raises:
            OSError: the address or port is not available.
        """
        with naming(f"{host}:{port}"):
            self._sockets = netutil.bind_sockets(port, host)
        self.port: int = self._sockets[0].getsockname()[1]
        self.active: set[_Handler] = set()
        self.stopping = False
        settings: dict[str, Any] = {"store": store, "batcher": batcher, "server": self, "max_bytes": max_bytes}
        application = web.Application([(".*", _Handler, settings)], log_function=lambda _handler: None)
        self._server = httpserver.HTTPServer(
            application,
            idle_connection_timeout=_IDLE,
            body_timeout=_IDLE,
            max_body_size=4 * max_bytes,  # up to this, a refused body is read and dropped: see `_Handler._refuse`
        )
        self._stop: asyncio.Event
        self._loop: asyncio.AbstractEventLoop
        self._grace = 0.0
        self._started = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()), name="rest")

    def start(self) -> None:
        """Start answering."""
        self._thread.start()
        self._started.wait()

    def stop(self, grace: float) -> None:
        """Accept no more connections, and give requests under way `grace` seconds; `join` waits for that."""
        self._grace = grace
        if self._thread.ident is None:
            for listener in self._sockets:
                listener.close()
        else:
            self._started.wait()
            self._loop.call_soon_threadsafe(self._stop.set)

    def join(self) -> None:
        """Wait until the server has stopped."""
        if self._thread.ident is not None:
            self._thread.join()

    async def _run(self) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        self._server.add_sockets(self._sockets)
        self._started.set()
        await self._stop.wait()
        self.stopping = True
        self._server.stop()
        deadline = self._loop.time() + self._grace
        while self.active and self._loop.time() < deadline:
            await asyncio.sleep(0.01)
        await self._server.close_all_connections()


@web.stream_request_body  # otherwise Tornado parses a body that claims to be a form, as curl's do
class _Handler(web.RequestHandler):
    SUPPORTED_METHODS = ("GET", "HEAD", "POST", "DELETE", "PATCH", "PUT", "OPTIONS")

    def initialize(self, store: ModelStore, batcher: Batcher, server: RestServer, max_bytes: int) -> None:
        self._store = store
        self._batcher = batcher
        self._server = server
        self._max_bytes = max_bytes
        self._model: ModelSpec | None = None
        self._is_metadata = False
        self._is_answered = False
        self._body = bytearray()

    def set_default_headers(self) -> None:
        self.clear_header("Server")
        self.set_header("Content-Type", "application/json")

    def prepare(self) -> None:
        # Whatever the request line and the headers show is answered before the body arrives.
        try:
            self._model = self._requested_model()
        except Exception as exception:
            error = ServingError.from_exception(exception)
            self._refuse(error.http_status, str(error))
            return
        if self.request.method == "POST" and self._announced_length() > self._max_bytes:
            self._refuse_length()
        else:
            self._server.active.add(self)

    def data_received(self, chunk: bytes) -> None:
        if self._is_answered or self.request.method != "POST":
            return
        if len(self._body) + len(chunk) > self._max_bytes:
            self._refuse_length()
        else:
            self._body += chunk

    def on_finish(self) -> None:
        self._body = bytearray()

    def on_connection_close(self) -> None:
        super().on_connection_close()  # ends the wait for the rest of the body
        self._body = bytearray()
        self._server.active.discard(self)

    async def get(self) -> None:
        if self._is_answered:
            if not self._finished:
                self.finish()
            return
        try:
            reply = await self._reply()
        except Exception as exception:
            error = ServingError.from_exception(exception)
            self.set_status(error.http_status)
            reply = rest_json.error_reply(str(error))
        if self._server.stopping:
            self.set_header("Connection", "close")
        with contextlib.suppress(iostream.StreamClosedError):  # the client is gone
            await self.finish(reply)
        self._server.active.discard(self)

    post = head = delete = patch = put = options = get

    def compute_etag(self) -> None:
        return None

    def write_error(self, status_code: int, **_kwargs: Any) -> None:
        request = f"{self.request.method} {self.request.path}"
        self.finish(rest_json.error_reply(f"{request} failed with HTTP status {status_code}"))

    def _refuse_length(self) -> None:
        self._refuse(413, f"The request's body is longer than {self._max_bytes} bytes")

    def _refuse(self, status: int, message: str) -> None:
        """Answer now. The body is then dropped as it comes: were it left unread, its sender could lose the answer."""
        self._server.active.discard(self)
        self._is_answered = True
        # The client waits for the answer, or for word to go on, before it sends the body.
        is_unsent = "Expect" in self.request.headers and not self._body
        self._body = bytearray()
        self.set_status(status)
        reply = rest_json.error_reply(message)
        if is_unsent or self._announced_length() > 4 * self._max_bytes:
            self.set_header("Connection", "close")
            self.finish(reply)
        else:
            self.set_header("Content-Length", str(len(reply)))
            self.write(reply)
            self.flush()

    def _announced_length(self) -> int:
        length = self.request.headers.get("Content-Length", "")
        return int(length[:19]) if length.isdecimal() else 0  # Python refuses to read numbers of thousands of digits

    def _requested_model(self) -> ModelSpec:
        method, path = self.request.method, self.request.path
        if not path.lower().startswith("/v1/"):
            raise ServingError(StatusCode.NOT_FOUND, f"Not found: {method} {path}")
        if method == "GET" and path.lower().rstrip("/") == ROOT:
            raise BadRequest("Missing model name in request.")
        match = {"POST": _POST, "GET": _GET}[method].fullmatch(path) if method in ("POST", "GET") else None
        if match is None:
            raise BadRequest(f"Malformed request: {method} {path}")
        try:
            model = ModelSpec.from_match(match)
        except ValueError as error:
            raise BadRequest(str(error)) from None
        if method == "GET":
            self._is_metadata = match["metadata"] is not None
        elif match["method"].lower() != "predict":
            raise ServingError(StatusCode.UNIMPLEMENTED, f"This server answers predict, not {match['method']}")
        else:
            with self._store.lease(model):  # it is served
                pass
        return model

    async def _reply(self) -> bytes:
        assert self._model is not None
        if self.request.method == "POST":
            return await self._predict(self._model)
        return (rest_json.metadata_reply if self._is_metadata else rest_json.status_reply)(self._store, self._model)

    async def _predict(self, model: ModelSpec) -> bytes:
        with contextlib.ExitStack() as lease:
            with rest_json.garbage_collection_paused():
                request = rest_json.read_request(bytes(self._body))
                version = lease.enter_context(self._store.lease(model))
                signature = version.signature(request.signature_name, StatusCode.INVALID_ARGUMENT)
                arrays, by_row = request.arrays(signature.inputs), request.by_row
                del request  # its many lists, before collection resumes
            outputs = await asyncio.wrap_future(self._batcher.submit(signature, arrays))
        return rest_json.predict_reply(outputs, by_row)
