"""A model's layers as rows of a table."""

from __future__ import annotations

from dataclasses import dataclass

import keras


@dataclass(frozen=True)
class LayerRow:
    """One layer: its name, its Keras class, the shape of one example behind it, and its parameters."""

    name: str
    kind: str
    output_shape: tuple[int, ...]
    parameters: int


def layer_rows(model: keras.Model) -> list[LayerRow]:
    """The layers of `model` in their order."""
    return [
        LayerRow(layer.name, type(layer).__name__, tuple(layer.output.shape[1:]), layer.count_params())
        for layer in model.layers
    ]
