"""What each layer of a model costs, and what it sees of the image.

The numbers follow from the kinds of the layers and the sizes that they are given, by the formulas here: nothing is
measured, and no layer is asked for its number of parameters. Layers are Keras's, but only their attributes are used.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

from lenet_keras.errors import InvalidArgument, excerpt

BYTES = 4  # of a float32 value

_WITHOUT_PARAMETERS = ("InputLayer", "Rescaling", "Activation", "Dropout", "Flatten")
_POOLINGS = ("MaxPooling2D", "AveragePooling2D")


@dataclass(frozen=True)
class LayerCost:
    """A layer, for one image.

    Attributes:
        name: the layer's.
        output_shape: of its output.
        parameter_terms: factors of the products whose sum is the number of parameters. Of a convolution: the kernel's
            height and width, input and output channels; then its biases. Of a dense layer: inputs and units; then its
            biases. Of a batch normalisation: scale, offset, moving mean and moving variance of each feature.
        multiply_adds: multiplications, each with the addition of its product to a sum. Of a convolution and a dense
            layer: those with the kernel; biases are where the sums start. Of a batch normalisation: one per value,
            since at inference it is y = a x + b. Not counted: scaling of pixels, activations, poolings.
        receptive_field: height and width, in pixels, of the part of the image that a unit in the middle depends on.
    """

    name: str
    output_shape: tuple[int, ...]
    parameter_terms: tuple[tuple[int, ...], ...]
    multiply_adds: int
    receptive_field: tuple[int, int]

    @property
    def parameters(self) -> int:
        """The number of parameters, including the moving statistics of a batch normalisation."""
        return sum(map(math.prod, self.parameter_terms))

    @property
    def parameter_bytes(self) -> int:
        """Bytes of the parameters in float32."""
        return BYTES * self.parameters

    @property
    def output_bytes(self) -> int:
        """Bytes of the output for one image in float32."""
        return BYTES * math.prod(self.output_shape)


def explain_layers(model: Any) -> list[LayerCost]:
    """Explain the layers of a model whose layers follow one another, such as any that `build_lenet5` builds.

    >>> from lenet_keras.models import build_lenet5
    >>> c3 = explain_layers(build_lenet5())[5]
    >>> c3.name, c3.parameter_terms, c3.parameters
    ('c3', ((5, 5, 6, 16), (16,)), 2416)
    >>> c3.multiply_adds, c3.receptive_field, c3.output_bytes
    (240000, (14, 14), 6400)

    Args:
        model: a Keras model that takes images [N, height, width, channels]; without groups of channels, dilated
            kernels, and batch normalisations that leave out the scale or the offset.

    Raises:
        InvalidArgument: the model has a layer of a kind that is not explained here.
    """
    return list(_costs(model))


class _Side(NamedTuple):
    """How the units along one side of a feature map, its height or width, look at the image, in pixels.

    Unit i sees `field` pixels from start + i * step on; those outside the image are padding.
    """

    units: int
    start: int = 0
    step: int = 1
    field: int = 1

    def after_window(self, units: int, size: int, stride: int, is_padded: bool) -> _Side:
        """Return the side of a convolution's or a pooling's output, `units` long."""
        padding = max((units - 1) * stride + size - self.units, 0) // 2 if is_padded else 0
        return _Side(units, self.start - padding * self.step, self.step * stride, self.field + (size - 1) * self.step)

    def after_dense(self) -> _Side:
        """Return the side of a dense layer's output: each unit sees what all units of this side see."""
        return _Side(1, self.start, self.step, self.field + (self.units - 1) * self.step)

    def seen(self, pixels: int) -> int:
        """Return how many of an image's `pixels` the unit in the middle sees."""
        first = self.start + self.units // 2 * self.step
        return min(first + self.field, pixels) - max(first, 0)


def _costs(model: Any) -> Iterator[LayerCost]:
    image = model.input_shape[1:3]
    sides = [_Side(pixels) for pixels in image]
    for layer in model.layers:
        sides = _sides_after(layer, sides)
        terms, multiply_adds = _counts(layer)
        height, width = (side.seen(pixels) for side, pixels in zip(sides, image, strict=True))
        yield LayerCost(layer.name, tuple(layer.output.shape[1:]), terms, multiply_adds, (height, width))


def _sides_after(layer: Any, sides: list[_Side]) -> list[_Side]:
    kind = type(layer).__name__
    if kind == "Dense":
        return [side.after_dense() for side in sides]
    if kind not in (*_POOLINGS, "Conv2D"):
        return sides
    sizes = layer.kernel_size if kind == "Conv2D" else layer.pool_size
    return [
        side.after_window(units, size, stride, layer.padding == "same")
        for side, units, size, stride in zip(sides, layer.output.shape[1:3], sizes, layer.strides, strict=True)
    ]


def _counts(layer: Any) -> tuple[tuple[tuple[int, ...], ...], int]:
    """Return the terms of the number of parameters, and the multiply-adds."""
    kind, shape = type(layer).__name__, layer.output.shape[1:]
    if kind == "BatchNormalization":
        return ((4, shape[-1]),), math.prod(shape)
    if kind in ("Conv2D", "Dense"):
        kernel = (*(layer.kernel_size if kind == "Conv2D" else ()), layer.input.shape[-1], shape[-1])
        places = math.prod(shape[:-1])  # where the kernel is applied: a dense layer's once
        return (kernel, (shape[-1],)) if layer.use_bias else (kernel,), places * math.prod(kernel)
    if kind in (*_POOLINGS, *_WITHOUT_PARAMETERS):
        return (), 0
    raise InvalidArgument(f"layers of the kind {kind} are not explained. Received: {excerpt(layer.name)}")
