"""Starting the real TensorFlow Serving: its binary, or its container."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from lenet_keras.errors import LenetKerasError
from lenet_keras.paths import cache_folder
from lenet_keras.serving.config import (
    BATCHING,
    CONTAINER_ROOT,
    GRPC_PORT,
    MODELS,
    MONITORING,
    REST_PORT,
    check_saved_model_path,
    write_server_configs,
)

BINARY, DOCKER, EMBEDDED = "tensorflow_model_server", "docker", "embedded"
IMAGE = "tensorflow/serving:2.19.1"  # deploy/serving/compose.yaml names the same image
_CONTAINER_CONFIGS = "/configs"
_REFRESH = 2.0  # seconds between two checks for new versions, both ours and the server's
_GRACE = 20.0  # seconds for the server to stop


@dataclass(frozen=True)
class ServerSettings:
    """What to serve, and where.

    Attributes:
        export_dir: the folder of exported models, as an absolute path.
        rest_port: for HTTP.
        grpc_port: for gRPC.
        host: the address to listen on. TensorFlow Serving's binary has no such setting: it listens on all of them.
    """

    export_dir: Path
    rest_port: int
    grpc_port: int
    host: str

    @property
    def configs(self) -> Path:
        """The folder of the server's configuration, in the user's cache: the exports may be read-only."""
        digest = hashlib.sha256(str(self.export_dir).encode()).hexdigest()[:12]
        return cache_folder() / "serving" / digest


def choose_backend() -> str:
    """Return `BINARY` if it is on the PATH, `DOCKER` if a Docker engine answers, else `EMBEDDED`."""
    if shutil.which(BINARY):
        return BINARY
    return DOCKER if _docker_answers() else EMBEDDED


def server_command(backend: str, settings: ServerSettings) -> list[str]:
    """Return the command that runs TensorFlow Serving in the foreground, with the files that `write_configs` writes.

    >>> server_command(BINARY, ServerSettings(Path("/srv/exported_models"), 8501, 8500, "127.0.0.1"))[:3]
    ['tensorflow_model_server', '--port=8500', '--rest_api_port=8501']

    Args:
        backend: `BINARY` or `DOCKER`.
        settings: what to serve.
    """
    configs = _CONTAINER_CONFIGS if backend == DOCKER else str(settings.configs)
    flags = [
        f"--model_config_file={configs}/{MODELS}",
        f"--model_config_file_poll_wait_seconds={_REFRESH:.0f}",
        # The same file assigns labels and lists the versions, which are not loaded yet when it is read.
        "--allow_version_labels_for_unavailable_models=true",
        "--enable_batching=true",
        f"--batching_parameters_file={configs}/{BATCHING}",
        f"--monitoring_config_file={configs}/{MONITORING}",
    ]
    if backend == BINARY:
        return [BINARY, f"--port={settings.grpc_port}", f"--rest_api_port={settings.rest_port}", *flags]
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    published = "" if settings.host in ("0.0.0.0", "::", "") else f"{host}:"
    return [
        "docker", "run", "--rm", "--init",
        # The image's entry point listens on the default ports.
        "--publish", f"{published}{settings.rest_port}:{REST_PORT}",
        "--publish", f"{published}{settings.grpc_port}:{GRPC_PORT}",
        "--volume", f"{settings.export_dir}:{CONTAINER_ROOT}:ro",
        "--volume", f"{settings.configs}:{_CONTAINER_CONFIGS}:ro",
        IMAGE, *flags,
    ]  # fmt: skip


def run_server(backend: str, settings: ServerSettings) -> int:
    """Run TensorFlow Serving until it ends, with its configuration kept up to date; return its exit code.

    Any exception, Ctrl-C included, stops it gracefully. `backend` is `BINARY` or `DOCKER`.

    Raises:
        LenetKerasError: it cannot be started.
        OSError: the exports cannot be read, or the configuration cannot be written.
    """
    write_configs(backend, settings)
    command = server_command(backend, settings)
    try:
        # In a session of its own: Ctrl-C reaches this process alone, which then stops the server.
        process = subprocess.Popen(command, start_new_session=True)
    except OSError as error:
        raise LenetKerasError(f"{command[0]} cannot be started: {error.strerror}") from error
    try:
        while True:
            try:
                return process.wait(_REFRESH)
            except subprocess.TimeoutExpired:
                write_configs(backend, settings)
    finally:
        process.terminate()
        try:
            process.wait(_GRACE)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def write_configs(backend: str, settings: ServerSettings) -> None:
    """Write the configuration of the models that exist now, with their paths as the server sees them.

    Raises:
        InvalidArgument: the server cannot load a SavedModel from the path of the exports.
        NoHomeFolder: this user has no place for a cache.
        LenetKerasError: the cache cannot be written to.
        OSError: the exports cannot be read, or the configuration cannot be written.
    """
    if backend == BINARY:
        check_saved_model_path(settings.export_dir)
    try:
        settings.configs.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise LenetKerasError(
            f"{settings.configs}: expected a folder that can be written to, found: {error.strerror}; "
            "XDG_CACHE_HOME can name another place for the cache."
        ) from error
    root = CONTAINER_ROOT if backend == DOCKER else str(settings.export_dir)
    write_server_configs(settings.export_dir, root, settings.configs)


def _docker_answers() -> bool:
    try:
        result = subprocess.run(
            ["docker", "version", "--format", "{{.Server.Version}}"],
            stdin=subprocess.DEVNULL, capture_output=True, timeout=5, check=False,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired):
        return False
    return result.returncode == 0 and bool(result.stdout.strip())
