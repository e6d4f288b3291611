"""TensorFlow Serving's gRPC interface: PredictionService.Predict and GetModelMetadata, ModelService.GetModelStatus.

There are also gRPC's own services for health checks, as in the real one, and for reflection.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import Future
from typing import Any

import grpc
from async_timeout import timeout
from google.protobuf import message_factory
from google.protobuf.message import DecodeError
from grpc import StatusCode
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection
from tensorflow_serving.apis import model_service_pb2, predict_pb2, prediction_service_pb2
from tornado import netutil

from lenet_keras.files import naming
from lenet_keras.serving.embedded.budget import Holding
from lenet_keras.serving.embedded.service import Service, event_loop_thread, too_many_rows
from lenet_keras.serving.embedded.signatures import BadRequest, ServingError, read_tensor, tensor_sizes, write_tensor
from lenet_keras.serving.endpoint import ModelSpec

_PREDICTION = prediction_service_pb2.DESCRIPTOR.services_by_name["PredictionService"]
_MODELS = model_service_pb2.DESCRIPTOR.services_by_name["ModelService"]
_LONGEST_MESSAGE = 1024  # gRPC sends it in a header; TensorFlow Serving truncates here too
_STREAMS = 100  # calls at a time over one connection
_HANDSHAKE = 20.0  # seconds for a client to begin to speak HTTP/2

# Answers a request, a message; the memory that it holds is given back afterwards.
Method = Callable[[Any, Holding], Awaitable[Any]]


class GrpcServer:
    """Answers gRPC requests on a thread of its own."""

    def __init__(self, service: Service, host: str, port: int) -> None:
        """Bind the port; connections wait until `start`.

        Args:
            service: the models, what runs them, and the limits.
            host: the address to listen on.
            port: 0 for any free one.

        Raises:
            OSError: the address or port is not available.
        """
        with naming(f"{host}:{port}"):
            for probe in netutil.bind_sockets(port, host):  # gRPC does not say why it cannot, and writes to stderr
                probe.close()
        self._service = service
        self._address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        self._grace = 0.0
        self._bound: Future[int] = Future()
        self._thread = event_loop_thread("grpc", self._run, self._bound)
        self._thread.start()
        self.port = self._bound.result()

    def start(self) -> None:
        """Start answering."""
        self._loop.call_soon_threadsafe(self._may_start.set)

    def stop(self, grace: float) -> None:
        """Refuse new requests, and give those under way `grace` seconds; `join` waits for that."""
        self._grace = grace
        self._loop.call_soon_threadsafe(self._stop.set)

    def join(self) -> None:
        """Wait until the server has stopped."""
        self._thread.join()

    async def _run(self) -> None:
        self._loop, self._may_start, self._stop = asyncio.get_running_loop(), asyncio.Event(), asyncio.Event()
        server = await self._server()
        try:
            self._bound.set_result(server.add_insecure_port(self._address))
        except RuntimeError as error:
            raise OSError(f"cannot listen on {self._address} for gRPC") from error
        stopping = asyncio.create_task(self._stop.wait())
        starting = asyncio.create_task(self._may_start.wait())
        await asyncio.wait([stopping, starting], return_when=asyncio.FIRST_COMPLETED)
        starting.cancel()
        if not self._stop.is_set():
            await server.start()
        await stopping
        await server.stop(self._grace)

    async def _server(self) -> grpc.aio.Server:
        limits = self._service.limits
        server = grpc.aio.server(
            options=[
                ("grpc.so_reuseport", 0),  # otherwise a second server silently takes half of the requests
                ("grpc.max_receive_message_length", limits.request_bytes),
                ("grpc.max_send_message_length", -1),
                ("grpc.max_allowed_incoming_connections", limits.affordable_connections()),
                ("grpc.max_concurrent_streams", _STREAMS),
                ("grpc.max_connection_idle_ms", round(limits.idle * 1000)),
                ("grpc.server_handshake_timeout_ms", round(min(limits.idle, _HANDSHAKE) * 1000)),
            ]
        )
        methods = _Methods(self._service)
        server.add_generic_rpc_handlers(
            (
                self._handlers(_PREDICTION, {"Predict": methods.predict, "GetModelMetadata": methods.metadata}),
                self._handlers(_MODELS, {"GetModelStatus": methods.status}),
            )
        )
        checks = health.aio.HealthServicer()
        health_pb2_grpc.add_HealthServicer_to_server(checks, server)
        for name in ("", "ModelService", "PredictionService"):  # the names that the real one knows
            await checks.set(name, health_pb2.HealthCheckResponse.SERVING)
        names = (_PREDICTION.full_name, _MODELS.full_name, health.SERVICE_NAME, reflection.SERVICE_NAME)
        reflection.enable_server_reflection(names, server)
        return server

    def _handlers(self, descriptor: Any, methods: dict[str, Method]) -> grpc.GenericRpcHandler:
        """Offer some methods of a service; the others answer UNIMPLEMENTED."""
        handlers = {}
        for name, method in methods.items():
            described = descriptor.methods_by_name[name]
            taken, returned = map(message_factory.GetMessageClass, (described.input_type, described.output_type))
            handlers[name] = grpc.stream_unary_rpc_method_handler(
                self._answering(method, name, taken), response_serializer=returned.SerializeToString
            )
        return grpc.method_handlers_generic_handler(descriptor.full_name, handlers)

    def _answering(self, method: Method, name: str, kind: Any) -> Callable[[Any, Any], Awaitable[Any]]:
        """Return the handler of a method.

        For the client it takes one message. Here it takes a stream of one, as bytes: only so can the wait for the
        message be limited, and what it holds be counted before it is read.
        """

        async def handle(_messages: Any, context: grpc.aio.ServicerContext) -> Any:
            start, status, request = time.monotonic(), "CANCELLED", None
            with Holding(self._service.budget) as holding:
                try:
                    try:
                        async with timeout(self._service.limits.idle):
                            content = await context.read()
                    except asyncio.TimeoutError:
                        raise ServingError(StatusCode.DEADLINE_EXCEEDED, "the message did not arrive in time") from None
                    if content is grpc.aio.EOF:
                        raise BadRequest(f"{name} takes a message")
                    holding.add(len(content))
                    try:
                        request = kind.FromString(content)
                    except DecodeError:
                        raise BadRequest(f"the message is not a {kind.DESCRIPTOR.name}") from None
                    reply = await method(request, holding)
                    status = "OK"
                    return reply
                except Exception as exception:
                    error = ServingError.from_exception(exception)
                    status = error.code.name
                finally:
                    self._record(request, name, status, time.monotonic() - start)
            message = str(error)
            if len(message) > _LONGEST_MESSAGE:
                message = message[:_LONGEST_MESSAGE] + "...TRUNCATED"
            return await context.abort(error.code, message)

        return handle

    def _record(self, request: Any, name: str, status: str, seconds: float) -> None:
        if name == "Predict" and request is not None and self._service.store.knows(request.model_spec.name):
            self._service.metrics.record(request.model_spec.name, status, name, "GRPC", seconds)


class _Methods:
    """The methods of both services."""

    def __init__(self, service: Service) -> None:
        self._service = service

    async def predict(self, request: Any, holding: Holding) -> Any:
        limits = self._service.limits
        with self._service.store.lease(_requested_model(request)) as version:
            signature = version.signature(request.model_spec.signature_name, StatusCode.FAILED_PRECONDITION)
            requested = list(request.output_filter) or list(signature.outputs)
            for name in requested:
                if name not in signature.outputs:
                    known = ",".join(signature.outputs)
                    raise BadRequest(
                        f"output tensor alias not found in signature: {name} "
                        f"Outputs expected to be in the set {{{known}}}."
                    )
            if len(set(requested)) < len(requested):
                raise BadRequest(f"duplicate output tensor alias in: {','.join(requested)}")
            signature.check_names(request.inputs.keys())  # before a small message becomes large arrays
            arrays = {}
            for name, proto in request.inputs.items():
                sizes = tensor_sizes(proto)
                if signature.is_batched and sizes and sizes[0] > limits.images:
                    raise too_many_rows(name, sizes[0], limits)
                arrays[name] = read_tensor(name, proto, limits.request_bytes)
            outputs = await asyncio.wrap_future(self._service.submit(signature, arrays, holding))
            response = predict_pb2.PredictResponse()
            response.model_spec.name = version.model
            response.model_spec.version.value = version.number
            response.model_spec.signature_name = signature.name
            for name in requested:
                write_tensor(outputs[name], response.outputs[name])
            return response

    async def metadata(self, request: Any, _holding: Holding) -> Any:
        model = _requested_model(request)
        if not request.metadata_field:
            raise BadRequest("GetModelMetadataRequest must specify at least one metadata_field")
        for field in request.metadata_field:
            if field != "signature_def":
                raise BadRequest(f"Metadata field {field} is not supported")
        return self._service.store.metadata(model)

    async def status(self, request: Any, _holding: Holding) -> Any:
        return self._service.store.status(_requested_model(request))


def _requested_model(request: Any) -> ModelSpec:
    if not request.HasField("model_spec"):
        raise BadRequest("Missing ModelSpec")
    spec = request.model_spec
    choice = spec.WhichOneof("version_choice")
    return ModelSpec(
        spec.name,
        spec.version.value if choice == "version" else None,
        spec.version_label if choice == "version_label" else None,
    )
