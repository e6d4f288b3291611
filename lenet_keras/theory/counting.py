"""The shapes of a multilayer perceptron's tensors, and the parameters of dense and convolutional layers."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from lenet_keras.errors import InvalidArgument, check_integer, excerpt, python_value


def mlp_shapes(layer_sizes: Sequence[int], batch: int) -> dict[str, tuple[int, ...]]:
    """Return the shapes of the tensors of a multilayer perceptron, by name, from its input to its output.

    A batch has an image or other example in each row, so a layer is `X @ W + b`, with the bias added to every row.

    >>> for name, shape in mlp_shapes((10, 50, 3), batch=64).items():
    ...     print(name, shape)
    X (64, 10)
    W_h (10, 50)
    b_h (50,)
    W_o (50, 3)
    b_o (3,)
    Y (64, 3)

    Args:
        layer_sizes: the number of inputs, of units of each hidden layer, and of outputs; each 1 or more.
        batch: how many examples, 1 or more.

    Returns:
        X, the weights W and biases b, and Y. A single hidden layer has the index h, several have h1, h2, ….

    Raises:
        InvalidArgument: fewer than two sizes, or a number below 1.
    """
    sizes = _sizes("layer_sizes", layer_sizes)
    batch = python_value(batch)
    check_integer("batch", batch, 1)
    hidden = len(sizes) - 2
    names = ["h"] if hidden == 1 else [f"h{number}" for number in range(1, hidden + 1)]
    shapes: dict[str, tuple[int, ...]] = {"X": (batch, sizes[0])}
    for name, (inputs, units) in zip([*names, "o"], itertools.pairwise(sizes), strict=True):
        shapes[f"W_{name}"] = (inputs, units)
        shapes[f"b_{name}"] = (units,)
    return {**shapes, "Y": (batch, sizes[-1])}


def dense_parameters(layer_sizes: Sequence[int], bias: bool = True) -> list[int]:
    """Return the number of parameters of each dense layer, in order: inputs x units, and a bias for each unit.

    >>> dense_parameters((400, 120, 84, 10))
    [48120, 10164, 850]

    Args:
        layer_sizes: the number of inputs, of units of each hidden layer, and of outputs; each 1 or more.
        bias: whether the layers have biases.

    Raises:
        InvalidArgument: fewer than two sizes, or one below 1.
    """
    sizes = _sizes("layer_sizes", layer_sizes)
    return [inputs * units + bias * units for inputs, units in itertools.pairwise(sizes)]


def conv2d_parameters(channels: Sequence[int], kernel_size: int | Sequence[int], bias: bool = True) -> list[int]:
    """Return the number of parameters of each convolution in a stack, in order, whatever the size of the image.

    Each of a layer's output channels has a kernel over all of its input channels, and a bias.

    >>> conv2d_parameters((3, 100, 200, 400), 3)
    [2800, 180200, 720400]

    Args:
        channels: of the image, and of the output of each layer; each 1 or more.
        kernel_size: of every layer, in pixels: one number for both sides, or (height, width); 1 or more.
        bias: whether the layers have biases.

    Raises:
        InvalidArgument: fewer than two numbers of channels, a number below 1, or a kernel size that is not two numbers.
    """
    sizes = _sizes("channels", channels)
    sides = list(kernel_size) if isinstance(kernel_size, Sequence) else [kernel_size] * 2
    if len(sides) != 2:
        raise InvalidArgument(f"kernel_size must be an integer or (height, width). Received: {excerpt(kernel_size)}")
    height, width = (python_value(side) for side in sides)
    for side in (height, width):
        check_integer("kernel_size", side, 1)
    return [height * width * inputs * outputs + bias * outputs for inputs, outputs in itertools.pairwise(sizes)]


def _sizes(name: str, sizes: Sequence[int]) -> list[int]:
    if len(sizes) < 2:
        raise InvalidArgument(f"{name} must have two or more numbers. Received: {excerpt(sizes)}")
    found = [python_value(size) for size in sizes]
    for size in found:
        check_integer(name, size, 1)
    return found
