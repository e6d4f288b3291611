"""Batch normalisation and its gradients, by TensorFlow's automatic differentiation and by central differences.

Errors are relative to what a gradient is summed from, since the sums themselves may vanish: df/dx is zero if m is 1.
"""

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from lenet_keras import InvalidArgument
from lenet_keras.theory import BatchNormGradients, batch_norm, batch_norm_gradients, input_gradient_factors

TOLERANCE = 1e-7
NAMES = BatchNormGradients._fields


@st.composite
def problems(draw):
    """Arguments of `batch_norm_gradients`: also one row, equal inputs, tiny variances, and means far from zero."""
    m = draw(st.sampled_from([1, 2, 3, 4, 7, 32]))
    features = draw(st.sampled_from([(), (1,), (3,)]))
    deviation = draw(st.sampled_from([0.0, 1e-9, 1e-3, 1.0, 1e4]))
    mean = draw(st.sampled_from([0.0, -3.0, 1e6]))
    eps = draw(st.sampled_from([1e-12, 1e-5, 1e-3, 1.0, 1e6]))
    is_shared = draw(st.booleans())
    generator = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    x = mean + deviation * generator.standard_normal((m, *features))
    gamma, beta = (np.asarray(generator.normal(1, 1, () if is_shared else features)) for _ in range(2))
    upstream = generator.normal(draw(st.sampled_from([0.0, 10.0])), 1, x.shape)
    return x, gamma, beta, eps, upstream


def by_tensorflow(x, gamma, beta, eps, upstream, is_variance_held=False):
    """The gradients, of a graph in which normalized, variance and mean are nodes that are differentiated by."""
    # No gradient depends on what is added to all inputs; less the first row, TensorFlow's plain mean loses no digits.
    x, gamma, beta, upstream = (tf.constant(value, tf.float64) for value in (x - x[0], gamma, beta, upstream))
    with tf.GradientTape(persistent=True) as tape:
        tape.watch([x, gamma, beta])
        mean = tf.reduce_mean(x, axis=0)
        variance = tf.reduce_mean(tf.square(x - mean), axis=0)
        if is_variance_held:
            variance = tf.stop_gradient(variance)
        tape.watch([mean, variance])
        normalized = (x - mean) / tf.sqrt(variance + eps)
        f = tf.reduce_sum(upstream * (gamma * normalized + beta))
    nodes = (gamma, beta, normalized, variance, mean, x)
    return BatchNormGradients(*(each.numpy() for each in tape.gradient(f, nodes)))


def magnitudes(x, gamma, beta, eps, upstream):
    """What each gradient is summed from, with all signs positive."""
    deviation = np.sqrt(np.var(x - x[0], axis=0) + eps)
    normalized = np.abs((x - x[0] - np.mean(x - x[0], axis=0)) / deviation)
    d_normalized = np.abs(gamma * upstream)
    everything = tuple(range(x.ndim)) if np.ndim(gamma) == 0 else 0
    return BatchNormGradients(
        gamma=np.sum(np.abs(upstream) * normalized, axis=everything),
        beta=np.sum(np.abs(upstream), axis=everything),
        normalized=d_normalized,
        variance=np.sum(d_normalized * normalized, axis=0) / deviation**2,
        mean=np.sum(d_normalized, axis=0) / deviation,
        x=np.linalg.norm(d_normalized / deviation, axis=0),
    )


def by_differences(name, x, gamma, beta, eps, upstream):
    """df/dx, df/dgamma or df/dbeta by central differences of `batch_norm`, one value at a time."""
    # Far from zero, a step may be smaller than the last digit of x.
    # No other gradient depends on beta, but the digits of small differences would be lost in the sum with it.
    values = {"x": x - x[0], "gamma": gamma, "beta": beta if name == "beta" else np.zeros_like(beta)}
    # Errors of rounding fall with the step, those of curvature rise with its square. y is linear in gamma and beta, and
    # as curved in x as x is small beside its deviation.
    step = 1e-5 * np.sqrt(np.var(x - x[0], axis=0) + eps) if name == "x" else 1.0
    step = np.broadcast_to(step, values[name].shape)
    found = np.zeros(values[name].shape)
    for index in np.ndindex(found.shape):
        below, above = values[name].copy(), values[name].copy()
        below[index] -= step[index]
        above[index] += step[index]
        change = batch_norm(**{**values, name: above}, eps=eps) - batch_norm(**{**values, name: below}, eps=eps)
        found[index] = np.sum(upstream * change) / (above[index] - below[index])  # the step as it was rounded
    return found


@settings(deadline=None, max_examples=50)
@given(problems())
def test_every_gradient_is_that_of_automatic_differentiation(problem):
    found, expected, magnitude = batch_norm_gradients(*problem), by_tensorflow(*problem), magnitudes(*problem)
    held = by_tensorflow(*problem, is_variance_held=True)  # through which the mean acts not at all
    assert np.all(np.abs(found.mean - held.mean) <= TOLERANCE * magnitude.mean)
    for name in NAMES:
        ours, theirs = getattr(found, name), getattr(expected, name)
        assert ours.shape == theirs.shape, name
        assert ours.dtype == np.float64
        assert np.all(np.abs(ours - theirs) <= TOLERANCE * getattr(magnitude, name)), name


@settings(deadline=None, max_examples=50)
@given(problems())
def test_gradients_by_inputs_are_those_of_central_differences(problem):
    found, magnitude = batch_norm_gradients(*problem), magnitudes(*problem)
    for name in ("x", "gamma", "beta"):
        error = getattr(found, name) - by_differences(name, *problem)
        assert np.all(np.abs(error) <= TOLERANCE * getattr(magnitude, name)), name


@settings(deadline=None, max_examples=50)
@given(problems())
def test_the_forward_pass_is_that_of_tensorflow(problem):
    x, gamma, beta, eps, _ = problem
    near = x - x[0]
    expected = tf.nn.batch_normalization(near, near.mean(axis=0), near.var(axis=0), beta, gamma, eps).numpy()
    np.testing.assert_allclose(batch_norm(x, gamma, beta, eps), expected, rtol=1e-7, atol=1e-9)


def test_without_eps_outputs_have_mean_beta_and_deviation_gamma():
    y = batch_norm(np.random.default_rng(0).normal(5, 3, (100, 2)), [2.0, 0.5], [-1.0, 7.0], 0)
    np.testing.assert_allclose(y.mean(axis=0), [-1, 7], rtol=1e-12)
    np.testing.assert_allclose(y.std(axis=0), [2, 0.5], rtol=1e-12)


def test_inputs_far_from_zero_lose_no_digits():
    near = np.array([0, 1, 3, 4, 9]) / 1024
    far = near + 2.0**30  # exact, and one ulp is 1/4096 of the smallest difference
    assert np.array_equal(far - 2.0**30, near)
    for one, other in zip(
        batch_norm_gradients(near, 2, 0, 1e-9, near), batch_norm_gradients(far, 2, 0, 1e-9, near), strict=True
    ):
        np.testing.assert_allclose(other, one, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("value", [0.1, 1e8 + 0.1, -1 / 3])
def test_equal_inputs_are_normalised_to_exactly_beta(value):
    x = np.full((7, 2), value)  # of which NumPy's mean may differ by a rounding
    np.testing.assert_array_equal(batch_norm(x, 3.0, 0.5, 1e-30), np.full((7, 2), 0.5))
    with pytest.raises(InvalidArgument, match="variance of x and eps are both 0"):
        batch_norm(x, 3.0, 0.5, 0)


def test_float32_is_kept_and_other_types_become_float64():
    x = np.array([[1, 2], [3, 5], [4, 4]], np.float32)
    assert batch_norm(x, np.ones(2), 0.0, 1e-5).dtype == np.float32
    gradients = batch_norm_gradients(x, np.ones(2), np.float64(0), 1e-5, np.ones((3, 2)))
    assert {each.dtype for each in gradients} == {np.dtype(np.float32)}
    assert batch_norm([1, 2, 4], 1, 0, 1e-5).dtype == np.float64


def test_the_closed_form_is_the_same_for_tensors():
    x, gamma, eps, upstream = np.array([1.0, 2.0, 3.0, 6.0]), 2.0, 0.5, np.array([1.0, 0.0, 0.5, 0.0])
    centred, inverse = x - x.mean(), 1 / np.sqrt(x.var() + eps)
    means = (upstream.mean(), (upstream * centred * inverse).mean())
    tensors = [tf.constant(value, tf.float64) for value in (gamma, inverse, *means)]
    scale, slope, shift = input_gradient_factors(*tensors)
    assert tf.is_tensor(scale)
    expected = batch_norm_gradients(x, gamma, 0.0, eps, upstream).x
    np.testing.assert_allclose(scale * upstream + slope * centred + shift, expected, rtol=1e-14)


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ({"x": np.zeros((0, 3))}, r"\(0, 3\)"),
        ({"x": 1.0}, r"\(m, features\)"),
        ({"x": np.ones((2, 3, 4))}, r"\(2, 3, 4\)"),
        ({"x": np.ones((2, 3)), "eps": 0}, "both 0"),
        ({"x": [[1.0, 2.0, np.inf]]}, "x must be finite"),
        ({"x": [["a", "b", "c"]]}, "x must be an array of numbers"),
        ({"gamma": np.ones(2)}, r"gamma must be a scalar or of the shape \(3,\)"),
        ({"beta": np.ones((1, 3))}, "beta must be a scalar"),
        ({"upstream": np.ones(3)}, r"upstream must have the shape of x, \(2, 3\)"),
        ({"eps": -1e-9}, "eps must be a number, 0 or more"),
        ({"eps": [1e-5, 1e-5]}, "eps must be a number"),
    ],
)
def test_what_cannot_be_normalised_is_rejected(changed, named):
    arguments = {"x": [[1.0, 2, 3], [4, 6, 5]], "gamma": 1, "beta": 0, "eps": 1e-5, "upstream": np.ones((2, 3))}
    with pytest.raises(InvalidArgument, match=named):
        batch_norm_gradients(**{**arguments, **changed})
