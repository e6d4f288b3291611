"""The faster convolutions against those of Keras."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from lenet_keras.training.convolution import faster_convolution


def convolved(shape, filters, *, dtype="float64", **choices):
    """Return an input and the layer that convolves it, with random weights."""
    keras.utils.set_random_seed(3)
    inputs = keras.Input(shape)
    layer = keras.layers.Conv2D(
        filters, choices.pop("side", 5), bias_initializer="glorot_uniform", dtype=dtype, **choices
    )
    layer(inputs)
    return np.random.default_rng(4).normal(size=(6, *shape)).astype(dtype), layer


def outcome(call, layer, images):
    """Return the outputs of `call` on `images`, and the gradients of a function of them."""
    with tf.GradientTape() as tape:
        inputs = tf.constant(images)
        tape.watch(inputs)
        outputs = call(inputs)
        weights = np.random.default_rng(5).normal(size=outputs.shape).astype(images.dtype)
        total = tf.reduce_sum(tf.square(outputs) * weights)
    sources = {"inputs": inputs} | {weight.name: weight.value for weight in layer.trainable_weights}
    return {"outputs": outputs} | tape.gradient(total, sources)


@pytest.mark.parametrize(("parts", "use_bias"), [(1, True), (2, False)])
@pytest.mark.parametrize(
    ("shape", "filters", "padding"),
    [
        ((28, 28, 1), 6, "same"),  # LeNet-5's c1
        ((14, 14, 6), 16, "valid"),  # its c3: ten columns, in two groups of five
        ((32, 32, 3), 6, "valid"),  # c1 of larger images
        ((6, 8, 6), 16, "valid"),  # c3 of smaller ones: four columns
        ((7, 9, 2), 9, "valid"),  # five columns, one group
        ((5, 5, 1), 9, "valid"),  # one output
        ((9, 6, 3), 8, "same"),
        ((6, 34, 1), 9, "valid"),  # six groups
    ],
)
def test_outputs_and_gradients_are_those_of_keras(shape, filters, padding, use_bias, parts):
    images, layer = convolved(shape, filters, padding=padding, use_bias=use_bias)

    def faster(inputs):
        bias = layer.bias.value if use_bias else None
        return tf.concat(faster_convolution(layer)(tf.split(inputs, parts), layer.kernel.value, bias), axis=0)

    for compute in (faster, tf.function(faster)):
        ours, theirs = outcome(compute, layer, images), outcome(layer, layer, images)
        assert ours.keys() == theirs.keys()
        for name, expected in theirs.items():
            assert ours[name].shape == expected.shape
            np.testing.assert_allclose(ours[name], expected, rtol=0, atol=1e-12 * np.abs(expected).max(), err_msg=name)


def test_float32_keeps_its_digits():
    for shape, filters, padding in (((28, 28, 1), 6, "same"), ((14, 14, 6), 16, "valid")):
        images, layer = convolved(shape, filters, padding=padding, dtype="float32")
        (ours,) = faster_convolution(layer)([images], layer.kernel.value, layer.bias.value)
        expected = layer(images)
        np.testing.assert_allclose(ours, expected, rtol=0, atol=1e-6 * np.abs(expected).max())


@pytest.mark.parametrize(
    ("shape", "filters", "choices"),
    [
        ((28, 28, 1), 6, {"strides": 2}),
        ((28, 28, 1), 6, {"dilation_rate": 2}),
        ((28, 28, 2), 6, {"groups": 2}),
        ((28, 28, 1), 6, {"side": 3}),
        ((28, 27, 1), 6, {"padding": "same"}),  # an odd number of columns
        ((14, 14, 6), 16, {"padding": "same"}),
        ((17, 17, 6), 16, {}),  # thirteen columns
        ((28, 28, 1), 6, {"dtype": "mixed_bfloat16"}),
    ],
)
def test_any_other_convolution_is_left_to_keras(shape, filters, choices):
    inputs = keras.Input(shape)
    layer = keras.layers.Conv2D(filters, choices.pop("side", 5), **choices)
    layer(inputs)
    assert faster_convolution(layer) is None


def test_any_other_layer_is_left_to_keras():
    layer = keras.layers.DepthwiseConv2D(5)
    layer(keras.Input((28, 28, 1)))
    assert faster_convolution(layer) is None
