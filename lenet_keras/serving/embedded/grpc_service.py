"""TensorFlow Serving's gRPC interface: PredictionService.Predict and GetModelMetadata, ModelService.GetModelStatus."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from concurrent import futures
from typing import Any

import grpc
from google.protobuf import message_factory
from tensorflow_serving.apis import model_service_pb2, predict_pb2, prediction_service_pb2
from tornado import netutil

from lenet_keras.serving.embedded import answers, tensors
from lenet_keras.serving.embedded.batching import Batcher
from lenet_keras.serving.embedded.models import ModelStore
from lenet_keras.serving.embedded.status import Code, ServingError, from_exception, invalid

_PREDICTION = prediction_service_pb2.DESCRIPTOR.services_by_name["PredictionService"]
_MODELS = model_service_pb2.DESCRIPTOR.services_by_name["ModelService"]
_LONGEST_MESSAGE = 1024  # gRPC sends it in a header; TensorFlow Serving cuts here too
_THREADS = 32  # one waits in each request that runs, so this is also the most requests that can be merged


class GrpcServer:
    """Answers gRPC requests on threads of its own."""

    def __init__(self, store: ModelStore, batcher: Batcher, host: str, port: int, max_bytes: int) -> None:
        """Take the port; connections wait until `start`. The arguments are those of `RestServer`.

        Raises:
            OSError: the address or port cannot be had.
        """
        for probe in netutil.bind_sockets(port, host):  # gRPC does not say why it cannot, and writes to stderr
            probe.close()
        self._threads = futures.ThreadPoolExecutor(_THREADS, thread_name_prefix="grpc")
        self._server = grpc.server(
            self._threads,
            options=[
                ("grpc.so_reuseport", 0),  # else a second server takes half of the requests, and neither says a word
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

    def start(self) -> None:
        """Begin to answer."""
        self._server.start()

    def stop(self, grace: float) -> threading.Event:
        """Refuse new requests and answer those under way within `grace` seconds; the event tells when that is done."""
        stopped: threading.Event = self._server.stop(grace)
        return stopped

    def close(self) -> None:
        """End the threads, once `stop`'s event has come."""
        self._threads.shutdown()


class _Prediction:
    def __init__(self, store: ModelStore, batcher: Batcher, max_bytes: int) -> None:
        self._store = store
        self._batcher = batcher
        self._max_bytes = max_bytes

    def Predict(self, request: Any, context: grpc.ServicerContext) -> Any:
        with _aborting(context):
            which = _which(request)
            with self._store.lease(*which) as version:
                signature = version.signature(request.model_spec.signature_name, Code.FAILED_PRECONDITION)
                wanted = list(request.output_filter) or list(signature.outputs)
                for name in wanted:
                    if name not in signature.outputs:
                        known = ",".join(signature.outputs)
                        raise invalid(
                            f"output tensor alias not found in signature: {name} "
                            f"Outputs expected to be in the set {{{known}}}."
                        )
                if len(set(wanted)) < len(wanted):
                    raise invalid(f"duplicate output tensor alias in: {','.join(wanted)}")
                arrays = {
                    name: tensors.to_array(name, proto, self._max_bytes) for name, proto in request.inputs.items()
                }
                answer = self._batcher.submit(signature, arrays)
                outputs = _wait(answer, context)
                response = predict_pb2.PredictResponse()
                response.model_spec.name = version.model
                response.model_spec.version.value = version.number
                response.model_spec.signature_name = signature.name
            for name in wanted:
                tensors.write(outputs[name], response.outputs[name])
            return response

    def GetModelMetadata(self, request: Any, context: grpc.ServicerContext) -> Any:
        with _aborting(context):
            which = _which(request)
            if not request.metadata_field:
                raise invalid("GetModelMetadataRequest must specify at least one metadata_field")
            for field in request.metadata_field:
                if field != "signature_def":
                    raise invalid(f"Metadata field {field} is not supported")
            return answers.metadata(self._store, *which)


class _Models:
    def __init__(self, store: ModelStore) -> None:
        self._store = store

    def GetModelStatus(self, request: Any, context: grpc.ServicerContext) -> Any:
        with _aborting(context):
            return answers.status(self._store, *_which(request))


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


def _which(request: Any) -> tuple[str, int | None, str | None]:
    if not request.HasField("model_spec"):
        raise invalid("Missing ModelSpec")
    spec = request.model_spec
    chosen = spec.WhichOneof("version_choice")
    return (
        spec.name,
        spec.version.value if chosen == "version" else None,
        spec.version_label if chosen == "version_label" else None,
    )


def _wait(answer: futures.Future[Any], context: grpc.ServicerContext) -> Any:
    remaining = context.time_remaining()
    try:
        return answer.result(None if remaining is None else min(remaining, threading.TIMEOUT_MAX))
    except futures.TimeoutError:
        answer.cancel()
        raise ServingError(Code.DEADLINE_EXCEEDED, "the request's deadline has passed") from None


@contextlib.contextmanager
def _aborting(context: grpc.ServicerContext) -> Iterator[None]:
    failure: ServingError | None = None
    try:
        yield
    except Exception as exception:
        failure = from_exception(exception)
    if failure is not None:
        message = str(failure)
        if len(message) > _LONGEST_MESSAGE:
            message = message[:_LONGEST_MESSAGE] + "...TRUNCATED"
        context.abort(failure.code, message)
