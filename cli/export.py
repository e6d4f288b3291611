"""`lenet-keras export`."""

from __future__ import annotations

import json
from pathlib import Path

import click

from . import options


@click.command()
@click.argument("run_dir", type=click.Path(exists=True, file_okay=False, path_type=Path))
@options.export_dir
@options.data_dir
@click.option(
    "--keep",
    type=click.IntRange(min=1),
    metavar="N",
    help="Keep the N newest versions of the model, remove older ones.",
)
@options.as_json
@options.verbose
def command(
    run_dir: Path, export_dir: Path, data_dir: Path | None, keep: int | None, as_json: bool, verbose: bool
) -> None:
    """Export the model of a finished run as the next version for TensorFlow Serving.

    The SavedModel is run in a fresh process and compared with the model before it appears.
    """
    from lenet_keras import runtime

    runtime.load_tensorflow(verbose)
    from lenet_keras.export.of_run import export_run

    version = export_run(run_dir, export_dir, data_dir=data_dir, keep=keep, notify=options.notify)
    click.echo(json.dumps({"export": str(version)}) if as_json else version)
