"""`lenet-keras models`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from lenet_keras.models import REGULARISATIONS

from . import options

if TYPE_CHECKING:
    import keras

    from lenet_keras.theory import LayerCost

_LEGEND = """\
bytes          of the output for one image, and of the parameters, in float32
parameters     of a batch normalisation, 4 a feature: scale, offset, moving mean, moving variance
multiply-adds  for one image: multiplications with kernels, each added to a sum, and one for each
               normalised value, as at inference; activations and poolings are not counted
field          the receptive field: the pixels that a unit in the middle of the layer depends on"""


@click.command()
@click.argument("reg", required=False, type=options.Reg())
@click.option("--explain", is_flag=True, help="Show how many parameters and operations a layer has, and why.")
@options.verbose
def command(reg: str | None, explain: bool, verbose: bool) -> None:
    """List the variants or, given one, its layers, output shapes and parameters."""
    from .tables import show_table

    if reg is None:
        options.reject_given("explain", "without REG")
        show_table("LeNet-5 variants", ["--reg", "description"], REGULARISATIONS.items())
        return
    from lenet_keras import runtime

    runtime.load_tensorflow(verbose)
    from lenet_keras.models import build_lenet5, layer_rows, parse_reg

    model = build_lenet5(parse_reg(reg))
    title = f"LeNet-5, {reg}: {model.count_params():,} parameters"
    if explain:
        _show_explanation(title, model)
        return
    rows = [[name, kind, _product(shape), f"{parameters:,}"] for name, kind, shape, parameters in layer_rows(model)]
    show_table(title, ["layer", "kind", "output", "parameters"], rows)


def _show_explanation(title: str, model: keras.Model) -> None:
    from lenet_keras.theory import explain_layers

    from .tables import show_table

    layers = explain_layers(model)
    rows = [
        [
            layer.name,
            _product(layer.output_shape),
            _count(layer.output_bytes),
            _sum(layer),
            _count(layer.parameter_bytes),
            _count(layer.multiply_adds),
            _product(layer.receptive_field),
        ]
        for layer in layers
    ]
    names = ("output_bytes", "parameters", "parameter_bytes", "multiply_adds")
    outputs, *others = (_count(sum(getattr(layer, name) for layer in layers)) for name in names)
    head = ["layer", "output", "bytes", "parameters", "bytes", "multiply-adds", "field"]
    show_table(title, head, [*rows, ["total", "", outputs, *others, ""]], head[2:])
    click.echo(_LEGEND)


def _sum(layer: LayerCost) -> str:
    terms = " + ".join(_product(term, " x ") for term in layer.parameter_terms)
    return f"{terms} = {_count(layer.parameters)}" if terms else ""


def _count(number: int) -> str:
    return f"{number:,}" if number else ""


def _product(factors: Sequence[int], sign: str = "x") -> str:
    return sign.join(map(str, factors))
