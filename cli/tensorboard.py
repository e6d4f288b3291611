"""`lenet-keras tensorboard`."""

from __future__ import annotations

import threading
from pathlib import Path
from urllib.parse import quote

import click

from lenet_keras.errors import LenetKerasError

from . import options

# Runs that differ only by their seed, the number in `VARIANT/SEED/SPLIT`, have one colour for each split.
_COLOURS = r"regex:(.*?)(?:/\d+)?/?(train|validation|test|weights)?$"


@click.command()
@click.argument("runs", type=options.EXISTING_FOLDER, default=Path("runs"))
@click.option("--port", type=click.IntRange(0, 65535), default=6006, help="Port to listen on; 0 takes a free one.")
@click.option("--host", default=options.LOCALHOST, help="Address to listen on.")
def command(runs: Path, port: int, host: str) -> None:
    """Show runs in TensorBoard: curves, settings, graph, confusion matrix, mistakes."""
    from lenet_keras import runtime

    runtime.load_tensorflow()  # TensorBoard would import it with all its messages
    # In this process, which ends as asked by any signal: TensorBoard by itself would end with a traceback or with 0.
    from tensorboard import default, main_lib, program

    main_lib.global_init()
    server = program.TensorBoard(plugins=default.get_plugins())
    server.configure(["tensorboard", "--logdir", str(runs), "--port", str(port), "--host", host, "--load_fast=false"])
    try:
        url = server.launch()
    except program.TensorBoardServerException as error:
        raise LenetKerasError(f"{error.msg}. Choose another with --port or --host.") from error
    click.echo(f"TensorBoard: {url}?runColorGroup={quote(_COLOURS, safe=':/')}")
    threading.Event().wait()  # until Ctrl-C or SIGTERM
