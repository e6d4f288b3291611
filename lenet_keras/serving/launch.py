"""Starting the real TensorFlow Serving: its binary, or its container."""

from __future__ import annotations

import contextlib
import hashlib
import shutil
import signal
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from platformdirs import user_cache_path

from lenet_keras.errors import LenetKerasError
from lenet_keras.serving.config import BATCHING, CONTAINER_ROOT, MODELS, MONITORING, write_server_configs

BINARY = "tensorflow_model_server"
# deploy/serving/compose.yaml names the same.
IMAGE = "tensorflow/serving:2.19.1"
_CONTAINER_CONFIGS = "/configs"
_REFRESH = 2.0  # seconds between two looks for new versions, ours and the server's own
_GRACE = 20.0  # seconds to end in


@dataclass(frozen=True)
class Request:
    """What is to be served, and where.

    Attributes:
        export_dir: the folder of exported models, as an absolute path.
        rest_port: for HTTP.
        grpc_port: for gRPC.
        host: the address to listen on. TensorFlow Serving's binary cannot be told: it listens on all of them.
    """

    export_dir: Path
    rest_port: int
    grpc_port: int
    host: str

    @property
    def configs(self) -> Path:
        """The folder of the server's configuration, in the user's cache: the exports may be read-only."""
        digest = hashlib.sha256(str(self.export_dir).encode()).hexdigest()[:12]
        return user_cache_path("lenet-keras") / "serving" / digest


def choose_backend() -> str:
    """Return "tensorflow_model_server" if it is on the PATH, "docker" if a Docker engine answers, else "embedded"."""
    if shutil.which(BINARY):
        return BINARY
    return "docker" if _docker_answers() else "embedded"


def server_command(backend: str, request: Request) -> list[str]:
    """Return the command that starts TensorFlow Serving, in the foreground.

    Args:
        backend: "tensorflow_model_server" or "docker".
        request: what to serve. The files in its `configs` are those of `refresh_configs`.
    """
    if backend == BINARY:
        flags = _flags(str(request.configs))
        return [BINARY, f"--port={request.grpc_port}", f"--rest_api_port={request.rest_port}", *flags]
    return [
        "docker", "run", "--rm", "--init",
        # Inside, the image's entry point listens on 8500 and 8501.
        "--publish", f"{_published(request.host)}{request.rest_port}:8501",
        "--publish", f"{_published(request.host)}{request.grpc_port}:8500",
        "--volume", f"{request.export_dir}:{CONTAINER_ROOT}:ro",
        "--volume", f"{request.configs}:{_CONTAINER_CONFIGS}:ro",
        IMAGE, *_flags(_CONTAINER_CONFIGS),
    ]  # fmt: skip


@contextlib.contextmanager
def started(backend: str, request: Request) -> Iterator[subprocess.Popen[bytes]]:
    """Write TensorFlow Serving's configuration and start it; it is ended on leaving.

    Raises:
        LenetKerasError: it cannot be started.
        OSError: the configuration cannot be written.
    """
    refresh_configs(backend, request)
    command = server_command(backend, request)
    try:
        # In a session of its own: Ctrl-C reaches this process alone, which then ends the server in good order.
        process = subprocess.Popen(command, start_new_session=True)
    except OSError as error:
        raise LenetKerasError(f"{command[0]} cannot be started: {error.strerror}") from error
    try:
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(_GRACE)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def keep_configured(process: subprocess.Popen[bytes], backend: str, request: Request) -> int:
    """Bring the configuration up to date with the exports until the server ends; returns its exit code."""
    while True:
        try:
            return process.wait(_REFRESH)
        except subprocess.TimeoutExpired:
            refresh_configs(backend, request)


def refresh_configs(backend: str, request: Request) -> None:
    """Write the configuration of the models that are there now, with their paths as the server will see them.

    Raises:
        OSError: the exports cannot be read, or the configuration not written.
    """
    request.configs.mkdir(parents=True, exist_ok=True)
    root = str(request.export_dir) if backend == BINARY else CONTAINER_ROOT
    write_server_configs(request.export_dir, root, request.configs)


def _flags(configs: str) -> list[str]:
    return [
        f"--model_config_file={configs}/{MODELS}",
        f"--model_config_file_poll_wait_seconds={_REFRESH:.0f}",
        # Labels are given in the same file as the versions, which are not loaded yet when it is read.
        "--allow_version_labels_for_unavailable_models=true",
        "--enable_batching=true",
        f"--batching_parameters_file={configs}/{BATCHING}",
        f"--monitoring_config_file={configs}/{MONITORING}",
    ]


def _published(host: str) -> str:
    return "" if host in ("0.0.0.0", "::", "") else f"[{host}]:" if ":" in host else f"{host}:"


def _docker_answers() -> bool:
    try:
        asked = subprocess.run(
            ["docker", "version", "--format", "{{.Server.Version}}"],
            stdin=subprocess.DEVNULL, capture_output=True, timeout=5, check=False,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired):
        return False
    return asked.returncode == 0 and bool(asked.stdout.strip())
