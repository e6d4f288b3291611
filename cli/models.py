"""`lenet-keras models`."""

from __future__ import annotations

import click

from lenet_keras.models.variants import REGULARISATIONS

from . import options


@click.command()
@click.argument("reg", required=False, type=click.Choice(list(REGULARISATIONS)))
@options.verbose
def command(reg: str | None, verbose: bool) -> None:
    """List the variants; with one, its layers, output shapes and parameters."""
    from .tables import show_table

    if reg is None:
        show_table("LeNet-5 variants", ["--reg", "what it is"], REGULARISATIONS.items())
        return
    from lenet_keras import runtime

    runtime.load_tensorflow(verbose)
    from lenet_keras.models import build_lenet5
    from lenet_keras.models.summary import layer_rows

    model = build_lenet5(reg)
    rows = [
        [row.name, row.kind, "x".join(map(str, row.output_shape)), f"{row.parameters:,}"] for row in layer_rows(model)
    ]
    show_table(f"LeNet-5, {reg}: {model.count_params():,} parameters", ["layer", "kind", "output", "parameters"], rows)
