"""The server as a whole: both interfaces to one export folder, started and stopped together."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from lenet_keras.errors import InvalidArgument
from lenet_keras.paths import local_path
from lenet_keras.serving.config import check_saved_model_path
from lenet_keras.serving.embedded.batching import Batcher
from lenet_keras.serving.embedded.budget import Budget
from lenet_keras.serving.embedded.grpc_server import GrpcServer
from lenet_keras.serving.embedded.limits import Limits
from lenet_keras.serving.embedded.rest_server import RestServer
from lenet_keras.serving.embedded.service import Service
from lenet_keras.serving.embedded.store import ModelStore

_GRACE = 30.0  # seconds for requests under way when the server is stopped


@dataclass(frozen=True)
class RunningServer:
    """A server that answers.

    Attributes:
        host: the address that it listens on.
        rest_port: for HTTP.
        grpc_port: for gRPC.
        service: its models, its limits, and what it has answered.
    """

    host: str
    rest_port: int
    grpc_port: int
    service: Service

    @property
    def store(self) -> ModelStore:
        """Its models."""
        return self.service.store


@contextlib.contextmanager
def running_server(
    export_dir: Path,
    rest_port: int,
    grpc_port: int,
    host: str = "127.0.0.1",
    *,
    interval: float = 1.0,
    limits: Limits | None = None,
    cors: bool = False,
) -> Iterator[RunningServer]:
    """Serve `<export_dir>/<model name>/<version>/` within the context, over TensorFlow Serving's two protocols.

    It is ready on entry: every version found has been loaded, or has failed. On exit, requests under way are answered.

    Example::

        with running_server(Path("exported_models"), 8501, 8500):
            threading.Event().wait()

    Args:
        export_dir: the folder of the models' folders.
        rest_port: for HTTP; 0 for any free one.
        grpc_port: for gRPC; 0 for any free one.
        host: the address to listen on. There is no authentication: think twice before opening it to other machines.
        interval: seconds between two scans for new versions.
        limits: what the server takes on; None: the defaults of `Limits`.
        cors: whether pages of any site may read the replies of REST.

    Raises:
        InvalidArgument: `export_dir` is not a folder, or a path that TensorFlow cannot load a SavedModel from.
        OSError: a port is not available.
    """
    export_dir = local_path(export_dir)
    check_saved_model_path(export_dir)
    if not export_dir.is_dir():
        raise InvalidArgument(f"{export_dir} is not a folder")
    store, limits, servers = ModelStore(export_dir, interval), limits or Limits(), list[GrpcServer | RestServer]()

    def stop() -> None:
        for server in servers:
            server.stop(_GRACE)
        for server in servers:
            server.join()

    with contextlib.ExitStack() as stack:
        batcher = Batcher(max_waiting=limits.waiting)
        stack.callback(batcher.close)
        stack.callback(stop)
        service = Service(store, batcher, limits, Budget(limits.buffered_bytes))
        servers.append(grpc_server := GrpcServer(service, host, grpc_port))
        servers.append(rest_server := RestServer(service, host, rest_port, cors))
        store.start()
        stack.callback(store.close)
        for server in servers:
            server.start()
        yield RunningServer(host, rest_server.port, grpc_server.port, service)
