"""The embedded server's gRPC interface, asked with the official stubs."""

import grpc
import numpy as np
import pytest
import tensorflow as tf
from tensorflow_serving.apis import (
    get_model_metadata_pb2,
    get_model_status_pb2,
    model_pb2,
    model_service_pb2_grpc,
    predict_pb2,
    prediction_service_pb2_grpc,
)

from lenet_keras.export.example_inputs import inputs

Code = grpc.StatusCode


@pytest.fixture(scope="module")
def channel(server):
    options = [("grpc.enable_http_proxy", 0)]
    with grpc.insecure_channel(f"{server.host}:{server.grpc_port}", options) as channel:
        yield channel


@pytest.fixture(scope="module")
def predictions(channel):
    return prediction_service_pb2_grpc.PredictionServiceStub(channel)


@pytest.fixture(scope="module")
def models(channel):
    return model_service_pb2_grpc.ModelServiceStub(channel)


def spec(name="digits", signature="", version=None, label=None):
    made = model_pb2.ModelSpec(name=name, signature_name=signature)
    if version is not None:
        made.version.value = version
    if label is not None:
        made.version_label = label
    return made


def request(array, argument="images", **chosen):
    made = predict_pb2.PredictRequest(model_spec=spec(**chosen))
    made.inputs[argument].CopyFrom(tf.make_tensor_proto(array))
    return made


def assert_refused(call, code, message=""):
    with pytest.raises(grpc.RpcError) as refused:
        call()
    assert refused.value.code() is code
    assert message in refused.value.details()


@pytest.mark.parametrize("signature", ["serving_default", "uint8", "encoded"])
@pytest.mark.parametrize("count", [1, 12])
def test_every_signature_gets_the_models_answers(predictions, images, expected, signature, count):
    argument, array = inputs(images[:count])[signature]
    answer = predictions.Predict(request(array, argument, signature=signature))
    assert (answer.model_spec.name, answer.model_spec.version.value) == ("digits", 2)
    assert answer.model_spec.signature_name == signature
    outputs = {name: tf.make_ndarray(proto) for name, proto in answer.outputs.items()}
    np.testing.assert_allclose(outputs["probabilities"], expected[2][:count], rtol=0, atol=1e-6)
    np.testing.assert_array_equal(outputs["class_id"], expected[2][:count].argmax(axis=1))
    assert outputs["class_name"].shape == (count,)


@pytest.mark.parametrize(
    ("chosen", "version"), [({"version": 1}, 1), ({"label": "stable"}, 1), ({"label": "canary"}, 2)]
)
def test_a_version_or_label_is_asked_by_its_spec(predictions, images, expected, chosen, version):
    answer = predictions.Predict(request(images, signature="uint8", **chosen))
    assert answer.model_spec.version.value == version
    found = tf.make_ndarray(answer.outputs["probabilities"])
    np.testing.assert_allclose(found, expected[version], rtol=0, atol=1e-6)


def test_only_the_outputs_asked_for_come_back(predictions, images):
    asked = request(images, signature="uint8")
    asked.output_filter.append("class_id")
    assert set(predictions.Predict(asked).outputs) == {"class_id"}
    asked.output_filter.append("nope")
    assert_refused(lambda: predictions.Predict(asked), Code.INVALID_ARGUMENT, "nope")


def test_the_states_of_the_versions(models):
    answer = models.GetModelStatus(get_model_status_pb2.GetModelStatusRequest(model_spec=spec()))
    available = get_model_status_pb2.ModelVersionStatus.AVAILABLE
    assert [(found.version, found.state) for found in answer.model_version_status] == [(2, available), (1, available)]
    asked = get_model_status_pb2.GetModelStatusRequest(model_spec=spec("nope"))
    assert_refused(lambda: models.GetModelStatus(asked), Code.NOT_FOUND, "Could not find any versions of model nope")


def test_the_metadata_are_the_signatures(predictions):
    asked = get_model_metadata_pb2.GetModelMetadataRequest(model_spec=spec(), metadata_field=["signature_def"])
    answer = predictions.GetModelMetadata(asked)
    signatures = get_model_metadata_pb2.SignatureDefMap()
    assert answer.metadata["signature_def"].Unpack(signatures)
    assert signatures.signature_def["encoded"].inputs["image_bytes"].dtype == tf.string.as_datatype_enum
    asked.metadata_field.append("else")
    assert_refused(lambda: predictions.GetModelMetadata(asked), Code.INVALID_ARGUMENT, "else")


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
def test_what_is_not_there_is_named(predictions, images, chosen, code, message):
    assert_refused(lambda: predictions.Predict(request(images, **{"signature": "uint8", **chosen})), code, message)


def test_tensors_that_do_not_fit_are_refused(predictions, images):
    def predict(array, signature="uint8", argument="images"):
        return lambda: predictions.Predict(request(array, argument, signature=signature))

    invalid = Code.INVALID_ARGUMENT
    assert_refused(predict(images.astype(np.float32)), invalid, "must be uint8. Received: float32")
    assert_refused(predict(images[0]), invalid, "must have the shape")
    assert_refused(predict(np.array([b"no picture"]), "encoded", "image_bytes"), invalid, "PNG")
    assert_refused(predict(images[:0]), invalid)


def test_a_shape_of_terabytes_in_a_few_bytes_is_refused(predictions):
    asked = predict_pb2.PredictRequest(model_spec=spec(signature="uint8"))
    asked.inputs["images"].dtype = tf.uint8.as_datatype_enum
    for size in (2**40, 28, 28, 1):
        asked.inputs["images"].tensor_shape.dim.add(size=size)
    asked.inputs["images"].int_val.append(1)
    assert_refused(lambda: predictions.Predict(asked), Code.INVALID_ARGUMENT, "asks for more than")


def test_a_message_that_is_too_large_is_refused_and_the_next_one_answered(predictions, images):
    large = request(np.zeros((90_000, 28, 28, 1), np.uint8), signature="uint8")
    assert_refused(lambda: predictions.Predict(large), Code.RESOURCE_EXHAUSTED)
    assert predictions.Predict(request(images[:1], signature="uint8")).model_spec.version.value == 2


def test_what_is_not_offered_is_unimplemented(channel):
    call = channel.unary_unary("/tensorflow.serving.PredictionService/Classify")
    assert_refused(lambda: call(b""), Code.UNIMPLEMENTED)
