"""Convolutions of few channels, to the values of Keras's, by operations that suit a processor better.

oneDNN fills a vector register, 16 float32 numbers with AVX-512, with the channels of one pixel. LeNet-5 has 1, 6 or 16
of them, so most of a register is empty. Two remedies multiply by zeros as well, but are faster (docs/speed.md):

- *Two columns at a time.* In memory, an image [height, width, channels] is also one of [height, width / 2,
  2 * channels], whose pixels are pairs of columns. Convolved with a kernel of 5 x 3 of these, a sixth of it zeros, it
  gives two columns of the outputs, in twice as many channels.
- *The gradient of the inputs is a product of matrices.* Five neighbouring outputs [5 * filters] depend on nine inputs
  in each of five rows. Multiplied by a matrix [5 * filters, 9 * channels] for each row, in which copies of the kernel's
  row lie along the diagonal, their gradients become what they contribute to those of the inputs. What neighbours
  contribute overlaps, and is added up.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import tensorflow as tf

from lenet_keras.backend import keras

SIDE = 5  # of a kernel
MOST_FILTERS = 8  # of which two columns fit into a register
MOST_NEIGHBOURS = 10  # outputs that are multiplied together: the more there are, the more zeros

Convolution = Callable[[Sequence[tf.Tensor], tf.Tensor, tf.Tensor | None], Sequence[tf.Tensor]]


def faster_convolution(layer: keras.Layer) -> Convolution | None:
    """Return a function that convolves as `layer` does, but for its activation; None if no faster way is known.

    It takes the parts of a batch, [N, height, width, channels] each, a kernel, and a bias [filters] or None, and
    returns the outputs of each part. Outputs and gradients agree with those of Keras to round-off.

    Args:
        layer: any; it has inputs.
    """
    if not (
        type(layer) is keras.layers.Conv2D
        and layer.kernel_size == (SIDE, SIDE)
        and layer.strides == layer.dilation_rate == (1, 1)
        and layer.groups == 1
        and layer.data_format == "channels_last"
        and layer.compute_dtype == layer.variable_dtype
    ):
        return None
    width, columns = layer.input.shape[2], layer.output.shape[2]
    if layer.filters <= MOST_FILTERS and width % 2 == 0:
        return _in_pairs(layer.padding.upper())
    if layer.padding == "valid" and _neighbours(columns) <= MOST_NEIGHBOURS:
        return _with_matrices(f"{layer.name}_input_gradient")
    return None


def _in_pairs(padding: str) -> Convolution:
    def convolve(parts: Sequence[tf.Tensor], kernel: tf.Tensor, bias: tf.Tensor | None) -> Sequence[tf.Tensor]:
        *_, height, width, channels = parts[0].shape
        filters = kernel.shape[-1]
        # The second of two outputs is of inputs that are a column further on.
        columns = [tf.pad(kernel, [[0, 0], [column, 1 - column], [0, 0], [0, 0]]) for column in range(2)]
        kernel = tf.reshape(tf.stack(columns, axis=3), (SIDE, (SIDE + 1) // 2, 2 * channels, 2 * filters))
        bias = None if bias is None else tf.tile(bias, [2])
        pairs = [tf.reshape(part, (-1, height, width // 2, 2 * channels)) for part in parts]
        outputs = [_convolved(part, kernel, bias, padding) for part in pairs]
        return [tf.reshape(part, (-1, part.shape[1], 2 * part.shape[2], filters)) for part in outputs]

    return convolve


def _with_matrices(name: str) -> Convolution:
    def convolve_parts(parts: Sequence[tf.Tensor], kernel: tf.Tensor, bias: tf.Tensor | None) -> Sequence[tf.Tensor]:
        with tf.name_scope(name):
            input_gradient = _input_gradient(kernel, parts[0].shape)

        @tf.custom_gradient  # type: ignore[untyped-decorator]
        def convolve(part: tf.Tensor, kernel: tf.Tensor, *bias: tf.Tensor) -> tuple[tf.Tensor, Any]:
            def gradients(upstream: tf.Tensor) -> tuple[tf.Tensor, ...]:
                with tf.name_scope(name):
                    of_inputs = input_gradient(upstream)
                of_kernel = tf.raw_ops.Conv2DBackpropFilter(
                    input=part, filter_sizes=kernel.shape, out_backprop=upstream, strides=[1, 1, 1, 1], padding="VALID"
                )
                return of_inputs, of_kernel, *(tf.raw_ops.BiasAddGrad(out_backprop=upstream) for _ in bias)

            return _convolved(part, kernel, bias[0] if bias else None, "VALID"), gradients

        return [convolve(part, kernel, *([] if bias is None else [bias])) for part in parts]

    return convolve_parts


def _convolved(values: tf.Tensor, kernel: tf.Tensor, bias: tf.Tensor | None, padding: str) -> tf.Tensor:
    outputs = tf.nn.conv2d(values, kernel, 1, padding)
    return outputs if bias is None else tf.nn.bias_add(outputs, bias)


def _neighbours(columns: int) -> int:
    # How many neighbouring outputs of a row are multiplied together.
    return SIDE if columns % SIDE == 0 else columns


def _input_gradient(kernel: tf.Tensor, shape: tf.TensorShape) -> Callable[[tf.Tensor], tf.Tensor]:
    *_, height, width, channels = shape
    rows, columns, filters = height - SIDE + 1, width - SIDE + 1, kernel.shape[-1]
    outputs = _neighbours(columns)
    inputs = outputs + SIDE - 1

    padding = [[0, 0], [0, 0], [outputs - 1, outputs - 1], [0, 0]]
    kernel_rows = tf.pad(tf.transpose(tf.stop_gradient(kernel), (0, 3, 1, 2)), padding)
    copies = [kernel_rows[:, :, outputs - 1 - column :][:, :, :inputs] for column in range(outputs)]
    matrices = tf.unstack(tf.reshape(tf.stack(copies, axis=1), (SIDE, outputs * filters, inputs * channels)))

    def gradient(upstream: tf.Tensor) -> tf.Tensor:
        of_outputs = tf.reshape(upstream, (-1, outputs * filters))
        by_row = [
            tf.reshape(tf.matmul(of_outputs, matrix), (-1, rows, columns // outputs, inputs * channels))
            for matrix in matrices
        ]
        by_neighbours = _overlapping(by_row, 1, axis=1)
        whole = _overlapping(tf.unstack(by_neighbours, axis=2), outputs * channels, axis=2)
        return tf.reshape(whole, (-1, height, width, channels))

    return gradient


def _overlapping(values: Sequence[tf.Tensor], step: int, axis: int) -> tf.Tensor:
    # The sum of `values`, each of which begins `step` further along an axis than the one before it.
    def shifted(number: int) -> tf.Tensor:
        padding = [[0, 0]] * values[number].shape.rank
        padding[axis] = [number * step, (len(values) - 1 - number) * step]
        return tf.pad(values[number], padding)

    return tf.add_n([shifted(number) for number in range(len(values))])
