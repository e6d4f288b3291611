"""The factory of LeNet-5 variants."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from lenet_keras.errors import InvalidArgument
from lenet_keras.models.variants import (
    ACTIVATIONS,
    DEFAULT_DROPOUT_RATE,
    DEFAULT_WEIGHT_DECAY,
    POOLINGS,
    check_choice,
    check_dropout_rate,
    check_weight_decay,
    parse_reg,
)

SMALLEST_SIDE = 12  # the second convolution and pooling need this much


def build_lenet5(
    reg: str | Sequence[str] = "none",
    num_classes: int = 10,
    input_shape: tuple[int, int, int] = (28, 28, 1),
    activation: str = "relu",
    pooling: str = "max",
    dropout_rate: float = DEFAULT_DROPOUT_RATE,
    weight_decay: float = DEFAULT_WEIGHT_DECAY,
    name: str = "lenet5",
    seed: int | None = None,
) -> keras.Model:
    """Build LeNet-5 (LeCun et al. 1998, "Gradient-based learning applied to document recognition", figure 2).

    The model takes pixels as they are stored and returns logits: float32 [N, height, width, channels] in 0..255 to
    float32 [N, num_classes]. Its first layer scales the pixels to 0..1. At 28x28x1 and ten classes it has 61,706
    parameters. Differences from the paper: every map of c3 sees every map of s2, subsampling has no coefficients,
    and the output is a linear layer of logits where the paper has radial basis functions.

    As in the paper, the activation stands behind the pooling: "s2" pools what "c1" convolved, "s2_relu" squashes it.
    With max pooling and a rising activation that equals the other order, and touches a quarter of the values.

    Args:
        reg: "none", "dropout", "batch_norm", "weight_decay", or several of the last three: a sequence of names, or
            one string joined by "+".
            dropout: behind the activations of the hidden dense layers c5 and f6, which hold 95 % of the weights;
            the convolutions share theirs over the whole image and have too few to over-fit.
            batch_norm: between each of c1, c3, c5, f6 and its activation. Those layers then have no bias, since the
            normalisation would subtract it again.
            weight_decay: L2 on every kernel, on no bias and on no scale of a batch normalisation.
        num_classes: the number of logits, 2 or more.
        input_shape: (height, width, channels). Sides of 32 and more are convolved without padding, as LeCun's 32x32;
            smaller ones are padded by 2, so that 28x28 gives the same 28x28 maps. At least 12x12.
        activation: "relu", "tanh", "sigmoid", or "scaled_tanh", LeCun's 1.7159 tanh(2x/3) (appendix A of the paper).
        pooling: "max" or "average", 2x2.
        dropout_rate: the fraction of activations dropped, in [0, 1). Used by "dropout" only.
        weight_decay: what the gradient of a kernel w gets is `weight_decay * w`, so the loss gets
            `weight_decay / 2 * sum(w**2)`. 0 or more. Used by "weight_decay" only.
        name: the model's name.
        seed: of the initial weights and dropout masks. The same seed gives the same weights. None: different each time.

    Raises:
        InvalidArgument: (a ValueError) a name or number outside of those above; it names the value received.
    """
    names = parse_reg(reg)
    check_choice("activation", activation, ACTIVATIONS)
    check_choice("pooling", pooling, POOLINGS)
    check_dropout_rate(dropout_rate)
    check_weight_decay(weight_decay)
    if num_classes < 2:
        raise InvalidArgument(f"num_classes must be 2 or more. Received: {num_classes!r}")
    height, width, channels = _checked_shape(input_shape)

    batch_norm = "batch_norm" in names
    decay = keras.regularizers.L2(weight_decay / 2) if "weight_decay" in names else None
    seeds = iter(int(value) for value in np.random.SeedSequence(seed).generate_state(7))

    def weights() -> dict[str, Any]:
        initializer = keras.initializers.GlorotUniform(seed=next(seeds))
        return {"kernel_initializer": initializer, "kernel_regularizer": decay}

    def normalised(x: Any, layer: str) -> Any:
        return keras.layers.BatchNormalization(name=f"{layer}_norm")(x) if batch_norm else x

    def convolved(x: Any, layer: str, filters: int, padding: str) -> Any:
        conv = keras.layers.Conv2D(filters, 5, padding=padding, use_bias=not batch_norm, name=layer, **weights())
        return normalised(conv(x), layer)

    def pooled(x: Any, layer: str) -> Any:
        pool = keras.layers.MaxPooling2D if pooling == "max" else keras.layers.AveragePooling2D
        return _activated(pool(2, name=layer)(x), activation, layer)

    def hidden(x: Any, layer: str, units: int) -> Any:
        dense = keras.layers.Dense(units, use_bias=not batch_norm, name=layer, **weights())
        x = _activated(normalised(dense(x), layer), activation, layer)
        if "dropout" in names:
            x = keras.layers.Dropout(dropout_rate, seed=next(seeds), name=f"{layer}_dropout")(x)
        return x

    images = keras.Input((height, width, channels), name="images", dtype="float32")
    x = keras.layers.Rescaling(1 / 255, name="scale")(images)
    x = convolved(x, "c1", 6, "valid" if min(height, width) >= 32 else "same")
    x = pooled(x, "s2")
    x = convolved(x, "c3", 16, "valid")
    x = pooled(x, "s4")
    x = keras.layers.Flatten(name="flatten")(x)
    x = hidden(x, "c5", 120)
    x = hidden(x, "f6", 84)
    logits = keras.layers.Dense(num_classes, name="logits", **weights())(x)
    return keras.Model(images, logits, name=name)


def _activated(x: Any, activation: str, layer: str) -> Any:
    if activation == "scaled_tanh":
        # Stock layers, so that a saved model loads without this package.
        x = keras.layers.Rescaling(2 / 3, name=f"{layer}_slope")(x)
        x = keras.layers.Activation("tanh", name=f"{layer}_tanh")(x)
        return keras.layers.Rescaling(1.7159, name=f"{layer}_amplitude")(x)
    return keras.layers.Activation(activation, name=f"{layer}_{activation}")(x)


def _checked_shape(input_shape: tuple[int, int, int]) -> tuple[int, int, int]:
    if len(input_shape) != 3 or min(input_shape[:2]) < SMALLEST_SIDE or input_shape[2] < 1:
        raise InvalidArgument(
            f"input_shape must be (height, width, channels), at least ({SMALLEST_SIDE}, {SMALLEST_SIDE}, 1). "
            f"Received: {input_shape!r}"
        )
    return input_shape
