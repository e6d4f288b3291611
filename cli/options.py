"""Options that several commands share."""

from __future__ import annotations

from pathlib import Path

import click

from lenet_keras.export.layout import DEFAULT_EXPORT_DIR

LOCALHOST = "127.0.0.1"
FOLDER = click.Path(file_okay=False, path_type=Path)

data_dir = click.option(
    "--data-dir",
    type=FOLDER,
    help="Folder that holds the data set: prepared by TFDS, or IDX files.  [default: looked for, then fetched]",
)
export_dir = click.option(
    "--export-dir",
    type=FOLDER,
    default=DEFAULT_EXPORT_DIR,
    help="Folder of exported models.",
)
as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON alone on stdout.")
verbose = click.option("--verbose", is_flag=True, help="Leave TensorFlow's own log messages on.")


def notify(line: str) -> None:
    """Show a notice on stderr."""
    click.echo(line, err=True)
