"""The signatures of a SavedModel: names, types, shapes, any batch, one answer for any kind of input; the warm-up."""

import io

import keras
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image
from tensorflow_serving.apis import prediction_log_pb2

from lenet_keras.data.load import load
from lenet_keras.export.signatures import describe_signatures

CLASSES = {
    "probabilities": (tf.float32, [None, 10]),
    "class_id": (tf.int64, [None]),
    "class_name": (tf.string, [None]),
}
IMAGES = (None, 28, 28, 1)
DESCRIBED = describe_signatures((28, 28, 1), 10)
CLASSIFYING = ("serving_default", "uint8", "encoded")


@pytest.fixture(scope="module")
def signatures(published):
    exported = tf.saved_model.load(str(published))
    yield exported.signatures
    del exported  # a signature does not keep its variables alive by itself


@pytest.mark.parametrize(
    ("signature", "argument", "outputs"),
    [
        ("serving_default", tf.TensorSpec(IMAGES, tf.float32, name="images"), CLASSES),
        ("uint8", tf.TensorSpec(IMAGES, tf.uint8, name="images"), CLASSES),
        ("encoded", tf.TensorSpec((None,), tf.string, name="image_bytes"), CLASSES),
        ("features", tf.TensorSpec(IMAGES, tf.float32, name="images"), {"features": (tf.float32, [None, 84])}),
    ],
)
def test_a_signature_has_the_names_types_and_shapes_of_the_contract(signatures, signature, argument, outputs):
    found = signatures[signature]
    assert found.structured_input_signature[1] == {argument.name: argument}
    assert {name: (spec.dtype, spec.shape.as_list()) for name, spec in found.structured_outputs.items()} == outputs


@pytest.mark.parametrize("signature", CLASSIFYING)
@pytest.mark.parametrize("size", [1, 3])
def test_a_batch_of_any_size_gets_the_models_answers(signatures, images, expected, class_names, signature, size):
    described = DESCRIBED[signature]
    argument = {described.argument.name: tf.constant(described.example_input(images[:size]))}
    outputs = signatures[signature](**argument)
    np.testing.assert_allclose(outputs["probabilities"], expected[:size], rtol=0, atol=1e-6)
    classes = expected[:size].argmax(axis=1)
    np.testing.assert_array_equal(outputs["class_id"], classes)
    assert [text.decode() for text in outputs["class_name"].numpy()] == [class_names[i] for i in classes]


def test_keras_calls_a_saved_model_without_being_told_an_endpoint(published, images, expected):
    layer = keras.layers.TFSMLayer(published)
    np.testing.assert_allclose(layer(images.astype(np.float32))["probabilities"], expected, rtol=0, atol=1e-6)


def test_the_last_layer_turns_the_features_into_the_probabilities(signatures, model, images, expected):
    features = signatures["features"](images=tf.cast(images, tf.float32))["features"]
    probabilities = tf.nn.softmax(model.get_layer("logits")(features))
    np.testing.assert_allclose(probabilities, expected, rtol=0, atol=1e-6)


def test_a_png_of_the_dataset_is_as_good_as_its_pixels(signatures):
    real = load("fashion_mnist_sample").test.images
    by_pixels = signatures["uint8"](images=tf.constant(real))
    by_files = signatures["encoded"](image_bytes=tf.constant(DESCRIBED["encoded"].example_input(real)))
    np.testing.assert_array_equal(by_files["probabilities"], by_pixels["probabilities"])


def test_grey_colour_png_and_jpeg_of_any_size_go_into_one_batch(signatures):
    pixels = np.kron(load("fashion_mnist_sample").test.images[0, :, :, 0], np.ones((4, 4), np.uint8))
    contents = []
    for kind, size in [("PNG", (28, 28)), ("PNG", (112, 112)), ("JPEG", (112, 112)), ("JPEG", (300, 300))]:
        for mode in ("L", "RGB"):
            file = io.BytesIO()
            Image.fromarray(pixels).resize(size).convert(mode).save(
                file, kind, **({"quality": 95} if kind == "JPEG" else {})
            )
            contents.append(file.getvalue())
    probabilities = signatures["encoded"](image_bytes=tf.constant(contents))["probabilities"].numpy()
    np.testing.assert_allclose(probabilities[0::2], probabilities[1::2], atol=0.02)  # grey and colour
    assert np.ptp(probabilities, axis=0).max() < 0.2


def test_a_file_that_is_not_an_image_is_an_invalid_argument(signatures):
    with pytest.raises(tf.errors.InvalidArgumentError):
        signatures["encoded"](image_bytes=tf.constant([b"not an image"]))


def test_the_warm_up_has_a_request_that_works_for_each_signature(published, images, expected):
    path = published / "assets.extra" / "tf_serving_warmup_requests"
    logs = [
        prediction_log_pb2.PredictionLog.FromString(record)
        for record in tf.data.TFRecordDataset(str(path)).as_numpy_iterator()
    ]
    exported = tf.saved_model.load(str(published))
    replayed = {}
    for log in logs:
        request = log.predict_log.request
        inputs = {name: tf.constant(tf.make_ndarray(value)) for name, value in request.inputs.items()}
        signature = request.model_spec.signature_name
        replayed[signature] = exported.signatures[signature](**inputs)
    assert set(replayed) == {"serving_default", "uint8", "encoded", "features"}
    assert len(logs) == 4
    for signature in ("serving_default", "uint8", "encoded"):
        np.testing.assert_allclose(replayed[signature]["probabilities"], expected[:4], rtol=0, atol=1e-6)
    assert replayed["features"]["features"].shape == (4, 84)
