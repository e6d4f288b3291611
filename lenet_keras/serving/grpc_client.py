"""TensorFlow Serving's gRPC protocol from the client's side."""

from __future__ import annotations

from collections.abc import Sequence

import grpc
import numpy as np
import tensorflow as tf
from tensorflow_serving.apis import (
    get_model_metadata_pb2,
    get_model_status_pb2,
    model_pb2,
    model_service_pb2_grpc,
    predict_pb2,
    prediction_service_pb2_grpc,
)

from lenet_keras.errors import LenetKerasError, ServerUnavailable
from lenet_keras.serving.endpoint import ENCODED, IMAGE_BYTES, Answer, Endpoint, ModelSpec, VersionState

_TEMPORARY = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.NOT_FOUND, grpc.StatusCode.DEADLINE_EXCEEDED)


class GrpcTransport:
    """TensorFlow Serving's gRPC protocol, without encryption. It bypasses proxies, as `RestTransport` does."""

    def __init__(self, endpoint: Endpoint, timeout: float) -> None:
        """Take the endpoint, and the seconds to wait for each answer; nothing is sent yet."""
        self._endpoint = endpoint
        self._timeout = timeout
        self._channel = grpc.insecure_channel(endpoint.host, options=[("grpc.enable_http_proxy", 0)])
        self._metadata = tuple(endpoint.authorization.items())
        self._models = model_service_pb2_grpc.ModelServiceStub(self._channel)
        self._predictions = prediction_service_pb2_grpc.PredictionServiceStub(self._channel)

    def states(self) -> list[VersionState]:
        """See `Transport`."""
        request = get_model_status_pb2.GetModelStatusRequest(model_spec=_message(self._endpoint.model))
        try:
            reply = self._models.GetModelStatus(request, timeout=self._timeout, metadata=self._metadata)
        except grpc.RpcError as error:
            raise self._failure(error) from error
        name = get_model_status_pb2.ModelVersionStatus.State.Name
        return [
            VersionState(found.version, name(found.state), found.status.error_message)
            for found in reply.model_version_status
        ]

    def current_version(self) -> int:
        """See `Transport`."""
        request = get_model_metadata_pb2.GetModelMetadataRequest(
            model_spec=_message(self._endpoint.model), metadata_field=["signature_def"]
        )
        try:
            reply = self._predictions.GetModelMetadata(request, timeout=self._timeout, metadata=self._metadata)
        except grpc.RpcError as error:
            raise self._failure(error) from error
        return int(reply.model_spec.version.value)

    def classify(self, contents: Sequence[bytes], version: int) -> list[Answer]:
        """See `Transport`."""
        request = predict_pb2.PredictRequest(model_spec=_message(self._endpoint.at_version(version).model))
        request.model_spec.signature_name = ENCODED
        request.inputs[IMAGE_BYTES].CopyFrom(tf.make_tensor_proto(list(contents), tf.string))
        try:
            reply = self._predictions.Predict(request, timeout=self._timeout, metadata=self._metadata)
        except grpc.RpcError as error:
            raise self._failure(error) from error
        try:
            names, ids, rows = (
                tf.make_ndarray(reply.outputs[key]).tolist() for key in ("class_name", "class_id", "probabilities")
            )
            return [
                Answer(name.decode(), class_id, np.array(row, np.float64), reply.model_spec.version.value or version)
                for name, class_id, row in zip(names, ids, rows, strict=True)
            ]
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise LenetKerasError(f"{self._endpoint} is not a model that this package exported") from error

    def close(self) -> None:
        """Close the channel."""
        self._channel.close()

    def _failure(self, error: grpc.RpcError) -> LenetKerasError:
        reason = next(iter((error.details() or "").splitlines()), "") or error.code().name
        return (ServerUnavailable if error.code() in _TEMPORARY else LenetKerasError)(f"{self._endpoint}: {reason}")


def _message(model: ModelSpec) -> model_pb2.ModelSpec:
    message = model_pb2.ModelSpec(name=model.name)
    if model.version is not None:
        message.version.value = model.version
    elif model.label is not None:
        message.version_label = model.label
    return message
