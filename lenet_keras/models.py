"""LeNet-5: the names of its variants, and the factory that builds them.

Importing this module loads no TensorFlow, so that a command line can offer the names; `build_lenet5` does.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, get_args

from lenet_keras.errors import (
    InvalidArgument,
    check_choice,
    check_integer,
    did_you_mean,
    excerpt,
    is_number,
    python_value,
)

if TYPE_CHECKING:
    import keras

Regularisation = Literal["none", "dropout", "batch_norm", "weight_decay"]
Variant = (
    Regularisation
    | Literal["dropout+batch_norm", "dropout+weight_decay", "batch_norm+weight_decay"]
    | Literal["dropout+batch_norm+weight_decay"]
)
Activation = Literal["relu", "tanh", "scaled_tanh", "sigmoid"]
Pooling = Literal["max", "average"]
Placement = Literal["conv", "dense", "all"]

REGULARISATIONS: Mapping[Regularisation, str] = {
    "none": "no regularisation",
    "dropout": "dropout on the two hidden dense layers",
    "batch_norm": "batch normalisation after both convolutions and both hidden dense layers",
    "weight_decay": "L2 on every kernel and on no bias",
}
VARIANTS: tuple[Variant, ...] = tuple(name for part in get_args(Variant) for name in get_args(part))
ACTIVATIONS: tuple[Activation, ...] = get_args(Activation)
POOLINGS: tuple[Pooling, ...] = get_args(Pooling)
# Which kinds of layers are dropped out or normalised.
PLACEMENTS: Mapping[Placement, tuple[str, ...]] = {"conv": ("conv",), "dense": ("dense",), "all": ("conv", "dense")}

DEFAULT_DROPOUT_RATE = 0.25  # the report's
DEFAULT_WEIGHT_DECAY = 1e-3  # the report names none; repositories of the same exercise used 1e-4 to 7e-3

FEATURES = 84  # units of f6, the penultimate layer
SMALLEST_SIDE = 12  # pixels; the second convolution and pooling need that many


def parse_reg(reg: str | Sequence[str]) -> tuple[Regularisation, ...]:
    """Return the regularisations that `reg` names, each once, in the order of `REGULARISATIONS`.

    >>> parse_reg("weight_decay+dropout"), parse_reg(["weight_decay", "dropout"])
    (('dropout', 'weight_decay'), ('dropout', 'weight_decay'))

    Args:
        reg: one name, several joined by "+", or a sequence of such.

    Raises:
        InvalidArgument: an unknown name, no name, or "none" together with another.
    """
    listed = [reg] if isinstance(reg, str) else reg if isinstance(reg, Sequence) else []
    names = [part for name in listed for part in (name.split("+") if isinstance(name, str) else [name])]
    unknown = [name for name in names if not isinstance(name, str) or name not in REGULARISATIONS]
    if unknown or not names:
        guess = did_you_mean(unknown[0], REGULARISATIONS) if unknown and isinstance(unknown[0], str) else ""
        allowed = f"reg must be one of {', '.join(REGULARISATIONS)}, or several joined by '+' or listed."
        raise InvalidArgument(f"{allowed}{guess} Received: {excerpt(reg)}")
    if "none" in names and set(names) != {"none"}:
        raise InvalidArgument(f"reg 'none' cannot be combined with another. Received: {excerpt(reg)}")
    return tuple(name for name in REGULARISATIONS if name in names)


def reg_name(reg: Sequence[str]) -> str:
    """Return the name of a combination.

    >>> reg_name(("dropout", "weight_decay"))
    'dropout+weight_decay'
    """
    return "+".join(reg)


def check_dropout_rate(rate: float) -> None:
    """Raise `InvalidArgument` unless `rate` is in [0, 1).

    >>> check_dropout_rate(0.25)
    """
    if not (is_number(rate) and 0 <= rate < 1):
        raise InvalidArgument(f"dropout_rate must be in [0, 1). Received: {excerpt(rate)}")


def check_weight_decay(weight_decay: float) -> None:
    """Raise `InvalidArgument` unless `weight_decay` is finite and not negative.

    >>> check_weight_decay(1e-3)
    """
    if not (is_number(weight_decay) and weight_decay >= 0):
        raise InvalidArgument(f"weight_decay must be a finite number, 0 or more. Received: {excerpt(weight_decay)}")


def build_lenet5(
    reg: Variant | Sequence[Regularisation] = "none",
    num_classes: int = 10,
    input_shape: tuple[int, int, int] = (28, 28, 1),
    activation: Activation = "relu",
    pooling: Pooling = "max",
    dropout_rate: float = DEFAULT_DROPOUT_RATE,
    dropout_layers: Placement = "dense",
    batch_norm_layers: Placement = "all",
    weight_decay: float = DEFAULT_WEIGHT_DECAY,
    seed: int | None = None,
) -> keras.Model:
    """Build LeNet-5 (LeCun et al. 1998, "Gradient-based learning applied to document recognition", figure 2).

    The model takes pixels as they are stored and returns logits: float32 [N, height, width, channels] in 0..255 to
    float32 [N, num_classes]. Its first layer scales the pixels to 0..1. Differences from the paper: every map of c3 is
    connected to every map of s2, subsampling has no coefficients, and the output is a linear layer of logits where the
    paper has radial basis functions.

    A convolution's activation comes before an average pooling ("c1", "c1_tanh", "s2"), and after a max pooling ("c1",
    "s2", "s2_relu"): there the order makes no difference, since activations increase monotonically, and only a quarter
    of the values are evaluated.

    >>> build_lenet5(reg="dropout").count_params()
    61706

    Args:
        reg: "none", "dropout", "batch_norm", "weight_decay", or several of the last three: a sequence of names, or
            one string joined by "+".
            dropout: after activations, where `dropout_layers` says.
            batch_norm: between a layer and its activation, where `batch_norm_layers` says. That layer then has no
            bias, since the normalisation would subtract it again.
            weight_decay: L2 on every kernel, but on no bias and no scale of a batch normalisation.
        num_classes: the number of logits, 2 or more.
        input_shape: (height, width, channels), at least 12x12x1. Sides of 32 and more are convolved without padding,
            like LeCun's 32x32; smaller ones are padded by 2, so that 28x28 gives the same 28x28 maps.
        activation: "relu", "tanh", "sigmoid", or "scaled_tanh", LeCun's 1.7159 tanh(2x/3) (appendix A of the paper).
        pooling: "max" or "average", 2x2.
        dropout_rate: the fraction of activations dropped, in [0, 1). Used by "dropout" only.
        dropout_layers: "conv": after the poolings s2 and s4; "dense": after the hidden dense layers c5 and f6, which
            hold 94 % of the weights; or "all". Used by "dropout" only.
        batch_norm_layers: "conv": after c1 and c3; "dense": after c5 and f6; or "all". Used by "batch_norm" only.
        weight_decay: `weight_decay * w` is added to the gradient of a kernel w, so the loss gains
            `weight_decay / 2 * sum(w**2)`. 0 or more. Used by "weight_decay" only.
        seed: of the initial weights and dropout masks, 0 or more. A layer's own seed follows from this one and the
            layer's name alone, so a layer starts with the same kernel in every variant. None: random.

    Raises:
        InvalidArgument: (a ValueError) an unknown name or a number out of range; the message names the value received.
    """
    import numpy as np

    from lenet_keras.backend import keras

    names = parse_reg(reg)
    num_classes, seed = python_value(num_classes), python_value(seed)
    dropout_rate, weight_decay = python_value(dropout_rate), python_value(weight_decay)
    check_choice("activation", activation, ACTIVATIONS)
    check_choice("pooling", pooling, POOLINGS)
    check_dropout_rate(dropout_rate)
    check_choice("dropout_layers", dropout_layers, get_args(Placement))
    check_choice("batch_norm_layers", batch_norm_layers, get_args(Placement))
    check_weight_decay(weight_decay)
    check_integer("num_classes", num_classes, 2)
    if seed is not None:
        check_integer("seed", seed, 0)
    if len(input_shape) != 3 or min(input_shape[:2]) < SMALLEST_SIDE or input_shape[2] < 1:
        raise InvalidArgument(
            f"input_shape must be (height, width, channels), at least ({SMALLEST_SIDE}, {SMALLEST_SIDE}, 1). "
            f"Received: {input_shape!r}"
        )
    height, width, channels = map(python_value, input_shape)

    # What Keras can be told globally is named in every layer, so that the model is this one whatever a program has set.
    precision = {"dtype": "float32"}
    layout = {**precision, "data_format": "channels_last"}
    normalised = PLACEMENTS[batch_norm_layers] if "batch_norm" in names else ()
    dropped = PLACEMENTS[dropout_layers] if "dropout" in names else ()
    decay = keras.regularizers.L2(weight_decay / 2) if "weight_decay" in names else None
    root = np.random.SeedSequence(seed).entropy

    def seed_of(layer: str) -> int:
        return int(np.random.SeedSequence(root, spawn_key=tuple(layer.encode())).generate_state(1)[0])

    def weights(layer: str) -> dict[str, Any]:
        initializer = keras.initializers.GlorotUniform(seed=seed_of(layer))
        return {"kernel_initializer": initializer, "kernel_regularizer": decay}

    def normalise(x: Any, layer: str, kind: str) -> Any:
        if kind not in normalised:
            return x
        # Keras's default momentum, 0.99, remembers hundreds of steps: after a short training, or a step that moved the
        # weights far, the model would be measured with statistics of another one.
        norm = keras.layers.BatchNormalization(-1, momentum=0.9, epsilon=1e-5, name=f"{layer}_norm", **precision)
        return norm(x)

    def drop(x: Any, layer: str, kind: str) -> Any:
        if kind not in dropped:
            return x
        name = f"{layer}_dropout"
        return keras.layers.Dropout(dropout_rate, seed=seed_of(name), name=name, **precision)(x)

    def activate(x: Any, layer: str) -> Any:
        if activation == "scaled_tanh":
            # Stock layers, so that a saved model loads without this package.
            x = keras.layers.Rescaling(2 / 3, name=f"{layer}_slope", **precision)(x)
            x = keras.layers.Activation("tanh", name=f"{layer}_tanh", **precision)(x)
            return keras.layers.Rescaling(1.7159, name=f"{layer}_amplitude", **precision)(x)
        return keras.layers.Activation(activation, name=f"{layer}_{activation}", **precision)(x)

    def convolve(x: Any, layer: str, filters: int, padding: str) -> Any:
        has_bias = "conv" not in normalised
        conv = keras.layers.Conv2D(
            filters, 5, padding=padding, use_bias=has_bias, name=layer, **weights(layer), **layout
        )
        x = normalise(conv(x), layer, "conv")
        return activate(x, layer) if pooling == "average" else x

    def pool(x: Any, layer: str) -> Any:
        if pooling == "average":
            x = keras.layers.AveragePooling2D(2, name=layer, **layout)(x)
        else:
            x = activate(keras.layers.MaxPooling2D(2, name=layer, **layout)(x), layer)
        return drop(x, layer, "conv")

    def hidden(x: Any, layer: str, units: int) -> Any:
        has_bias = "dense" not in normalised
        dense = keras.layers.Dense(units, use_bias=has_bias, name=layer, **weights(layer), **precision)
        return drop(activate(normalise(dense(x), layer, "dense"), layer), layer, "dense")

    images = keras.Input((height, width, channels), name="images", dtype="float32")
    x = keras.layers.Rescaling(1 / 255, name="scale", **precision)(images)
    x = convolve(x, "c1", 6, "valid" if min(height, width) >= 32 else "same")
    x = pool(x, "s2")
    x = convolve(x, "c3", 16, "valid")
    x = pool(x, "s4")
    x = keras.layers.Flatten(name="flatten", **layout)(x)
    x = hidden(x, "c5", 120)
    x = hidden(x, "f6", FEATURES)
    logits = keras.layers.Dense(num_classes, name="logits", **weights("logits"), **precision)(x)
    model = keras.Model(images, logits, name="lenet5")
    for built in (model, model.get_layer("images")):  # neither can be told when it is made
        built.dtype_policy = precision["dtype"]
    return model


class LayerRow(NamedTuple):
    """A layer: its name, its Keras class, the shape of its output for one example, and its parameters."""

    name: str
    kind: str
    output_shape: tuple[int, ...]
    parameters: int


def layer_rows(model: keras.Model) -> list[LayerRow]:
    """Describe the layers of `model`, in order.

    >>> layer_rows(build_lenet5())[2]
    LayerRow(name='c1', kind='Conv2D', output_shape=(28, 28, 6), parameters=156)
    """
    return [
        LayerRow(layer.name, type(layer).__name__, tuple(layer.output.shape[1:]), layer.count_params())
        for layer in model.layers
    ]
