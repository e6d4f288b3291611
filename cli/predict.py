"""`lenet-keras predict`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from . import options

if TYPE_CHECKING:
    from lenet_keras.pictures import Picture


@click.command()
@click.argument("images", type=click.Path(path_type=Path), nargs=-1, required=True, metavar="IMAGE...")
@click.option("--model", type=options.FOLDER, help="Run folder or SavedModel.  [default: what was exported last]")
@click.option(
    "--url",
    help="A served model instead: http://HOST:8501/v1/models/NAME or grpc://HOST:8500/NAME, "
    "with /versions/N or /labels/LABEL behind it if need be.",
)
@click.option("--wait", type=click.FloatRange(min=0), default=30.0, help="With --url: seconds to wait for the model.")
@click.option("--invert", is_flag=True, help="Invert the pictures: for dark things on a bright background.")
@options.export_dir
@options.as_json
@options.verbose
@click.pass_context
def command(
    ctx: click.Context,
    images: tuple[Path, ...],
    model: Path | None,
    url: str | None,
    wait: float,
    invert: bool,
    export_dir: Path,
    as_json: bool,
    verbose: bool,
) -> None:
    """Name the class of pictures (PNG or JPEG), with its probability.

    Asks a run, an exported model, or with --url a TensorFlow Serving that is up or coming up.
    """
    if url is None:
        _refuse(ctx, "wait", "does nothing without --url")
        shown, found = _ask_here(images, model, export_dir, invert, verbose)
    else:
        for name in ("model", "export_dir"):
            _refuse(ctx, name, "does nothing with --url")
        shown, found = _ask_server(images, url, wait, invert, verbose)
    if as_json:
        click.echo(json.dumps(found, indent=2))
    else:
        from .tables import show_table

        rows = [[answer["image"], answer["class"], f"{100 * answer['probability']:.1f} %"] for answer in found]
        show_table(shown, ["image", "class", "probability"], rows, ["probability"])


def _ask_here(
    images: Sequence[Path], model: Path | None, export_dir: Path, invert: bool, verbose: bool
) -> tuple[str, list[dict[str, Any]]]:
    from lenet_keras import runtime

    runtime.load_tensorflow(verbose)
    from lenet_keras.classifier import load_classifier, newest_export
    from lenet_keras.pictures import read_picture
    from lenet_keras.prediction import predict

    classifier = load_classifier(model or newest_export(export_dir))
    pictures = [read_picture(path, classifier.image_shape[:2]) for path in images]
    _hint_at_inversion(images, pictures, invert)
    found = predict(classifier, pictures, invert=invert)
    return str(classifier.path), [
        {"image": str(path), **one.to_json()} for path, one in zip(images, found, strict=True)
    ]


def _ask_server(
    images: Sequence[Path], url: str, wait: float, invert: bool, verbose: bool
) -> tuple[str, list[dict[str, Any]]]:
    from lenet_keras import runtime
    from lenet_keras.pictures import read_picture
    from lenet_keras.serving.client import ServingClient

    pictures = [read_picture(path) for path in images]
    _hint_at_inversion(images, pictures, invert)
    if url.startswith("grpc:"):  # its messages are TensorFlow's
        runtime.load_tensorflow(verbose)
    with ServingClient(url) as client:
        client.wait_until_available(wait)
        answers = client.classify([255 - picture.pixels if invert else picture.pixels for picture in pictures])
        shown = f"{client.endpoint}, version {answers[0].version}"
    return shown, [
        {"image": str(path), **one.to_json(), "looks_inverted": picture.looks_inverted}
        for path, picture, one in zip(images, pictures, answers, strict=True)
    ]


def _hint_at_inversion(images: Sequence[Path], pictures: Sequence[Picture], invert: bool) -> None:
    for path, picture in zip(images, pictures, strict=True):
        if picture.looks_inverted and not invert:
            options.notify(f"{path} looks inverted: the data set's background is black. Try --invert.")


def _refuse(ctx: click.Context, name: str, why: str) -> None:
    if ctx.get_parameter_source(name) is ParameterSource.COMMANDLINE:
        raise click.UsageError(f"--{name.replace('_', '-')} {why}.")
