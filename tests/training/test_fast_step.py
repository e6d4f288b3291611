"""The faster training step against the same step as Keras computes it, and against float64."""

import functools
import itertools
from unittest import mock

import keras
import numpy as np
import pytest
import tensorflow as tf

from lenet_keras import build_lenet5
from lenet_keras.checkpoint import EpochProgress, capture, restore
from lenet_keras.data.arrays import Split
from lenet_keras.models import ACTIVATIONS, PLACEMENTS, POOLINGS
from lenet_keras.training.fast_step import training_call
from lenet_keras.training.loop import TrainingLoop
from lenet_keras.training.replicas import replicated

IMAGES = np.random.default_rng(1).integers(0, 256, (20, 12, 12, 1)).astype("float32")
LABELS = np.random.default_rng(2).integers(0, 10, 20)
# Every activation with every pooling, and every placement with every pooling.
VARIANTS = [
    (activation, pooling, placement)
    for (activation, pooling), placement in zip(
        itertools.product(ACTIVATIONS, POOLINGS), itertools.cycle(PLACEMENTS), strict=False
    )
]


def is_plain(model, parts=1):
    """Tell whether the model itself is called."""
    call = training_call(model, parts)
    return isinstance(call, functools.partial) and call.func is model


def step(model, call):
    """Return logits and gradients of a step, and all variables after it; then put those back."""
    variables = [*model.variables, *model.optimizer.variables]
    before = capture(variables)
    with tf.GradientTape() as tape:
        logits = call(tf.constant(IMAGES))
        losses = tf.nn.sparse_softmax_cross_entropy_with_logits(LABELS, logits)
        loss = tf.add_n([tf.reduce_mean(losses), *model.losses])
    gradients = tape.gradient(loss, model.trainable_variables)
    model.optimizer.apply(gradients, model.trainable_variables)
    found = {"logits": logits.numpy(), "loss": loss.numpy(), **capture(variables)}
    found |= {f"gradient of {v.path}": np.array(g) for v, g in zip(model.trainable_variables, gradients, strict=True)}
    restore(variables, before)
    return found


def lenet5(**choices):
    """Return a small LeNet-5 to train, whose batch normalisations have random gammas of both signs, and betas."""
    model = build_lenet5(input_shape=(12, 12, 1), seed=4, **choices)
    random = np.random.default_rng(3)
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.gamma.assign(random.normal(size=layer.gamma.shape))
            layer.beta.assign(random.normal(size=layer.beta.shape))
    # Adam divides by the gradient's size, and so turns the round-off of tiny gradients into whole steps.
    model.compile(optimizer=keras.optimizers.Adam(1e-3, epsilon=1e-4))
    model.optimizer.build(model.trainable_variables)
    return model


def assert_close(ours, theirs, tolerance=1e-5):
    """Compare each array with the largest of its values."""
    assert ours.keys() == theirs.keys()
    for name, expected in theirs.items():
        np.testing.assert_allclose(
            ours[name], expected, rtol=0, atol=tolerance * max(1e-2, np.abs(expected).max()), err_msg=name
        )


@pytest.mark.parametrize("reg", ["weight_decay", "dropout+batch_norm+weight_decay"])
@pytest.mark.parametrize(("activation", "pooling", "placement"), VARIANTS)
def test_a_step_equals_the_models_own(activation, pooling, placement, reg):
    model = lenet5(reg=reg, activation=activation, pooling=pooling, batch_norm_layers=placement, dropout_layers="all")
    plain = step(model, functools.partial(model, training=True))
    for parts in (1, 4):
        fast = step(model, training_call(model, parts))
        assert not np.array_equal(fast["logits"], plain["logits"])  # computed otherwise
        assert_close(fast, plain)


def test_a_gamma_of_zero_has_the_derivative_from_above():
    model = lenet5(reg="batch_norm", batch_norm_layers="conv")
    gamma = model.get_layer("c3_norm").gamma
    gamma.assign(np.zeros(16))
    fast, plain = step(model, training_call(model)), step(model, functools.partial(model, training=True))
    others = [name for name in plain if "gamma" not in name]
    assert_close({name: fast[name] for name in others}, {name: plain[name] for name in others})
    gamma.assign(np.full(16, 1e-5))
    above = step(model, functools.partial(model, training=True))
    name = f"gradient of {gamma.path}"
    assert_close({name: fast[name]}, {name: above[name]}, tolerance=1e-3)


@pytest.mark.parametrize("parts", [1, 4])
@pytest.mark.parametrize("first", [0.0, 40.0])
def test_values_far_from_zero_lose_no_digits(first, parts):
    """Their mean is 1,000 times their deviation, and the first images may be unlike the others."""
    random = np.random.default_rng(5)
    values = random.normal(1000, 1, (32, 4, 4, 3)).astype("float32")
    values[0] += first
    upstream = random.normal(size=(32, 2, 2, 3))

    def outcome(dtype, is_fast):
        model = keras.Sequential([
            keras.Input((4, 4, 3)),
            keras.layers.Conv2D(3, 1, use_bias=False, kernel_initializer="zeros", dtype=dtype),
            keras.layers.BatchNormalization(epsilon=1e-5, momentum=0.0, dtype=dtype),
            keras.layers.MaxPooling2D(2, dtype=dtype),
        ])  # fmt: skip
        conv, norm, _ = model.layers
        conv.kernel.assign(np.eye(3)[np.newaxis, np.newaxis])
        norm.gamma.assign([2, -3, 0.5])
        call = training_call(model, parts) if is_fast else functools.partial(model, training=True)
        with tf.GradientTape() as tape:
            inputs = tf.constant(values, dtype)
            tape.watch(inputs)
            outputs = call(inputs)
            total = tf.reduce_sum(outputs * tf.constant(upstream, dtype))
        sources = {"values": inputs, "gamma": norm.gamma.value, "beta": norm.beta.value}
        found = {name: g.numpy() for name, g in tape.gradient(total, sources).items()}
        found |= {"outputs": outputs.numpy(), "variance": np.array(norm.moving_variance)}
        return found, np.array(norm.moving_mean)

    (ours, our_mean), (exact, mean) = outcome("float32", True), outcome("float64", False)
    assert_close(ours, exact, tolerance=2e-6)
    np.testing.assert_allclose(our_mean, mean, rtol=1e-7)


def test_half_precision_is_left_to_keras():
    model = replicated(build_lenet5("batch_norm", input_shape=(12, 12, 1)), 1, "mixed_bfloat16")
    assert is_plain(model)
    model.compile(optimizer=keras.optimizers.Adam(1e-3, epsilon=1e-4))
    model.optimizer.build(model.trainable_variables)
    divided, plain = step(model, training_call(model, 4)), step(model, functools.partial(model, training=True))
    moving = [name for name in plain if "moving" in name]
    assert_close({name: divided[name] for name in moving}, {name: plain[name] for name in moving}, tolerance=1e-2)


def test_a_model_with_another_layer_is_called_as_it_is():
    def model(*others):
        layers = [keras.Input((12, 12, 1)), keras.layers.BatchNormalization(), keras.layers.Flatten(), *others]
        return keras.Sequential(layers)

    assert not is_plain(model())
    assert is_plain(model(keras.layers.GaussianNoise(0.1)), parts=2)


def test_a_model_with_branches_is_called_as_it_is():
    images = keras.Input((12, 12, 1))
    normalised = keras.layers.BatchNormalization()(images)
    first, second = keras.layers.Flatten()(normalised), keras.layers.Flatten()(normalised)
    assert is_plain(keras.Model(images, [first, second]))
    assert is_plain(keras.Model(images, [normalised, first]))
    assert not is_plain(keras.Model(images, second))


@pytest.mark.parametrize(("device", "is_fast"), [("CPU:0", True), ("GPU:0", False)])
def test_a_gpu_takes_the_models_own_step(device, is_fast):
    """Without a GPU, TensorFlow places it on the CPU."""
    model = lenet5(reg="batch_norm")
    split = Split(IMAGES.astype("uint8"), LABELS)
    with mock.patch("lenet_keras.training.loop.training_call", wraps=training_call) as call:
        loop = TrainingLoop(model, split, 4, tf.distribute.OneDeviceStrategy(device))
    assert call.called == is_fast
    assert loop.advance(loop.order(0, 0), EpochProgress(), 2).step == 2
