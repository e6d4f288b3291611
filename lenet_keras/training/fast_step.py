"""The forward pass of a training step: shared by processor cores, and faster than Keras's.

*Cores.* Layers treat images independently, apart from batch normalisation and dropout. So a batch is divided, and each
part takes its own way through one graph, whose independent operations TensorFlow runs at the same time. The masks of
dropout are drawn for the whole batch, and depend on no part.

*Convolutions* of few channels are computed by other operations (`convolution.py`).

*Batch normalisation.* With it, Keras spends half of a step on it (docs/speed.md): it makes many passes over the largest
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
from lenet_keras.training.convolution import Convolution, faster_convolution

SAMPLED = 16  # one of so many images is used for the constant that is subtracted

# What a layer makes of the parts of a batch, [N / parts, ...] each.
Step = Callable[[Sequence[tf.Tensor]], Sequence[tf.Tensor]]


def training_call(model: keras.Model, parts: int = 1) -> Callable[[tf.Tensor], tf.Tensor]:
    """Return a function that computes what `model(images, training=True)` does, faster where it can.

    Outputs, gradients and moving statistics agree with the model's to round-off, with one exception: where a gamma
    before a max pooling is exactly 0, its gradient is the derivative from above. (The values of a window are then all
    equal, and Keras's gradient depends on which of them comes first.)

    Only layers in single or double precision are replaced, in a model that is a chain of the layers that
    `lenet_keras.build_lenet5` uses. Any other model is called as it is.

    >>> from lenet_keras.models import build_lenet5
    >>> model = build_lenet5(reg="batch_norm", batch_norm_layers="conv")
    >>> training_call(model)(tf.zeros((2, 28, 28, 1))).shape
    TensorShape([2, 10])

    Args:
        model: maps images to logits.
        parts: into how many equal parts a batch is divided, one for each processor core. They divide its size.
    """
    layers = _chain(model)
    if not any(_is_replaced(layer) or faster_convolution(layer) for layer in layers) and (parts == 1 or not layers):
        return functools.partial(model, training=True)
    steps = _steps(layers)
    return lambda images: tf.concat(
        functools.reduce(lambda values, step: step(values), steps, tf.split(images, parts)), axis=0
    )


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
        case [conv, *others] if convolution := faster_convolution(conv):
            return [functools.partial(_convolved, conv, convolution), *_steps(others)]
        case [keras.layers.BatchNormalization() as norm, *others]:
            return [functools.partial(_whole, norm), *_steps(others)]
        case [keras.layers.Dropout() as dropout, *others]:
            return [functools.partial(_dropped, dropout), *_steps(others)]
        case [layer, *others]:
            return [functools.partial(_divided, layer), *_steps(others)]
    return []


def _convolved(conv: keras.Layer, convolution: Convolution, values: Sequence[tf.Tensor]) -> Sequence[tf.Tensor]:
    with tf.name_scope(conv.name):
        kernel = tf.convert_to_tensor(conv.kernel)
        outputs = convolution(values, kernel, tf.convert_to_tensor(conv.bias) if conv.use_bias else None)
        return [conv.activation(part) for part in outputs]


def _divided(layer: keras.Layer, values: Sequence[tf.Tensor]) -> Sequence[tf.Tensor]:
    return [layer(part, training=True) for part in values]


def _whole(layer: keras.Layer, values: Sequence[tf.Tensor]) -> Sequence[tf.Tensor]:
    outputs: Sequence[tf.Tensor] = tf.split(layer(tf.concat(values, axis=0), training=True), len(values))
    return outputs


def _dropped(dropout: keras.Layer, values: Sequence[tf.Tensor]) -> Sequence[tf.Tensor]:
    # One mask for the whole batch, which need not wait for the parts.
    images = len(values) * tf.shape(values[0])[0]
    mask = dropout(tf.ones((images, *values[0].shape[1:]), values[0].dtype), training=True)
    shares = tf.split(mask, len(values))
    return [tf.cast(part, mask.dtype) * share for part, share in zip(values, shares, strict=True)]


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


def _pooled_first(
    conv: keras.Layer, norm: keras.Layer, pool: keras.Layer, inputs: Sequence[tf.Tensor]
) -> Sequence[tf.Tensor]:
    sign = 1 - 2 * tf.cast(norm.gamma < 0, norm.compute_dtype)
    kernel = conv.kernel * sign
    with tf.name_scope(conv.name):
        if convolution := faster_convolution(conv):
            values = convolution(inputs, kernel, None)
        else:
            values = [conv.convolution_op(part, kernel) for part in inputs]
    return _normalised(norm, pool, sign, values)


def _normalised(
    layer: keras.Layer, pool: Callable[[tf.Tensor], tf.Tensor], sign: Any, values: Sequence[tf.Tensor]
) -> Sequence[tf.Tensor]:
    # What the batch normalisation `layer`, followed by `pool`, makes of `sign * values`; sign * gamma >= 0.
    with tf.name_scope(layer.name):
        values = [tf.cast(part, layer.compute_dtype) for part in values]
        parts = len(values)
        images = parts * tf.shape(values[0])[0]
        sample = [tf.stop_gradient(values[0][: 1 + images // SAMPLED])]
        subtracted = _sums(sample) / _count(sample)
        values = [_by_channel(tf.subtract, part, subtracted) for part in values]
        mean, variance, over_replicas = _statistics(layer, [tf.stop_gradient(part) for part in values], subtracted)
        _average(layer.moving_mean, sign * (subtracted + mean), layer.momentum)
        _average(layer.moving_variance, variance, layer.momentum)
        pooled, count = [pool(part) for part in values], _count(values)
        inverse_deviation = tf.math.rsqrt(variance + layer.epsilon)

        @tf.custom_gradient  # type: ignore[untyped-decorator]
        def normalise(gamma: tf.Tensor, beta: tf.Tensor, *values_and_pooled: tf.Tensor) -> tuple[list[tf.Tensor], Any]:
            values, pooled = values_and_pooled[:parts], values_and_pooled[parts:]
            scale = gamma * inverse_deviation
            outputs = [
                _by_channel(tf.add, _by_channel(tf.multiply, part, scale), beta - scale * mean) for part in pooled
            ]

            def gradients(*upstream: tf.Tensor) -> tuple[tf.Tensor, ...]:
                with tf.name_scope(f"{layer.name}_gradient"):
                    of_beta = _sums(upstream)
                    products = [of_part * part for of_part, part in zip(upstream, pooled, strict=True)]
                    of_gamma = inverse_deviation * (_sums(products) - mean * of_beta)
                    means = tf.unstack(over_replicas(tf.stack([of_beta, of_gamma]) / count))
                    scale, slope, shift = input_gradient_factors(gamma, inverse_deviation, *means)
                    of_values = [
                        _by_channel(tf.add, _by_channel(tf.multiply, part, slope), shift - slope * mean)
                        for part in values
                    ]
                    of_pooled = [_by_channel(tf.multiply, of_part, scale) for of_part in upstream]
                    return of_gamma, of_beta, *of_values, *of_pooled

            return outputs, gradients

        outputs: Sequence[tf.Tensor] = normalise(sign * layer.gamma, tf.convert_to_tensor(layer.beta), *values, *pooled)
        return outputs


def _statistics(
    layer: keras.Layer, values: Sequence[tf.Tensor], subtracted: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor, Callable[[tf.Tensor], tf.Tensor]]:
    # Mean and variance of `values` over the batch of all replicas, which have subtracted different constants; and the
    # function that averages over replicas.
    count = _count(values)
    mean = _sums(values) / count
    variance = tf.maximum(_sums([tf.square(part) for part in values]) / count - tf.square(mean), 0)
    if not layer.synchronized:
        return mean, variance, tf.identity
    replica = tf.distribute.get_replica_context()
    # Gathered rather than added up, since sums of squares would cancel (Chan et al. 1983, "Algorithms for computing the
    # sample variance").
    gathered = replica.all_gather(tf.stack([subtracted + mean, variance])[tf.newaxis], axis=0)
    # Between workers the shape is not known before.
    means, variances = tf.unstack(tf.reshape(gathered, (-1, 2, values[0].shape[-1])), axis=1)
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


def _sums(values: Sequence[tf.Tensor]) -> tf.Tensor:
    # The sum of each channel over all parts.
    rows = [_rows(part) for part in values]
    sums = tf.add_n([tf.matmul(tf.ones((1, tf.shape(part)[0]), part.dtype), part) for part in rows])
    return tf.reduce_sum(tf.reshape(sums, (-1, values[0].shape[-1])), axis=0)


def _count(values: Sequence[tf.Tensor]) -> tf.Tensor:
    # How many values a channel has.
    return tf.cast(tf.add_n([tf.size(part) for part in values]) // values[0].shape[-1], values[0].dtype)
