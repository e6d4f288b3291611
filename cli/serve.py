"""`lenet-keras serve`."""

from __future__ import annotations

import shlex
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import click

from lenet_keras.errors import LenetKerasError
from lenet_keras.export.layout import DEFAULT_EXPORT_DIR

from . import options

if TYPE_CHECKING:
    from lenet_keras.serving.launch import Request

BACKENDS = ("auto", "tensorflow_model_server", "docker", "embedded")
PORT = click.IntRange(0, 65535)


@click.command()
@click.argument("export_dir", type=click.Path(exists=True, file_okay=False, path_type=Path), default=DEFAULT_EXPORT_DIR)
@click.option("--rest-port", type=PORT, default=8501, help="Port for REST; 0 for any free one (embedded only).")
@click.option("--grpc-port", type=PORT, default=8500, help="Port for gRPC; 0 for any free one (embedded only).")
@click.option("--host", default=options.LOCALHOST, help="Address to listen on. Nobody is asked for a password.")
@click.option(
    "--backend",
    type=click.Choice(BACKENDS),
    default="auto",
    help="What serves. auto: tensorflow_model_server if it is on the PATH, its container if Docker answers, "
    "else the embedded server, for development.",
)
@click.option("--print-command", is_flag=True, help="Print the command that would start TensorFlow Serving, and end.")
@options.verbose
def command(
    export_dir: Path, rest_port: int, grpc_port: int, host: str, backend: str, print_command: bool, verbose: bool
) -> None:
    """Serve every model in EXPORT_DIR by REST and gRPC, as TensorFlow Serving does.

    New versions are served as soon as they are exported. Of each model the newest version has the label canary, and the
    one before the label stable.
    """
    from lenet_keras.serving import launch

    chosen = launch.choose_backend() if backend == "auto" else backend
    request = launch.Request(export_dir.absolute(), rest_port, grpc_port, host)
    if print_command:
        shown = "docker" if chosen == "embedded" else chosen
        launch.refresh_configs(shown, request)
        click.echo(shlex.join(launch.server_command(shown, request)))
    elif chosen == "embedded":
        _serve_embedded(request, verbose, backend == "auto")
    else:
        _serve(chosen, request)


def _serve(backend: str, request: Request) -> None:
    from lenet_keras.serving import launch

    if 0 in (request.rest_port, request.grpc_port):
        raise click.UsageError(f"{backend} needs ports that are given; 0 is for the embedded server.")
    if backend == launch.BINARY and request.host == options.LOCALHOST:
        options.notify(f"{backend} listens on all addresses of this machine; its ports are open to others.")
    options.notify(f"starting: {shlex.join(launch.server_command(backend, request))}")
    with launch.started(backend, request) as process:
        code = launch.keep_configured(process, backend, request)
    raise LenetKerasError(f"{backend} ended with exit code {code}")


def _serve_embedded(request: Request, verbose: bool, is_fallback: bool) -> None:
    from lenet_keras import runtime

    runtime.load_tensorflow(verbose)
    from lenet_keras.serving.embedded import serve

    why = "no tensorflow_model_server on the PATH, and no Docker answers: " if is_fallback else ""
    options.notify(f"{why}serving with the embedded server, which is for development")
    with serve(request.export_dir, request.rest_port, request.grpc_port, request.host, notify=options.notify) as server:
        host = f"[{server.host}]" if ":" in server.host else server.host
        click.echo(f"REST:  http://{host}:{server.rest_port}/v1/models/")
        click.echo(f"gRPC:  {host}:{server.grpc_port}")
        threading.Event().wait()  # until Ctrl-C or SIGTERM
