"""`lenet-keras export`."""

from __future__ import annotations

import json
from pathlib import Path

import click

from lenet_keras.export.formats import FILE_FORMATS, check_extra

from . import options


@click.command()
@click.argument("run_dir", type=options.EXISTING_FOLDER)
@options.export_dir
@options.data_dir
@click.option(
    "--format",
    "file_format",
    type=options.Choice(["saved_model", *FILE_FORMATS]),
    default="saved_model",
    help="litert (formerly TensorFlow Lite) and onnx are one file each; they need the extras of those names.",
)
@click.option("--int8", is_flag=True, help="With --format litert: compute in eight bits; the accuracy is measured.")
@click.option(
    "--keep",
    type=click.IntRange(min=1),
    metavar="N",
    help="Keep the N newest versions of the model, and remove older ones.",
)
@options.as_json
@options.quiet
@options.verbose
def command(
    run_dir: Path,
    export_dir: Path,
    data_dir: Path | None,
    file_format: str,
    int8: bool,
    keep: int | None,
    as_json: bool,
    verbose: bool,
) -> None:
    """Export the model of a finished run: as the next version for TensorFlow Serving, or for another runtime.

    Before it appears, it is run on the test images, a SavedModel in a fresh process and a file in its own runtime, and
    compared with the model.
    """
    if int8 and file_format != "litert":
        raise click.UsageError("--int8 needs --format litert.")
    if keep is not None and file_format != "saved_model":
        raise click.UsageError("--keep is for versions of a SavedModel; a file is replaced.")
    if file_format != "saved_model":
        check_extra(file_format)
    from lenet_keras import runtime

    runtime.load_tensorflow(verbose)
    if file_format == "saved_model":
        from lenet_keras.export.publish import export_run

        version = export_run(run_dir, export_dir, data_dir=data_dir, keep=keep)
        click.echo(json.dumps({"export": str(version)}) if as_json else version)
        return
    from lenet_keras.export.formats import export_run_file

    found = export_run_file(run_dir, file_format, export_dir, int8=int8, data_dir=data_dir)
    options.notice(
        f"{found.size:,} bytes, accuracy {100 * found.accuracy:.2f} %, "
        f"probabilities differ from the model's by at most {found.largest_difference:.1e}"
    )
    click.echo(json.dumps(found.to_json(), indent=2) if as_json else found.path)
