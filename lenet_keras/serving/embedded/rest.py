"""TensorFlow Serving's REST interface: predict, status and metadata of models, over HTTP."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import threading
from typing import Any
from urllib.parse import unquote

from tornado import httpserver, iostream, netutil, web

from lenet_keras.serving.embedded import answers, rest_json, rest_reply
from lenet_keras.serving.embedded.batching import Batcher
from lenet_keras.serving.embedded.models import ModelStore
from lenet_keras.serving.embedded.status import Code, ServingError, from_exception, invalid

_MODEL = r"(?i:/v1/models/(?P<model>[^/:]+)(?:/versions/(?P<version>[0-9]+)|/labels/(?P<label>[^/:]+))?"
_PREDICT = re.compile(_MODEL + r":(?P<method>predict|classify|regress))")
_LOOK_UP = re.compile(_MODEL + r"(?P<metadata>/metadata)?)")
_IDLE = 60.0  # seconds for a client to send its headers, and again for the body


class RestServer:
    """Answers HTTP requests on a thread of its own."""

    def __init__(self, store: ModelStore, batcher: Batcher, host: str, port: int, max_bytes: int) -> None:
        """Take the port; connections wait until `start`.

        Args:
            store: the models.
            batcher: runs them.
            host: the address to listen on.
            port: 0 for any free one.
            max_bytes: the largest body of a request.

        Raises:
            OSError: the address or port cannot be had.
        """
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
            max_body_size=4 * max_bytes,  # what is too long is read and dropped, so that the client sees the answer
        )
        self._stop: asyncio.Event
        self._loop: asyncio.AbstractEventLoop
        self._grace = 0.0
        self._started = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()), name="rest")

    def start(self) -> None:
        """Begin to answer."""
        self._thread.start()
        self._started.wait()

    def stop(self, grace: float) -> None:
        """Take no more connections, answer the requests that are under way within `grace` seconds, then end."""
        self._grace = grace
        if self._thread.ident is None:
            for listener in self._sockets:
                listener.close()
            return
        self._loop.call_soon_threadsafe(self._stop.set)
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


@web.stream_request_body  # else Tornado parses a body that calls itself a form, as curl's do
class _Handler(web.RequestHandler):
    SUPPORTED_METHODS = ("GET", "HEAD", "POST", "DELETE", "PATCH", "PUT", "OPTIONS")

    def initialize(self, store: ModelStore, batcher: Batcher, server: RestServer, max_bytes: int) -> None:
        self._store = store
        self._batcher = batcher
        self._server = server
        self._max_bytes = max_bytes
        self._received = 0
        self._refused = False
        self._body = bytearray()

    def set_default_headers(self) -> None:
        self.clear_header("Server")
        self.set_header("Content-Type", "application/json")

    def prepare(self) -> None:
        length = self.request.headers.get("Content-Length", "")
        if length.isdecimal() and int(length) > self._max_bytes:
            self._refuse_body()
        else:
            self._server.active.add(self)

    def data_received(self, chunk: bytes) -> None:
        self._received += len(chunk)
        if self._received <= self._max_bytes:
            self._body += chunk
        elif not self._refused:
            self._refuse_body()

    def on_finish(self) -> None:
        self._body = bytearray()

    def on_connection_close(self) -> None:
        self._server.active.discard(self)

    async def get(self) -> None:
        await self._respond()

    post = head = delete = patch = put = options = get

    def compute_etag(self) -> None:
        return None

    def write_error(self, status_code: int, **_kwargs: Any) -> None:
        self.finish(_error(f"{self.request.method} {self.request.path} failed with HTTP status {status_code}"))

    def _refuse_body(self) -> None:
        self._refused = True
        self._server.active.discard(self)
        self._body = bytearray()
        self.set_status(413)
        self.finish(_error(f"The request's body is longer than {self._max_bytes} bytes"))

    async def _respond(self) -> None:
        if self._refused:
            return
        try:
            reply = await self._reply()
        except Exception as exception:
            error = from_exception(exception)
            self.set_status(error.http_status)
            reply = _error(str(error))
        if self._server.stopping:
            self.set_header("Connection", "close")
        with contextlib.suppress(iostream.StreamClosedError):  # the client is gone
            await self.finish(reply)
        self._server.active.discard(self)

    async def _reply(self) -> bytes:
        method, path = self.request.method or "", self.request.path
        if not path.lower().startswith("/v1/"):
            raise ServingError(Code.NOT_FOUND, f"Not found: {method} {path}")
        if method == "GET" and path.lower().rstrip("/") == "/v1/models":
            raise invalid("Missing model name in request.")
        match = {"POST": _PREDICT, "GET": _LOOK_UP}[method].fullmatch(path) if method in ("POST", "GET") else None
        if match is None:
            raise invalid(f"Malformed request: {method} {path}")
        model, label = unquote(match["model"]), match["label"]
        number = int(match["version"][:20]) if match["version"] else None
        if number is not None and number >= 2**63:
            raise invalid(f"Failed to convert version: {match['version'][:20]} to numeric.")
        which = (model, number, unquote(label) if label else None)
        if method == "POST":
            if match["method"].lower() != "predict":
                raise ServingError(Code.UNIMPLEMENTED, f"This server answers predict, not {match['method']}")
            return await self._predict(*which)
        return (answers.metadata_json if match["metadata"] else answers.status_json)(self._store, *which)

    async def _predict(self, model: str, number: int | None, label: str | None) -> bytes:
        with contextlib.ExitStack() as lease:
            with rest_json.no_collections():
                body = rest_json.parse(bytes(self._body))
                version = lease.enter_context(self._store.lease(model, number, label))
                signature = version.signature(body.signature_name, Code.INVALID_ARGUMENT)
                arrays, by_row = rest_json.to_arrays(body, signature.inputs), body.by_row
                del body  # its many lists, before collections go on
            outputs = await asyncio.wrap_future(self._batcher.submit(signature, arrays))
        return rest_reply.to_json(outputs, by_row)


def _error(message: str) -> bytes:
    return json.dumps({"error": message}).encode()
