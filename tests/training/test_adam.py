"""Adam by TensorFlow's operation, beside Keras's own."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from lenet_keras.training.adam import gradient_step

SHAPES = [(5, 5, 1, 6), (6,), (400, 120)]


def trained(apply_of, dtype="float32", **settings):
    """Apply the same 20 gradients of very different sizes, at a learning rate that changes; return all variables."""
    random = np.random.default_rng(1)
    variables = [keras.Variable(random.normal(size=shape), dtype=dtype) for shape in SHAPES]
    optimizer = keras.optimizers.Adam(1e-3, name="adam", **settings)
    optimizer.build(variables)
    apply = tf.function(apply_of(optimizer, variables))
    for number in range(20):
        optimizer.learning_rate = 1e-3 if number < 10 else 1e-2
        apply([tf.constant(random.normal(size=shape) * 10.0 ** random.integers(-8, 3), dtype) for shape in SHAPES])
    return [np.array(variable) for variable in [*variables, *optimizer.variables]]


def keras_own(optimizer, variables):
    return lambda gradients: optimizer.apply(gradients, variables)


@pytest.mark.parametrize(
    ("settings", "tolerance"),
    [({}, 2e-5), ({"beta_1": 0.5, "beta_2": 0.9, "epsilon": 1e-3}, 1e-6), ({"dtype": "float64"}, 1e-12)],
)
def test_weights_and_moments_are_those_of_keras(settings, tolerance):
    for ours, theirs in zip(trained(gradient_step, **settings), trained(keras_own, **settings), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=tolerance * max(1, np.abs(theirs).max()))


@pytest.mark.parametrize(
    ("optimizer", "replicas"),
    [
        (keras.optimizers.Adam(amsgrad=True), 1),
        (keras.optimizers.Adam(clipnorm=1.0), 1),
        (keras.optimizers.Adam(weight_decay=0.1), 1),
        (keras.optimizers.Adam(use_ema=True), 1),
        (keras.optimizers.Adam(keras.optimizers.schedules.ExponentialDecay(0.1, 10, 0.5)), 1),
        (keras.optimizers.AdamW(), 1),
        (keras.optimizers.LossScaleOptimizer(keras.optimizers.Adam()), 1),
        (keras.optimizers.Adam(), 2),  # which Keras adds up
    ],
)
def test_another_optimizer_and_several_replicas_are_left_to_keras(monkeypatch, optimizer, replicas):
    variable = keras.Variable([1.0])
    optimizer.build([variable])
    seen = []
    monkeypatch.setattr(optimizer, "apply", lambda *arguments: seen.append(arguments))
    gradient_step(optimizer, [variable], replicas)(["gradient"])
    assert seen == [(["gradient"], [variable])]
