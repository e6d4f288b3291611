"""Options that several commands share, and their notices."""

from __future__ import annotations

from pathlib import Path

import click

from lenet_keras.serving.config import DEFAULT_EXPORT_DIR

LOCALHOST = "127.0.0.1"
FOLDER = click.Path(file_okay=False, path_type=Path)
EXISTING_FOLDER = click.Path(exists=True, file_okay=False, path_type=Path)

data_dir = click.option(
    "--data-dir",
    type=FOLDER,
    help="Folder that holds the dataset: prepared by TFDS, or IDX files.  [default: found or fetched]",
)
export_dir = click.option("--export-dir", type=FOLDER, default=DEFAULT_EXPORT_DIR, help="Folder of exported models.")
as_json = click.option("--json", "as_json", is_flag=True, help="Print only JSON on stdout.")
verbose = click.option("--verbose", is_flag=True, help="Show TensorFlow's own log messages.")


def notice(line: str) -> None:
    """Show a line on stderr."""
    click.echo(line, err=True)
