"""`lenet-keras serve`."""

from __future__ import annotations

import dataclasses
import shlex
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from lenet_keras.errors import LenetKerasError
from lenet_keras.serving import launch
from lenet_keras.serving.config import DEFAULT_EXPORT_DIR, GRPC_PORT, REST_PORT, model_folders
from lenet_keras.serving.embedded.limits import Limits

from . import options

Command = TypeVar("Command", bound=Callable[..., Any])
PORT = click.IntRange(0, 65535)
LIMITS = Limits()
MIB = 2**20
EMBEDDED_ONLY = (
    "max_request_mib",
    "max_images",
    "max_pixels",
    "max_buffered_mib",
    "max_waiting",
    "max_connections",
    "idle_timeout",
)


def limit(name: str, default: int, meaning: str) -> Callable[[Command], Command]:
    """Return an option of the embedded server, a whole number."""
    return click.option(name, type=click.IntRange(1), default=default, help=meaning)


@click.command()
@click.argument("export_dir", type=options.EXISTING_FOLDER, default=DEFAULT_EXPORT_DIR)
@click.option("--rest-port", type=PORT, default=REST_PORT, help="Port for REST; 0 for any free one (embedded only).")
@click.option("--grpc-port", type=PORT, default=GRPC_PORT, help="Port for gRPC; 0 for any free one (embedded only).")
@click.option("--host", default=options.LOCALHOST, help="Address to listen on. There is no authentication.")
@click.option(
    "--backend",
    type=options.Choice(("auto", launch.BINARY, launch.DOCKER, launch.EMBEDDED)),
    default="auto",
    help="Server to use. auto: tensorflow_model_server if it is on the PATH, its container if Docker answers, "
    "else the embedded server, for development.",
)
@click.option("--print-command", is_flag=True, help="Print the command that would start TensorFlow Serving, and exit.")
@click.option(
    "--rest-timeout", type=click.FloatRange(min=0, min_open=True), default=LIMITS.timeout,
    help="Seconds for a request by REST.",
)  # fmt: skip
@click.option("--cors", is_flag=True, help="Let web pages of any site read the replies of REST.")
@limit("--max-request-mib", LIMITS.request_bytes // MIB, "Largest request, also once unpacked, in MiB.")
@limit("--max-images", LIMITS.images, "Most images in a request.")
@limit("--max-pixels", LIMITS.pixels, "Most pixels in the image files of a request.")
@limit("--max-buffered-mib", LIMITS.buffered_bytes // MIB, "Most memory for requests under way, in MiB.")
@limit("--max-waiting", LIMITS.waiting, "Most requests that wait for the model; others get 429 or RESOURCE_EXHAUSTED.")
@limit("--max-connections", LIMITS.connections, "Most connections by either protocol; fewer if `ulimit -n` is low.")
@limit("--idle-timeout", int(LIMITS.idle), "Seconds after which idle connections and slow clients are cut off.")
@options.quiet
@options.verbose
def command(
    export_dir: Path,
    rest_port: int,
    grpc_port: int,
    host: str,
    backend: str,
    print_command: bool,
    rest_timeout: float,
    cors: bool,
    max_request_mib: int,
    max_images: int,
    max_pixels: int,
    max_buffered_mib: int,
    max_waiting: int,
    max_connections: int,
    idle_timeout: int,
    verbose: bool,
) -> None:
    """Serve every model in EXPORT_DIR over REST and gRPC, as TensorFlow Serving does.

    New versions are served as soon as they are exported. The newest version of each model has the label canary, and the
    one before it the label stable. The limits that begin with --max, and --idle-timeout, are the embedded server's.

    A SavedModel is a program: every version in EXPORT_DIR is run when the server starts. Serve only what you, or
    someone you trust, have exported.
    """
    chosen = launch.choose_backend() if backend == "auto" else backend
    if chosen != launch.EMBEDDED or print_command:
        for name in EMBEDDED_ONLY:
            options.reject_given(name, "with TensorFlow Serving")
    if chosen == launch.BINARY and host not in (options.LOCALHOST, "0.0.0.0", "::"):
        raise click.UsageError(f"--host does nothing with {chosen}, which listens on all addresses of this machine.")
    settings = launch.ServerSettings(export_dir.absolute(), rest_port, grpc_port, host, cors, rest_timeout)
    if print_command:
        real = launch.DOCKER if chosen == launch.EMBEDDED else chosen
        settings = dataclasses.replace(settings, is_supervised=False)
        launch.Configuration(real, settings).update()
        click.echo(shlex.join(launch.server_command(real, settings)))
    elif chosen == launch.EMBEDDED:
        limits = Limits(
            request_bytes=max_request_mib * MIB,
            images=max_images,
            pixels=max_pixels,
            buffered_bytes=max_buffered_mib * MIB,
            waiting=max_waiting,
            connections=max_connections,
            idle=idle_timeout,
            timeout=rest_timeout,
        )
        # As given: TensorFlow may be able to load from a relative path, and not from the absolute one.
        settings = dataclasses.replace(settings, export_dir=export_dir)
        _serve_embedded(settings, limits, verbose, is_fallback=backend == "auto")
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


def _serve_embedded(settings: launch.ServerSettings, limits: Limits, verbose: bool, is_fallback: bool) -> None:
    from lenet_keras import runtime

    runtime.load_tensorflow(verbose)
    from lenet_keras.serving.embedded.server import running_server

    why = "no tensorflow_model_server on the PATH, and no Docker engine answers: " if is_fallback else ""
    options.notice(f"{why}serving with the embedded server, which is for development")
    with running_server(
        settings.export_dir, settings.rest_port, settings.grpc_port, settings.host, limits=limits, cors=settings.cors
    ) as server:
        host = f"[{server.host}]" if ":" in server.host else server.host
        click.echo(f"REST:  {host}:{server.rest_port}")
        click.echo(f"gRPC:  {host}:{server.grpc_port}")
        for folder in model_folders(settings.export_dir):
            click.echo(f"model: http://{host}:{server.rest_port}/v1/models/{folder.name}")
        threading.Event().wait()  # until Ctrl-C or SIGTERM
