"""The embedded server's gRPC interface, called with the official stubs."""

import types

import grpc
import numpy as np
import pytest
import tensorflow as tf
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase
from tensorflow_serving.apis import (
    get_model_metadata_pb2,
    get_model_status_pb2,
    model_pb2,
    model_service_pb2_grpc,
    predict_pb2,
    prediction_service_pb2_grpc,
)

from lenet_keras.export.signatures import describe_signatures
from lenet_keras.serving.embedded import grpc_server
from lenet_keras.serving.embedded.limits import Limits

Code = grpc.StatusCode


@pytest.fixture(scope="module")
def channel(server):
    options = [("grpc.enable_http_proxy", 0)]
    with grpc.insecure_channel(f"{server.host}:{server.grpc_port}", options) as channel:
        yield channel


@pytest.fixture(scope="module")
def prediction_service(channel):
    return prediction_service_pb2_grpc.PredictionServiceStub(channel)


@pytest.fixture(scope="module")
def model_service(channel):
    return model_service_pb2_grpc.ModelServiceStub(channel)


def spec(name="digits", signature="", version=None, label=None):
    message = model_pb2.ModelSpec(name=name, signature_name=signature)
    if version is not None:
        message.version.value = version
    if label is not None:
        message.version_label = label
    return message


def request(array, argument="images", **chosen):
    message = predict_pb2.PredictRequest(model_spec=spec(**chosen))
    message.inputs[argument].CopyFrom(tf.make_tensor_proto(array))
    return message


def assert_refused(call, code, message=""):
    with pytest.raises(grpc.RpcError) as refused:
        call()
    assert refused.value.code() is code
    assert message in refused.value.details()


@pytest.mark.parametrize("signature", ["serving_default", "uint8", "encoded"])
@pytest.mark.parametrize("count", [1, 12])
def test_every_signature_returns_the_models_answers(prediction_service, images, expected, signature, count):
    described = describe_signatures((28, 28, 1), 10)[signature]
    array = described.example_input(images[:count])
    answer = prediction_service.Predict(request(array, described.argument.name, signature=signature))
    assert (answer.model_spec.name, answer.model_spec.version.value) == ("digits", 2)
    assert answer.model_spec.signature_name == signature
    outputs = {name: tf.make_ndarray(proto) for name, proto in answer.outputs.items()}
    np.testing.assert_allclose(outputs["probabilities"], expected[2][:count], rtol=0, atol=1e-6)
    np.testing.assert_array_equal(outputs["class_id"], expected[2][:count].argmax(axis=1))
    assert outputs["class_name"].shape == (count,)


@pytest.mark.parametrize(
    ("chosen", "version"), [({"version": 1}, 1), ({"label": "stable"}, 1), ({"label": "canary"}, 2)]
)
def test_a_version_or_label_is_selected_by_the_spec(prediction_service, images, expected, chosen, version):
    answer = prediction_service.Predict(request(images, signature="uint8", **chosen))
    assert answer.model_spec.version.value == version
    found = tf.make_ndarray(answer.outputs["probabilities"])
    np.testing.assert_allclose(found, expected[version], rtol=0, atol=1e-6)


def test_only_requested_outputs_are_returned(prediction_service, images):
    message = request(images, signature="uint8")
    message.output_filter.append("class_id")
    assert set(prediction_service.Predict(message).outputs) == {"class_id"}
    message.output_filter.append("nope")
    assert_refused(lambda: prediction_service.Predict(message), Code.INVALID_ARGUMENT, "nope")


def test_status_lists_the_states_of_the_versions(model_service):
    answer = model_service.GetModelStatus(get_model_status_pb2.GetModelStatusRequest(model_spec=spec()))
    available = get_model_status_pb2.ModelVersionStatus.AVAILABLE
    assert [(found.version, found.state) for found in answer.model_version_status] == [(2, available), (1, available)]
    message = get_model_status_pb2.GetModelStatusRequest(model_spec=spec("nope"))
    assert_refused(
        lambda: model_service.GetModelStatus(message), Code.NOT_FOUND, "Could not find any versions of model nope"
    )


def test_metadata_describe_the_signatures(prediction_service):
    message = get_model_metadata_pb2.GetModelMetadataRequest(model_spec=spec(), metadata_field=["signature_def"])
    answer = prediction_service.GetModelMetadata(message)
    signatures = get_model_metadata_pb2.SignatureDefMap()
    assert answer.metadata["signature_def"].Unpack(signatures)
    assert signatures.signature_def["encoded"].inputs["image_bytes"].dtype == tf.string.as_datatype_enum
    message.metadata_field.append("else")
    assert_refused(lambda: prediction_service.GetModelMetadata(message), Code.INVALID_ARGUMENT, "else")


@pytest.mark.parametrize(
    ("chosen", "code", "message"),
    [
        ({"name": "nope"}, Code.NOT_FOUND, "Servable not found for request: Latest(nope)"),
        ({"version": 9}, Code.NOT_FOUND, "Servable not found for request: Specific(digits, 9)"),
        ({"label": "beta"}, Code.INVALID_ARGUMENT, "Unrecognized servable version label: beta"),
        ({"signature": "nope"}, Code.FAILED_PRECONDITION, "nope"),
        ({"name": ""}, Code.INVALID_ARGUMENT, "no name"),
        ({"argument": "pixels"}, Code.INVALID_ARGUMENT, "Missing but required: {images}"),
    ],
)
def test_the_error_names_what_does_not_exist(prediction_service, images, chosen, code, message):
    assert_refused(
        lambda: prediction_service.Predict(request(images, **{"signature": "uint8", **chosen})), code, message
    )


def test_tensors_that_do_not_fit_the_signature_are_refused(prediction_service, images):
    def predict(array, signature="uint8", argument="images"):
        return lambda: prediction_service.Predict(request(array, argument, signature=signature))

    invalid = Code.INVALID_ARGUMENT
    assert_refused(predict(images.astype(np.float32)), invalid, "must be uint8. Received: float32")
    assert_refused(predict(images[0]), invalid, "must have the shape")
    assert_refused(predict(np.array([b"not an image"]), "encoded", "image_bytes"), invalid, "PNG")
    assert_refused(predict(images[:0]), invalid)


def test_a_few_bytes_that_claim_a_shape_of_terabytes_are_refused(prediction_service):
    message = predict_pb2.PredictRequest(model_spec=spec(signature="uint8"))
    message.inputs["images"].dtype = tf.uint8.as_datatype_enum
    for size in (1, 2**40, 28, 1):
        message.inputs["images"].tensor_shape.dim.add(size=size)
    message.inputs["images"].int_val.append(1)
    assert_refused(lambda: prediction_service.Predict(message), Code.INVALID_ARGUMENT, "asks for more than")


def test_inputs_that_the_signature_does_not_take_are_refused_before_they_become_arrays(prediction_service, monkeypatch):
    monkeypatch.setattr(grpc_server, "read_tensor", pytest.fail)
    message = predict_pb2.PredictRequest(model_spec=spec())
    for number in range(1000):  # 60 KB that stand for 16 GB
        proto = message.inputs[f"a{number}"]
        proto.dtype = tf.float32.as_datatype_enum
        for size in (1, 2**22):
            proto.tensor_shape.dim.add(size=size)
        proto.float_val.append(1)
    assert_refused(lambda: prediction_service.Predict(message), Code.INVALID_ARGUMENT, "Sent extra: {a0,a1,")


def test_what_keeps_the_server_from_starting_is_raised(monkeypatch):
    def out_of_descriptors(_limits):
        raise OSError("Too many open files")

    monkeypatch.setattr(Limits, "affordable_connections", out_of_descriptors)
    with pytest.raises(OSError, match="Too many open files"):
        grpc_server.GrpcServer(types.SimpleNamespace(limits=Limits()), "127.0.0.1", 0)


@pytest.mark.parametrize("number", [0, 8, 20, 21, 101, 120, 10**6])
def test_a_type_that_no_input_has_is_refused_in_words(prediction_service, number):
    message = predict_pb2.PredictRequest(model_spec=spec(signature="uint8"))
    message.inputs["images"].dtype = number
    message.inputs["images"].tensor_shape.dim.add(size=1)
    assert_refused(lambda: prediction_service.Predict(message), Code.INVALID_ARGUMENT, "is not one that is served")


def test_a_message_that_cannot_be_read_is_refused_in_words(channel):
    call = channel.unary_unary("/tensorflow.serving.PredictionService/Predict")
    assert_refused(lambda: call(b"\xff\xff"), Code.INVALID_ARGUMENT, "is not a PredictRequest")


def test_health_checks_are_answered_by_the_names_that_the_real_one_knows(channel):
    checks = health_pb2_grpc.HealthStub(channel)
    for name in ("", "ModelService", "PredictionService"):
        answer = checks.Check(health_pb2.HealthCheckRequest(service=name))
        assert answer.status == health_pb2.HealthCheckResponse.SERVING
    assert_refused(lambda: checks.Check(health_pb2.HealthCheckRequest(service="nope")), Code.NOT_FOUND)


def test_services_and_their_messages_are_described_by_reflection(channel):
    database = ProtoReflectionDescriptorDatabase(channel)
    assert {"tensorflow.serving.PredictionService", "tensorflow.serving.ModelService"} <= set(database.get_services())
    file = database.FindFileContainingSymbol("tensorflow.serving.PredictRequest")
    assert "PredictRequest" in [message.name for message in file.message_type]


def test_a_message_that_is_too_large_is_refused_and_the_next_one_answered(prediction_service, images):
    large = request(np.zeros((90_000, 28, 28, 1), np.uint8), signature="uint8")
    assert_refused(lambda: prediction_service.Predict(large), Code.RESOURCE_EXHAUSTED)
    assert prediction_service.Predict(request(images[:1], signature="uint8")).model_spec.version.value == 2


def test_other_methods_are_unimplemented(channel):
    call = channel.unary_unary("/tensorflow.serving.PredictionService/Classify")
    assert_refused(lambda: call(b""), Code.UNIMPLEMENTED)
