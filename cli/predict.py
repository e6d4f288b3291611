"""`lenet-keras predict`."""

from __future__ import annotations

import json
from pathlib import Path

import click

from . import options


@click.command()
@click.argument("images", type=options.FILE, nargs=-1, required=True, metavar="IMAGE...")
@click.option("--model", type=options.FOLDER, help="Run folder or SavedModel.  [default: the last export]")
@click.option(
    "--url",
    help="A served model instead: http://HOST:8501/v1/models/NAME or grpc://HOST:8500/NAME, "
    "optionally followed by /versions/N or /labels/LABEL.",
)
@click.option("--wait", type=click.FloatRange(min=0), default=30.0, help="With --url: seconds to wait for the model.")
@click.option("--invert", is_flag=True, help="Invert the images: for dark objects on a bright background.")
@options.export_dir
@options.as_json
@options.quiet
@options.verbose
def command(
    images: tuple[Path, ...],
    model: Path | None,
    url: str | None,
    wait: float,
    invert: bool,
    export_dir: Path,
    as_json: bool,
    verbose: bool,
) -> None:
    """Name the class of each image (PNG or JPEG), with its probability.

    Uses a run, an exported model or, with --url, a TensorFlow Serving that is running or starting up.
    """
    if model is not None and url is None:
        options.reject_given("export_dir", "with --model")
    for name in ("wait",) if url is None else ("model", "export_dir"):
        options.reject_given(name, "without --url" if url is None else "with --url")
    from lenet_keras import runtime

    if url is None or url.startswith("grpc:"):  # gRPC's messages are TensorFlow's
        runtime.load_tensorflow(verbose)
    from lenet_keras.inference.classifier import newest_export, open_classifier, open_server

    classifier = open_server(url, wait=wait) if url is not None else open_classifier(model or newest_export(export_dir))
    with classifier:
        predictions = classifier.predict(images, invert=invert)
    for path, found in zip(images, predictions, strict=True):
        if found.is_blank:
            options.warn(f"{path} is blank: all its pixels have one value, so its class says nothing.")
        elif found.looks_inverted and not invert:
            options.warn(f"{path} looks inverted: the dataset's background is black. Try --invert.")
    if as_json:
        rows = [{"image": str(path), **found.to_json()} for path, found in zip(images, predictions, strict=True)]
        click.echo(json.dumps(rows, indent=2))
        return
    from .tables import show_table

    show_table(
        classifier.source if url is None else f"{classifier.source}, version {predictions[0].version}",
        ["image", "class", "probability"],
        [
            [path, found.class_name, f"{100 * found.probability:.1f} %"]
            for path, found in zip(images, predictions, strict=True)
        ],
        ["probability"],
    )
