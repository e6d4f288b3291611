"""TensorFlow Serving's gRPC protocol, from the side of the one who asks."""

from __future__ import annotations

from collections.abc import Sequence

import grpc
import tensorflow as tf
from tensorflow_serving.apis import (
    get_model_status_pb2,
    model_pb2,
    model_service_pb2_grpc,
    predict_pb2,
    prediction_service_pb2_grpc,
)

from lenet_keras.errors import LenetKerasError
from lenet_keras.serving.client.endpoint import Classified, Endpoint, Unavailable, VersionState

_LATER = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.NOT_FOUND, grpc.StatusCode.DEADLINE_EXCEEDED)


class GrpcTransport:
    """Asks one endpoint by gRPC, without encryption. Directly: servers stand where no proxy leads to."""

    def __init__(self, endpoint: Endpoint, seconds: float) -> None:
        """Ask `endpoint`, and wait so many seconds for an answer."""
        self._endpoint = endpoint
        self._seconds = seconds
        self._channel = grpc.insecure_channel(endpoint.host, options=[("grpc.enable_http_proxy", 0)])
        self._models = model_service_pb2_grpc.ModelServiceStub(self._channel)
        self._predictions = prediction_service_pb2_grpc.PredictionServiceStub(self._channel)

    def states(self) -> list[VersionState]:
        """What the server knows of the endpoint's versions.

        Raises:
            Unavailable: it does not answer, or knows no such model.
            LenetKerasError: what answers is no TensorFlow Serving.
        """
        request = get_model_status_pb2.GetModelStatusRequest(model_spec=self._spec(self._endpoint.version))
        try:
            answer = self._models.GetModelStatus(request, timeout=self._seconds)
        except grpc.RpcError as error:
            raise self._failure(error) from error
        name = get_model_status_pb2.ModelVersionStatus.State.Name
        return [
            VersionState(found.version, name(found.state), found.status.error_message)
            for found in answer.model_version_status
        ]

    def classify(self, contents: Sequence[bytes], version: int) -> Classified:
        """Ask `version` for the classes of PNG or JPEG files.

        Raises:
            Unavailable: it does not answer, or no longer has the version.
            LenetKerasError: it refuses the files, or is no model that this program exported.
        """
        request = predict_pb2.PredictRequest(model_spec=self._spec(version))
        request.model_spec.signature_name = "encoded"
        request.inputs["image_bytes"].CopyFrom(tf.make_tensor_proto(list(contents), tf.string))
        try:
            answer = self._predictions.Predict(request, timeout=self._seconds)
        except grpc.RpcError as error:
            raise self._failure(error) from error
        try:
            names, ids, rows = (
                tf.make_ndarray(answer.outputs[key]).tolist() for key in ("class_name", "class_id", "probabilities")
            )
        except (KeyError, TypeError, ValueError) as error:
            raise LenetKerasError(f"{self._endpoint} is not a model that this program exported") from error
        return Classified([name.decode() for name in names], ids, rows, answer.model_spec.version.value)

    def close(self) -> None:
        """Close the channel."""
        self._channel.close()

    def _spec(self, version: int | None) -> model_pb2.ModelSpec:
        spec = model_pb2.ModelSpec(name=self._endpoint.model)
        if version is not None:
            spec.version.value = version
        elif self._endpoint.label:
            spec.version_label = self._endpoint.label
        return spec

    def _failure(self, error: grpc.RpcError) -> LenetKerasError:
        reason = next(iter((error.details() or "").splitlines()), "") or error.code().name
        return (Unavailable if error.code() in _LATER else LenetKerasError)(f"{self._endpoint}: {reason}")
