"""Batch normalisation of a mini-batch, and its gradients (S. Ioffe and C. Szegedy, arXiv:1502.03167, 2015)."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lenet_keras.errors import InvalidArgument, first_line

Array = NDArray[np.floating[Any]]


class BatchNormGradients(NamedTuple):
    """The gradients of a loss f through batch normalisation, in the order in which they follow from each other.

    Attributes:
        gamma: df/dgamma, in gamma's shape.
        beta: df/dbeta, in beta's shape.
        normalized: df/dxhat, in the shape of x.
        variance: df/dvar, one value for each feature.
        mean: df/dmu, one value for each feature. The variance depends on the mean as well, but its derivative with
            respect to the mean is zero at the true mean, so it makes no difference whether it is held fixed.
        x: df/dx, in the shape of x: through xhat, the variance and the mean.
    """

    gamma: Array
    beta: Array
    normalized: Array
    variance: Array
    mean: Array
    x: Array


class InputGradientFactors(NamedTuple):
    """What df/dx = scale * df/dy + slope * (x - mean) + shift is made of: one value of each for each feature."""

    scale: Any
    slope: Any
    shift: Any


def input_gradient_factors(
    gamma: Any, inverse_deviation: Any, mean_upstream: Any, mean_upstream_normalized: Any
) -> InputGradientFactors:
    """Return the factors of the closed-form gradient of batch normalisation with respect to its input.

    It uses multiplication and negation only, so it takes NumPy arrays and TensorFlow tensors alike.

    >>> input_gradient_factors(2.0, 0.5, 0.25, 0.5)
    InputGradientFactors(scale=1.0, slope=-0.25, shift=-0.25)

    Args:
        gamma: the scale of the normalisation.
        inverse_deviation: 1 / sqrt(var + eps).
        mean_upstream: the mean of df/dy over the batch.
        mean_upstream_normalized: the mean of df/dy * xhat over the batch.
    """
    scale = gamma * inverse_deviation
    return InputGradientFactors(
        scale, slope=-(scale * inverse_deviation * mean_upstream_normalized), shift=-(scale * mean_upstream)
    )


def batch_norm(x: ArrayLike, gamma: ArrayLike, beta: ArrayLike, eps: ArrayLike) -> Array:
    """Normalise a mini-batch: y = gamma * xhat + beta, with xhat = (x - mu) / sqrt(var + eps).

    mu and var are the mean and the variance (divided by m) over the batch, of each feature by itself.

    >>> batch_norm([1.0, 2.0, 3.0, 6.0], gamma=2, beta=1, eps=0.5).tolist()
    [-1.0, 0.0, 1.0, 4.0]

    Args:
        x: [m] or [m, features], finite, m >= 1. float32 and float64 are kept; any other type becomes float64.
        gamma: a scalar, or [features].
        beta: a scalar, or [features].
        eps: a number, 0 or more.

    Returns:
        y, in the shape and type of x.

    Raises:
        InvalidArgument: m is 0, shapes do not fit, a value is not a finite number, eps is negative, or var + eps is 0.
    """
    x, gamma, beta, eps = _checked(x, gamma, beta, eps)
    centred, inverse_deviation = _statistics(x, eps)
    normalized = centred * inverse_deviation
    return np.asarray(gamma * normalized + beta)


def batch_norm_gradients(
    x: ArrayLike, gamma: ArrayLike, beta: ArrayLike, eps: ArrayLike, upstream: ArrayLike
) -> BatchNormGradients:
    """Return the gradients of a loss f with respect to everything that batch normalisation computes with.

    docs/theory.md derives them, and says how the partial derivatives are meant.

    >>> gradients = batch_norm_gradients([1.0, 2.0, 3.0, 6.0], 2, 1, 0.5, upstream=[1, 0, 0, 0])
    >>> float(gradients.gamma), float(gradients.mean)
    (-1.0, -1.0)
    >>> gradients.x.tolist()
    [0.5, -0.375, -0.25, 0.125]

    Args:
        x: as in `batch_norm`.
        gamma: as in `batch_norm`.
        beta: as in `batch_norm`. No gradient depends on its value.
        eps: as in `batch_norm`.
        upstream: df/dy, in the shape of x.

    Returns:
        The gradients, in the type of x.

    Raises:
        InvalidArgument: as in `batch_norm`, or `upstream` does not have the shape of x.
    """
    x, gamma, beta, eps = _checked(x, gamma, beta, eps)
    upstream = _array("upstream", upstream, x.dtype)
    if upstream.shape != x.shape:
        raise InvalidArgument(f"upstream must have the shape of x, {x.shape}. Received: {upstream.shape}")
    centred, inverse_deviation = _statistics(x, eps)
    normalized = centred * inverse_deviation

    d_normalized = upstream * gamma
    factors = input_gradient_factors(
        gamma, inverse_deviation, upstream.mean(axis=0), (upstream * normalized).mean(axis=0)
    )
    return BatchNormGradients(
        gamma=_summed_like(gamma, upstream * normalized),
        beta=_summed_like(beta, upstream),
        normalized=d_normalized,
        variance=np.asarray((d_normalized * centred).sum(axis=0) * (-0.5 * inverse_deviation**3)),
        mean=np.asarray(-d_normalized.sum(axis=0) * inverse_deviation),
        x=np.asarray(factors.scale * upstream + factors.slope * centred + factors.shift),
    )


def _statistics(x: Array, eps: Array) -> tuple[Array, Array]:
    """Return x - mu, and 1 / sqrt(var + eps)."""
    # Less the first row, values far from zero lose no digits in the mean, and equal ones have a variance of exactly 0.
    shifted = x - x[0]
    centred = shifted - shifted.mean(axis=0)
    variance = (centred**2).mean(axis=0)
    if np.any(variance + eps == 0):
        raise InvalidArgument("the variance of x and eps are both 0, so x cannot be normalised.")
    return centred, np.asarray(1 / np.sqrt(variance + eps))


def _summed_like(parameter: Array, terms: Array) -> Array:
    # A scalar parameter is shared by all features.
    return np.asarray(terms.sum() if parameter.ndim == 0 else terms.sum(axis=0))


def _checked(x: ArrayLike, gamma: ArrayLike, beta: ArrayLike, eps: ArrayLike) -> tuple[Array, Array, Array, Array]:
    kept = getattr(x, "dtype", None) == np.float32
    x = _array("x", x, np.dtype(np.float32 if kept else np.float64))
    if x.ndim not in (1, 2) or len(x) == 0:
        raise InvalidArgument(f"x must be of the shape (m,) or (m, features), m >= 1. Received: {x.shape}")
    gamma, beta, eps = (
        _array(name, value, x.dtype) for name, value in (("gamma", gamma), ("beta", beta), ("eps", eps))
    )
    for name, parameter in (("gamma", gamma), ("beta", beta)):
        if parameter.shape not in ((), x.shape[1:]):
            features = f" or of the shape {x.shape[1:]}, a value for each feature" if x.ndim == 2 else ""
            raise InvalidArgument(f"{name} must be a scalar{features}. Received: {parameter.shape}")
    if eps.shape != () or eps < 0:
        raise InvalidArgument(f"eps must be a number, 0 or more. Received: {eps}")
    return x, gamma, beta, eps


def _array(name: str, value: ArrayLike, dtype: np.dtype[Any]) -> Array:
    try:
        array = np.asarray(value, dtype)
    except (TypeError, ValueError) as error:
        raise InvalidArgument(f"{name} must be an array of numbers: {first_line(error)}") from error
    if not np.isfinite(array).all():
        raise InvalidArgument(f"{name} must be finite.")
    return array
