"""The forward pass of a training step, with batch normalisation computed faster than by Keras, to the same values.

With batch normalisation, Keras spends half of a step on it (docs/speed.md): it makes many passes over the largest
arrays, and their innermost loops are over 6 or 16 channels, too few for a processor's vector units. Here:

- *Pool first.* Normalisation is an increasing function of each value where gamma >= 0, and such functions commute with
  max pooling. So the convolution is pooled first, and a quarter of its values are normalised. Where gamma < 0, the
  convolution's kernel is negated, and with it, exactly, its output; then gamma is positive.
- *Statistics are matrix products.* Values [N, height, width, channels] are seen as rows of width * channels. A product
  with a row of ones adds them up, and what is given for each channel is repeated along the width: long inner loops.
- *Nothing cancels.* E[x^2] - E[x]^2 has no correct digit if the mean is large beside the deviation. Since normalisation
  ignores a constant that is added to a channel, the mean of a sixteenth of the images is subtracted first. Whatever the
  values, what remains has a mean of less than 4 standard deviations: a part f of all values that lies d away from their
  mean contributes d^2 f / (1 - f) to the variance.
- *The gradient is in closed form* (Ioffe and Szegedy 2015, "Batch normalization", section 3). What the statistics
  contribute to the gradient of a value is a linear function of that value.

The layers' own variables are read and updated; the model stays as Keras made it.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import tensorflow as tf

from lenet_keras.backend import keras
from lenet_keras.theory.normalisation import input_gradient_factors

SAMPLED = 16  # one of so many images is used for the constant that is subtracted

Step = Callable[[tf.Tensor], tf.Tensor]


def training_call(model: keras.Model) -> Step:
    """Return a function that computes what `model(images, training=True)` does, faster where it can.

    Outputs, gradients and moving statistics agree with the model's to round-off, with one exception: where a gamma
    before a max pooling is exactly 0, its gradient is the derivative from above. (The values of a window are then all
    equal, and Keras's gradient depends on which of them comes first.)

    Only batch normalisation in single or double precision is replaced, in a model that is a chain of the layers that
    `lenet_keras.build_lenet5` uses. Any other model is called as it is.

    >>> from lenet_keras.models import build_lenet5
    >>> model = build_lenet5(reg="batch_norm", batch_norm_layers="conv")
    >>> training_call(model)(tf.zeros((2, 28, 28, 1))).shape
    TensorShape([2, 10])
    """
    layers = _chain(model)
    if not any(_is_replaced(layer) for layer in layers):
        return functools.partial(model, training=True)
    steps = _steps(layers)
    return lambda images: functools.reduce(lambda values, step: step(values), steps, images)


def _chain(model: keras.Model) -> Sequence[keras.Layer]:
    # The layers of a model in which each takes the output of the one before it; none, if it is not such a model.
    kinds = keras.layers
    known = (kinds.InputLayer, kinds.Rescaling, kinds.Conv2D, kinds.BatchNormalization, kinds.Activation,
             kinds.MaxPooling2D, kinds.AveragePooling2D, kinds.Flatten, kinds.Dense, kinds.Dropout)  # fmt: skip
    if not all(isinstance(layer, known) for layer in model.layers):
        return ()
    layers = [layer for layer in model.layers if not isinstance(layer, kinds.InputLayer)]
    ends = [*model.inputs, *(layer.output for layer in layers)]
    starts = [*(layer.input for layer in layers), *model.outputs]
    is_chain = len(starts) == len(ends) and all(start is end for start, end in zip(starts, ends, strict=True))
    return layers if is_chain else ()


def _steps(layers: Sequence[keras.Layer]) -> list[Step]:
    match layers:
        case [conv, norm, pool, *others] if _is_replaced(norm) and _commute(conv, norm, pool):
            return [functools.partial(_pooled_first, conv, norm, pool), *_steps(others)]
        case [norm, *others] if _is_replaced(norm):
            return [functools.partial(_normalised, norm, tf.identity, 1), *_steps(others)]
        case [layer, *others]:
            return [functools.partial(layer, training=True), *_steps(others)]
    return []


def _is_replaced(layer: keras.Layer) -> bool:
    return (
        type(layer) is keras.layers.BatchNormalization
        and layer.axis == -1
        and layer.center
        and layer.scale
        and layer.trainable
        and not layer.get_config().get("renorm")  # a setting from Keras 3.14 on
        and layer.compute_dtype == layer.variable_dtype
    )


def _commute(conv: keras.Layer, norm: keras.Layer, pool: keras.Layer) -> bool:
    return (
        type(conv) is keras.layers.Conv2D
        and type(pool) is keras.layers.MaxPooling2D
        and conv.data_format == pool.data_format == "channels_last"
        and conv.compute_dtype == norm.compute_dtype == pool.compute_dtype
        and conv.activation is keras.activations.linear
        and not conv.use_bias
    )


def _pooled_first(conv: keras.Layer, norm: keras.Layer, pool: keras.Layer, inputs: tf.Tensor) -> tf.Tensor:
    sign = 1 - 2 * tf.cast(norm.gamma < 0, norm.compute_dtype)
    with tf.name_scope(conv.name):
        values = conv.convolution_op(inputs, conv.kernel * sign)
    return _normalised(norm, pool, sign, values)


def _normalised(layer: keras.Layer, pool: Step, sign: Any, values: tf.Tensor) -> tf.Tensor:
    # What the batch normalisation `layer`, followed by `pool`, makes of `sign * values`; sign * gamma >= 0.
    with tf.name_scope(layer.name):
        values = tf.cast(values, layer.compute_dtype)
        sample = tf.stop_gradient(values[: 1 + tf.shape(values)[0] // SAMPLED])
        subtracted = _sums(sample) / _count(sample)
        values = _by_channel(tf.subtract, values, subtracted)
        mean, variance, over_replicas = _statistics(layer, tf.stop_gradient(values), subtracted)
        _average(layer.moving_mean, sign * (subtracted + mean), layer.momentum)
        _average(layer.moving_variance, variance, layer.momentum)
        pooled, count = pool(values), _count(values)
        inverse_deviation = tf.math.rsqrt(variance + layer.epsilon)

        @tf.custom_gradient  # type: ignore[untyped-decorator]
        def normalise(values: tf.Tensor, pooled: tf.Tensor, gamma: tf.Tensor, beta: tf.Tensor) -> tuple[tf.Tensor, Any]:
            scale = gamma * inverse_deviation
            outputs = _by_channel(tf.add, _by_channel(tf.multiply, pooled, scale), beta - scale * mean)

            def gradients(upstream: tf.Tensor) -> tuple[tf.Tensor, ...]:
                with tf.name_scope(f"{layer.name}_gradient"):
                    of_beta = _sums(upstream)
                    of_gamma = inverse_deviation * (_sums(upstream * pooled) - mean * of_beta)
                    means = tf.unstack(over_replicas(tf.stack([of_beta, of_gamma]) / count))
                    scale, slope, shift = input_gradient_factors(gamma, inverse_deviation, *means)
                    of_values = _by_channel(tf.add, _by_channel(tf.multiply, values, slope), shift - slope * mean)
                    return of_values, _by_channel(tf.multiply, upstream, scale), of_gamma, of_beta

            return outputs, gradients

        return normalise(values, pooled, sign * layer.gamma, tf.convert_to_tensor(layer.beta))


def _statistics(layer: keras.Layer, values: tf.Tensor, subtracted: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, Step]:
    # Mean and variance of `values` over the batch of all replicas, which have subtracted different constants; and the
    # function that averages over replicas.
    count = _count(values)
    mean = _sums(values) / count
    variance = tf.maximum(_sums(tf.square(values)) / count - tf.square(mean), 0)
    if not layer.synchronized:
        return mean, variance, tf.identity
    replica = tf.distribute.get_replica_context()
    # Gathered rather than added up, since sums of squares would cancel (Chan et al. 1983, "Algorithms for computing the
    # sample variance").
    gathered = replica.all_gather(tf.stack([subtracted + mean, variance])[tf.newaxis], axis=0)
    # Between workers the shape is not known before.
    means, variances = tf.unstack(tf.reshape(gathered, (-1, 2, values.shape[-1])), axis=1)
    mean = tf.reduce_mean(means, axis=0)
    variance = tf.reduce_mean(variances + tf.math.squared_difference(means, mean), axis=0)
    return mean - subtracted, variance, functools.partial(replica.all_reduce, tf.distribute.ReduceOp.MEAN)


def _average(moving: keras.Variable, current: tf.Tensor, momentum: float) -> None:
    moving.assign(moving * momentum + current * (1 - momentum))


def _rows(values: tf.Tensor) -> tf.Tensor:
    # Values [N, height, width, channels] as [N * height, width * channels]; [N, units] as they are.
    return values if values.shape.rank == 2 else tf.reshape(values, (-1, values.shape[-2] * values.shape[-1]))


def _by_channel(operation: Callable[[Any, Any], tf.Tensor], values: tf.Tensor, factors: tf.Tensor) -> tf.Tensor:
    # operation(values, factors), with factors [channels].
    rows = _rows(values)
    repeated = tf.tile(factors, [rows.shape[-1] // values.shape[-1]])
    return tf.reshape(operation(rows, repeated), tf.shape(values))


def _sums(values: tf.Tensor) -> tf.Tensor:
    # The sum of each channel.
    rows = _rows(values)
    sums = tf.matmul(tf.ones((1, tf.shape(rows)[0]), rows.dtype), rows)
    return tf.reduce_sum(tf.reshape(sums, (-1, values.shape[-1])), axis=0)


def _count(values: tf.Tensor) -> tf.Tensor:
    # How many values a channel has.
    return tf.cast(tf.size(values) // values.shape[-1], values.dtype)
