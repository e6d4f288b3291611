"""Starting the real TensorFlow Serving: its binary, or its container."""

from __future__ import annotations

import hashlib
import logging
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
    labelled_versions,
    model_folders,
    write_configs,
)
from lenet_keras.serving.endpoint import Endpoint, ModelSpec, RestTransport
from lenet_keras.serving.handover import Served, next_served

logger = logging.getLogger(__name__)

BINARY, DOCKER, EMBEDDED = "tensorflow_model_server", "docker", "embedded"
# The newest whose TensorFlow is not newer than ours; deploy/serving/compose.yaml names the same image.
IMAGE = "tensorflow/serving:2.20.0"
_CONTAINER_CONFIGS = "/configs"
_REFRESH = 2.0  # seconds between two checks for new versions, both ours and the server's
_STATUS_TIMEOUT = 5.0  # seconds for the server to say which versions are AVAILABLE
_GRACE = 20.0  # seconds for the server to stop


@dataclass(frozen=True)
class ServerSettings:
    """What to serve, and where.

    Attributes:
        export_dir: the folder of exported models, as an absolute path.
        rest_port: for HTTP.
        grpc_port: for gRPC.
        host: the address to listen on. TensorFlow Serving's binary has no such setting: it listens on all of them.
        cors: whether pages of any site may read the replies of REST.
        timeout: seconds for a request by REST.
        is_supervised: whether `run_server` keeps the configuration up to date; without that it has no labels.
    """

    export_dir: Path
    rest_port: int
    grpc_port: int
    host: str
    cors: bool = False
    timeout: float = 30.0
    is_supervised: bool = True

    @property
    def configs(self) -> Path:
        """The folder of this server's configuration, in the user's cache: the exports may be read-only.

        Two servers of the same exports, which differ in their ports, do not write to one folder.
        """
        parts = (str(self.export_dir), self.rest_port, self.is_supervised)
        digest = hashlib.sha256(repr(parts).encode()).hexdigest()[:12]
        return cache_folder() / "serving" / digest


def choose_backend() -> str:
    """Return `BINARY` if it is on the PATH, `DOCKER` if a Docker engine answers, else `EMBEDDED`."""
    if shutil.which(BINARY):
        return BINARY
    return DOCKER if _docker_answers() else EMBEDDED


def server_command(backend: str, settings: ServerSettings) -> list[str]:
    """Return the command that runs TensorFlow Serving in the foreground, with the files that `Configuration` writes.

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
        "--enable_batching=true",
        f"--batching_parameters_file={configs}/{BATCHING}",
        f"--monitoring_config_file={configs}/{MONITORING}",
        f"--rest_api_timeout_in_ms={settings.timeout * 1000:.0f}",
        f"--rest_api_enable_cors_support={str(settings.cors).lower()}",
        "--enable_grpc_healthcheck_service=true",
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

    Each export takes over as `next_served` describes. Once the server runs, what goes wrong with the configuration is
    logged and tried again. Any exception, Ctrl-C included, stops the server gracefully. `backend` is `BINARY` or
    `DOCKER`.

    Raises:
        InvalidArgument: the server cannot load a SavedModel from the path of the exports.
        LenetKerasError: it cannot be started, or there is no place for its configuration.
        OSError: the exports cannot be read, or the configuration cannot be written.
    """
    configuration = Configuration(backend, settings)
    configuration.update()
    command = server_command(backend, settings)
    try:
        # In a session of its own: Ctrl-C reaches this process alone, which then stops the server.
        process = subprocess.Popen(command, start_new_session=True)
    except OSError as error:
        raise LenetKerasError(f"{command[0]} cannot be started: {error.strerror}") from error
    problem = ""
    try:
        while True:
            try:
                return process.wait(_REFRESH)
            except subprocess.TimeoutExpired:
                before = problem
            try:
                configuration.update()
                problem = ""
            except (OSError, LenetKerasError) as error:
                problem = str(error)
                if problem != before:
                    logger.warning("the server goes on with the versions that it has: %s", problem)
    finally:
        process.terminate()
        try:
            process.wait(_GRACE)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


class Configuration:
    """The configuration files of a TensorFlow Serving, which follow the folder of exports."""

    def __init__(self, backend: str, settings: ServerSettings) -> None:
        """Take `BINARY` or `DOCKER`, and what to serve; nothing is written yet."""
        self._backend = backend
        self._settings = settings
        self._told: dict[str, Served] = {}

    def update(self) -> None:
        """Write what the server is to load and to label next, with paths as it sees them.

        Raises:
            InvalidArgument: the server cannot load a SavedModel from the path of the exports.
            NoHomeFolder: this user has no place for a cache.
            LenetKerasError: the cache cannot be written to.
            OSError: the exports cannot be read, or the configuration cannot be written.
        """
        export_dir, configs = self._settings.export_dir, self._settings.configs
        if self._backend == BINARY:
            check_saved_model_path(export_dir)
        try:
            configs.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise LenetKerasError(
                f"{configs}: expected a folder that can be written to, found: {error.strerror}; "
                "XDG_CACHE_HOME can name another place for the cache."
            ) from error
        models = {folder.name: self._next(folder) for folder in model_folders(export_dir)}
        write_configs(models, CONTAINER_ROOT if self._backend == DOCKER else str(export_dir), configs)
        self._told = models

    def _next(self, folder: Path) -> Served:
        wanted = labelled_versions(folder)
        before = self._told.get(folder.name, Served())
        if before == Served(frozenset(wanted.values()), wanted):
            return before
        return next_served(wanted, before, self._available(folder.name) if self._told else None)

    def _available(self, name: str) -> set[int] | None:
        is_everywhere = self._backend == BINARY or self._settings.host in ("0.0.0.0", "::", "")
        host = "127.0.0.1" if is_everywhere else self._settings.host
        address = f"[{host}]" if ":" in host else host
        endpoint = Endpoint("http", f"{address}:{self._settings.rest_port}", ModelSpec(name))
        try:
            states = RestTransport(endpoint, _STATUS_TIMEOUT).states()
        except LenetKerasError:  # it is starting, or has not heard of the model yet
            return None
        return {found.version for found in states if found.state == "AVAILABLE"}


def _docker_answers() -> bool:
    try:
        result = subprocess.run(
            ["docker", "version", "--format", "{{.Server.Version}}"],
            stdin=subprocess.DEVNULL, capture_output=True, timeout=5, check=False,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired):
        return False
    return result.returncode == 0 and bool(result.stdout.strip())
