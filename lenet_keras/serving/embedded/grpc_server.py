"""TensorFlow Serving's gRPC interface: PredictionService.Predict and GetModelMetadata, ModelService.GetModelStatus."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from concurrent import futures
from typing import Any

import grpc
from google.protobuf import message_factory
from grpc import StatusCode
from tensorflow_serving.apis import model_service_pb2, predict_pb2, prediction_service_pb2
from tornado import netutil

from lenet_keras.files import naming
from lenet_keras.serving.embedded.batching import Batcher
from lenet_keras.serving.embedded.signatures import BadRequest, ServingError, read_tensor, write_tensor
from lenet_keras.serving.embedded.store import ModelStore
from lenet_keras.serving.endpoint import ModelSpec

_PREDICTION = prediction_service_pb2.DESCRIPTOR.services_by_name["PredictionService"]
_MODELS = model_service_pb2.DESCRIPTOR.services_by_name["ModelService"]
_LONGEST_MESSAGE = 1024  # gRPC sends it in a header; TensorFlow Serving truncates here too
_THREADS = 32  # one waits for each request that runs, so this is also the most requests that can be merged


class GrpcServer:
    """Answers gRPC requests on threads of its own."""

    def __init__(self, store: ModelStore, batcher: Batcher, host: str, port: int, max_bytes: int) -> None:
        """Bind the port; connections wait until `start`. The arguments are those of `RestServer`.

        Raises:
            OSError: the address or port is not available.
        """
        with naming(f"{host}:{port}"):
            for probe in netutil.bind_sockets(port, host):  # gRPC does not say why it cannot, and writes to stderr
                probe.close()
        self._threads = futures.ThreadPoolExecutor(_THREADS, thread_name_prefix="grpc")
        self._server = grpc.server(
            self._threads,
            options=[
                ("grpc.so_reuseport", 0),  # otherwise a second server silently takes half of the requests
                ("grpc.max_receive_message_length", max_bytes),
                ("grpc.max_send_message_length", -1),
            ],
        )
        prediction, models = _Prediction(store, batcher, max_bytes), _Models(store)
        self._server.add_generic_rpc_handlers((_service(_PREDICTION, prediction), _service(_MODELS, models)))
        address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        try:
            self.port: int = self._server.add_insecure_port(address)
        except RuntimeError as error:
            raise OSError(f"cannot listen on {address} for gRPC") from error
        self._stopped: threading.Event

    def start(self) -> None:
        """Start answering."""
        self._server.start()

    def stop(self, grace: float) -> None:
        """Refuse new requests, and give those under way `grace` seconds; `join` waits for that."""
        self._stopped = self._server.stop(grace)

    def join(self) -> None:
        """Wait until the server has stopped, and end its threads."""
        self._stopped.wait()
        self._threads.shutdown()


class _Prediction:
    def __init__(self, store: ModelStore, batcher: Batcher, max_bytes: int) -> None:
        self._store = store
        self._batcher = batcher
        self._max_bytes = max_bytes

    def Predict(self, request: Any, context: grpc.ServicerContext) -> Any:
        with _aborting(context), self._store.lease(_requested_model(request)) as version:
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
            arrays = {name: read_tensor(name, proto, self._max_bytes) for name, proto in request.inputs.items()}
            outputs = _wait(self._batcher.submit(signature, arrays), context)
            response = predict_pb2.PredictResponse()
            response.model_spec.name = version.model
            response.model_spec.version.value = version.number
            response.model_spec.signature_name = signature.name
            for name in requested:
                write_tensor(outputs[name], response.outputs[name])
            return response

    def GetModelMetadata(self, request: Any, context: grpc.ServicerContext) -> Any:
        with _aborting(context):
            model = _requested_model(request)
            if not request.metadata_field:
                raise BadRequest("GetModelMetadataRequest must specify at least one metadata_field")
            for field in request.metadata_field:
                if field != "signature_def":
                    raise BadRequest(f"Metadata field {field} is not supported")
            return self._store.metadata(model)


class _Models:
    def __init__(self, store: ModelStore) -> None:
        self._store = store

    def GetModelStatus(self, request: Any, context: grpc.ServicerContext) -> Any:
        with _aborting(context):
            return self._store.status(_requested_model(request))


def _service(descriptor: Any, implementation: object) -> grpc.GenericRpcHandler:
    """Offer the methods of a service that `implementation` has; the others answer UNIMPLEMENTED."""
    handlers = {
        method.name: grpc.unary_unary_rpc_method_handler(
            getattr(implementation, method.name),
            request_deserializer=message_factory.GetMessageClass(method.input_type).FromString,
            response_serializer=message_factory.GetMessageClass(method.output_type).SerializeToString,
        )
        for method in descriptor.methods
        if hasattr(implementation, method.name)
    }
    return grpc.method_handlers_generic_handler(descriptor.full_name, handlers)


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


def _wait(answer: futures.Future[Any], context: grpc.ServicerContext) -> Any:
    remaining = context.time_remaining()
    try:
        return answer.result(None if remaining is None else min(remaining, threading.TIMEOUT_MAX))
    except futures.TimeoutError:
        answer.cancel()
        raise ServingError(StatusCode.DEADLINE_EXCEEDED, "the request's deadline has passed") from None


@contextlib.contextmanager
def _aborting(context: grpc.ServicerContext) -> Iterator[None]:
    """Answer an exception in the block with its gRPC status."""
    try:
        yield
        return
    except Exception as exception:
        error = ServingError.from_exception(exception)
    message = str(error)
    if len(message) > _LONGEST_MESSAGE:
        message = message[:_LONGEST_MESSAGE] + "...TRUNCATED"
    context.abort(error.code, message)
