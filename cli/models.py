"""`lenet-keras models`."""

from __future__ import annotations

import click

from lenet_keras.models import REGULARISATIONS

from . import options


@click.command()
@click.argument("reg", required=False, type=options.Reg())
@options.verbose
def command(reg: str | None, verbose: bool) -> None:
    """List the variants or, given one, its layers, output shapes and parameters."""
    from .tables import show_table

    if reg is None:
        show_table("LeNet-5 variants", ["--reg", "description"], REGULARISATIONS.items())
        return
    from lenet_keras import runtime

    runtime.load_tensorflow(verbose)
    from lenet_keras.models import build_lenet5, layer_rows, parse_reg

    model = build_lenet5(parse_reg(reg))
    rows = [
        [name, kind, "x".join(map(str, shape)), f"{parameters:,}"]
        for name, kind, shape, parameters in layer_rows(model)
    ]
    show_table(f"LeNet-5, {reg}: {model.count_params():,} parameters", ["layer", "kind", "output", "parameters"], rows)
