"""`lenet-keras tensorboard`."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import click

from . import options


@click.command()
@click.argument("runs", type=options.EXISTING_FOLDER, default=Path("runs"))
@click.option("--port", type=click.IntRange(0, 65535), default=6006, help="Port to listen on; 0 takes a free one.")
@click.option("--host", default="127.0.0.1", help="Address to listen on.")
def command(runs: Path, port: int, host: str) -> None:
    """Show runs in TensorBoard: curves, settings, graph, confusion matrix, mistakes."""
    arguments = ["--logdir", str(runs), "--port", str(port), "--host", host]
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    # In this process, which ends as asked by any signal: TensorBoard by itself would end with a traceback or with 0.
    from tensorboard import default, main_lib, program

    main_lib.global_init()
    server = program.TensorBoard(plugins=default.get_plugins())
    server.configure(["tensorboard", *arguments])
    sys.exit(server.main())
