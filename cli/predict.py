"""`lenet-keras predict`."""

from __future__ import annotations

import json
from pathlib import Path

import click

from . import options


@click.command()
@click.argument("images", type=click.Path(path_type=Path), nargs=-1, required=True, metavar="IMAGE...")
@click.option("--model", type=options.FOLDER, help="Run folder or SavedModel.  [default: what was exported last]")
@click.option("--invert", is_flag=True, help="Invert the pictures: for dark things on a bright background.")
@options.export_dir
@options.as_json
@options.verbose
def command(
    images: tuple[Path, ...], model: Path | None, invert: bool, export_dir: Path, as_json: bool, verbose: bool
) -> None:
    """Name the class of pictures (PNG or JPEG), with its probability."""
    from lenet_keras import runtime
    from lenet_keras.pictures import read_picture

    runtime.load_tensorflow(verbose)
    from lenet_keras.classifier import load_classifier, newest_export
    from lenet_keras.prediction import predict

    from .tables import show_table

    classifier = load_classifier(model or newest_export(export_dir))
    pictures = [read_picture(path, classifier.image_shape[:2]) for path in images]
    predictions = list(zip(images, predict(classifier, pictures, invert=invert), strict=True))
    for path, found in predictions:
        if found.looks_inverted and not invert:
            options.notify(f"{path} looks inverted: the data set's background is black. Try --invert.")
    if as_json:
        rows = [{"image": str(path), **found.to_json()} for path, found in predictions]
        click.echo(json.dumps(rows, indent=2))
    else:
        rows_shown = [[path, found.class_name, f"{100 * found.probability:.1f} %"] for path, found in predictions]
        show_table(f"{classifier.path}", ["image", "class", "probability"], rows_shown, ["probability"])
