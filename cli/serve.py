"""`lenet-keras serve`."""

from __future__ import annotations

import dataclasses
import shlex
import threading
from pathlib import Path

import click

from lenet_keras.errors import LenetKerasError
from lenet_keras.serving import launch
from lenet_keras.serving.config import DEFAULT_EXPORT_DIR, GRPC_PORT, REST_PORT

from . import options

PORT = click.IntRange(0, 65535)


@click.command()
@click.argument("export_dir", type=options.EXISTING_FOLDER, default=DEFAULT_EXPORT_DIR)
@click.option("--rest-port", type=PORT, default=REST_PORT, help="Port for REST; 0 for any free one (embedded only).")
@click.option("--grpc-port", type=PORT, default=GRPC_PORT, help="Port for gRPC; 0 for any free one (embedded only).")
@click.option("--host", default=options.LOCALHOST, help="Address to listen on. There is no authentication.")
@click.option(
    "--backend",
    type=click.Choice(("auto", launch.BINARY, launch.DOCKER, launch.EMBEDDED)),
    default="auto",
    help="Server to use. auto: tensorflow_model_server if it is on the PATH, its container if Docker answers, "
    "else the embedded server, for development.",
)
@click.option("--print-command", is_flag=True, help="Print the command that would start TensorFlow Serving, and exit.")
@options.verbose
def command(
    export_dir: Path, rest_port: int, grpc_port: int, host: str, backend: str, print_command: bool, verbose: bool
) -> None:
    """Serve every model in EXPORT_DIR over REST and gRPC, as TensorFlow Serving does.

    New versions are served as soon as they are exported. The newest version of each model has the label canary, and the
    one before it the label stable.
    """
    chosen = launch.choose_backend() if backend == "auto" else backend
    if chosen == launch.BINARY and host not in (options.LOCALHOST, "0.0.0.0", "::"):
        raise click.UsageError(f"--host does nothing with {chosen}, which listens on all addresses of this machine.")
    settings = launch.ServerSettings(export_dir.absolute(), rest_port, grpc_port, host)
    if print_command:
        real = launch.DOCKER if chosen == launch.EMBEDDED else chosen
        launch.Configuration(real, settings).update()
        click.echo(shlex.join(launch.server_command(real, settings)))
    elif chosen == launch.EMBEDDED:
        # As given: TensorFlow may be able to load from a relative path, and not from the absolute one.
        _serve_embedded(dataclasses.replace(settings, export_dir=export_dir), verbose, is_fallback=backend == "auto")
    else:
        _serve(chosen, settings)


def _serve(backend: str, settings: launch.ServerSettings) -> None:
    if 0 in (settings.rest_port, settings.grpc_port):
        raise click.UsageError(f"{backend} needs explicit ports; 0 is for the embedded server.")
    if backend == launch.BINARY and settings.host == options.LOCALHOST:
        options.notice(f"{backend} listens on all addresses of this machine; its ports are open to other machines.")
    options.notice(f"starting: {shlex.join(launch.server_command(backend, settings))}")
    code = launch.run_server(backend, settings)
    raise LenetKerasError(f"{backend} ended with exit code {code}")


def _serve_embedded(settings: launch.ServerSettings, verbose: bool, is_fallback: bool) -> None:
    from lenet_keras import runtime

    runtime.load_tensorflow(verbose)
    from lenet_keras.serving.embedded.server import running_server

    why = "no tensorflow_model_server on the PATH, and no Docker engine answers: " if is_fallback else ""
    options.notice(f"{why}serving with the embedded server, which is for development")
    with running_server(settings.export_dir, settings.rest_port, settings.grpc_port, settings.host) as server:
        host = f"[{server.host}]" if ":" in server.host else server.host
        click.echo(f"REST:  http://{host}:{server.rest_port}/v1/models/")
        click.echo(f"gRPC:  {host}:{server.grpc_port}")
        threading.Event().wait()  # until Ctrl-C or SIGTERM
