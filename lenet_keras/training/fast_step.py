"""The forward pass of a training step, with batch normalisation computed faster than Keras does, to the same values.

Of a step with batch normalisation, Keras spends half or more on the normalisation (docs/speed.md): on many passes over
the largest arrays, with innermost loops over the 6 or 16 channels, too short for a processor's vector units. Here:

- *Pool first.* Normalising is an increasing function of a value where gamma >= 0, and max pooling commutes with any
  increasing function. So the convolution is pooled first, and a quarter of the values are normalised. Where gamma < 0,
  the function decreases; there the convolution's kernel is negated, and so are its outputs, exactly, and with them
  gamma and the mean.
- *Statistics as matrix products.* Values [N, height, width, channels] are taken as rows of width x channels. The sum of
  the rows is a product with a row of ones, and a factor per channel is repeated along the width: long inner loops.
- *No cancellation.* E[x^2] - E[x]^2 loses all digits of a variance that is small beside the mean. Normalisation does not
  change when a constant is subtracted from all values of a channel; so the mean of every 16th row is, and that mean is
  at most 4 standard deviations from the mean of all rows (Cauchy-Schwarz), whatever the values.
- *The gradient in closed form.* What the statistics contribute to a gradient is a linear function of the values
  (Ioffe and Szegedy 2015, "Batch normalization", section 3), so one multiplication and one addition over all of them.

The layers' own variables are used and updated; the model remains as Keras made it.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence

import tensorflow as tf

from lenet_keras.backend import keras

ROWS_PER_SAMPLE = 16  # of the rough mean


def training_call(model: keras.Model) -> Callable[[tf.Tensor], tf.Tensor]:
    """Return a function that computes what `model(images, training=True)` does, faster where it can.

    Outputs, gradients and updated moving statistics agree with the model's to round-off. Where a gamma is exactly 0,
    its gradient is the one-sided derivative from above, since the values of a window are all the same then, and Keras's
    depends on which of them comes first.

    A model that is anything but a chain of the layers that `build_lenet5` uses is called as it is.
    """
    layers = _chain(model)
    if layers is None or not any(_is_standard(layer) for layer in layers):
        return functools.partial(model, training=True)
    steps = _steps(layers)
    return lambda images: functools.reduce(lambda values, step: step(values), steps, images)


def input_gradient_factors(
    gamma: tf.Tensor, inverse_deviation: tf.Tensor, mean_upstream: tf.Tensor, mean_upstream_normalized: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Return (scale, slope, shift), with which the gradient of a value is scale * upstream + slope * (value - mean) + shift.

    All are per channel, [channels].

    Args:
        gamma: the factor of the normalised values.
        inverse_deviation: 1 / sqrt(variance + epsilon).
        mean_upstream: the mean of the gradients of the outputs.
        mean_upstream_normalized: the mean of their products with the normalised values.
    """
    scale = gamma * inverse_deviation
    return scale, -scale * inverse_deviation * mean_upstream_normalized, -scale * mean_upstream


def _chain(model: keras.Model) -> Sequence[keras.Layer] | None:
    # The layers of `model` in their order, if each is of a known type and takes the one before it, and nothing else.
    known = keras.layers
    types = (known.InputLayer, known.Rescaling, known.Conv2D, known.BatchNormalization, known.Activation,
             known.MaxPooling2D, known.AveragePooling2D, known.Flatten, known.Dense, known.Dropout)  # fmt: skip
    layers = [layer for layer in model.layers if not isinstance(layer, known.InputLayer)]
    inputs = [*model.inputs, *(layer.output for layer in layers)]
    is_chain = len(model.inputs) == 1 and all(layer.input is before for layer, before in zip(layers, inputs))
    return layers if is_chain and model.output is inputs[-1] and all(isinstance(each, types) for each in layers) else None


def _steps(layers: Sequence[keras.Layer]) -> list[Callable[[tf.Tensor], tf.Tensor]]:
    match layers:
        case []:
            return []
        case [conv, norm, pool, *others] if _is_poolable(conv, pool) and _is_standard(norm):
            return [functools.partial(_pooled_and_normalised, conv, norm, pool), *_steps(others)]
        case [norm, *others] if _is_standard(norm):
            return [functools.partial(_normalised, norm), *_steps(others)]
        case [layer, *others]:
            return [functools.partial(layer, training=True), *_steps(others)]
    raise AssertionError


def _is_standard(layer: keras.Layer) -> bool:
    # Half precision is left to Keras, which casts to float32 and back.
    return (
        type(layer) is keras.layers.BatchNormalization
        and layer.axis in (-1, len(layer.input.shape) - 1)
        and (layer.center, layer.scale, layer.trainable) == (True, True, True)
        and not layer.get_config().get("renorm")  # from Keras 3.14 on
        and layer.compute_dtype == layer.variable_dtype
    )


def _is_poolable(conv: keras.Layer, pool: keras.Layer) -> bool:
    return (
        type(conv) is keras.layers.Conv2D
        and not conv.use_bias
        and conv.activation is keras.activations.linear
        and type(pool) is keras.layers.MaxPooling2D
        and conv.data_format == pool.data_format == "channels_last"
    )


def _pooled_and_normalised(
    conv: keras.Layer, norm: keras.Layer, pool: keras.Layer, inputs: tf.Tensor
) -> tf.Tensor:
    sign = tf.where(norm.gamma < 0, -tf.ones_like(norm.gamma), tf.ones_like(norm.gamma))
    with tf.name_scope(conv.name):
        values = conv.convolution_op(inputs, conv.kernel * sign)
    with tf.name_scope(norm.name):
        return _normalised(norm, values, pool, sign)


def _normalised(
    layer: keras.Layer, values: tf.Tensor, pool: Callable[[tf.Tensor], tf.Tensor] = tf.identity, sign: tf.Tensor = 1
) -> tf.Tensor:
    # What the batch normalisation `layer` makes of pool(sign * values).
    sample = tf.stop_gradient(values[: tf.shape(values)[0] // 16 + 1])
    rough = _sums(sample) / _count(sample)
    values = _channelwise(tf.subtract, values, rough)
    mean, variance, over_replicas = _statistics(layer, tf.stop_gradient(values), rough)
    for moving, current in ((layer.moving_mean, sign * (rough + mean)), (layer.moving_variance, variance)):
        moving.assign(moving * layer.momentum + current * (1.0 - layer.momentum))
    inverse_deviation = tf.math.rsqrt(variance + layer.epsilon)
    count = _count(values)

    @tf.custom_gradient
    def normalise(values: tf.Tensor, pooled: tf.Tensor, gamma: tf.Tensor, beta: tf.Tensor) -> tuple[tf.Tensor, Callable]:
        scale = gamma * inverse_deviation
        outputs = _channelwise(tf.add, _channelwise(tf.multiply, pooled, scale), beta - scale * mean)

        def gradient(upstream: tf.Tensor) -> tuple[tf.Tensor, ...]:
            of_beta = _sums(upstream)
            of_gamma = inverse_deviation * (_sums(upstream * pooled) - mean * of_beta)
            means = tf.unstack(over_replicas(tf.stack([of_beta, of_gamma]) / count))
            scale, slope, shift = input_gradient_factors(gamma, inverse_deviation, *means)
            of_values = _channelwise(tf.add, _channelwise(tf.multiply, values, slope), shift - slope * mean)
            return of_values, _channelwise(tf.multiply, upstream, scale), of_gamma, of_beta

        return outputs, gradient

    return normalise(values, pool(values), sign * layer.gamma, tf.convert_to_tensor(layer.beta))


def _statistics(layer, values, rough):
    count = _count(values)
    mean, square = _sums(values) / count, _sums(tf.square(values)) / count
    variance = tf.maximum(square - tf.square(mean), 0)
    if not layer.synchronized:
        return mean, variance, tf.identity
    context = tf.distribute.get_replica_context()
    means, variances = tf.unstack(context.all_gather(tf.stack([rough + mean, variance])[tf.newaxis], axis=0), axis=1)
    mean = tf.reduce_mean(means, axis=0)
    variance = tf.reduce_mean(variances + tf.math.squared_difference(means, mean), axis=0)
    return mean - rough, variance, functools.partial(context.all_reduce, tf.distribute.ReduceOp.MEAN)


def _rows(values: tf.Tensor) -> tf.Tensor:
    # Values [N, height, width, channels] as [N * height, width * channels]; those of a dense layer as they are.
    return values if len(values.shape) < 3 else tf.reshape(values, (-1, values.shape[-2] * values.shape[-1]))


def _channelwise(operation, values: tf.Tensor, factors: tf.Tensor) -> tf.Tensor:
    rows = _rows(values)
    repeated = tf.tile(factors, [rows.shape[1] // factors.shape[0]])
    return tf.reshape(operation(rows, repeated), tf.shape(values))


def _sums(values: tf.Tensor) -> tf.Tensor:
    # Over all axes but the last.
    rows = _rows(values)
    sums = tf.matmul(tf.ones((1, tf.shape(rows)[0]), rows.dtype), rows)
    return tf.reduce_sum(tf.reshape(sums, (-1, values.shape[-1])), axis=0)


def _count(values: tf.Tensor) -> tf.Tensor:
    return tf.cast(tf.size(values) // values.shape[-1], values.dtype)
