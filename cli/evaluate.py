"""`lenet-keras evaluate`."""

from __future__ import annotations

import json
from pathlib import Path

import click

from lenet_keras.data.catalogue import DATASETS

from . import options


@click.command()
@click.argument("model", type=options.EXISTING_FOLDER, metavar="RUN|SAVEDMODEL")
@click.option(
    "--dataset",
    type=options.Choice(list(DATASETS)),
    metavar="NAME",
    help="Dataset; see lenet-keras data.  [default: the one that the model was trained on]",
)
@options.data_dir
@options.as_json
@options.quiet
@options.verbose
def command(model: Path, dataset: str | None, data_dir: Path | None, as_json: bool, verbose: bool) -> None:
    """Measure a run's model or a SavedModel on every test image, once each."""
    from lenet_keras import runtime

    runtime.load_tensorflow(verbose)
    from lenet_keras.inference.classifier import evaluate

    from .tables import show_metrics

    result = evaluate(model, dataset, data_dir=data_dir)
    if as_json:
        click.echo(json.dumps(result, indent=2))
    else:
        show_metrics(f"{result['model']} on {result['dataset']}, {result['images']:,} images", result)
