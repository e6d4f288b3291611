"""The server as a whole: both interfaces over one folder, started and stopped together."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from lenet_keras.errors import InvalidArgument
from lenet_keras.notices import Notify, ignore
from lenet_keras.serving.embedded.batching import Batcher
from lenet_keras.serving.embedded.grpc_service import GrpcServer
from lenet_keras.serving.embedded.models import ModelStore
from lenet_keras.serving.embedded.rest import RestServer

# 10,000 images of 28x28 as JSON numbers are about 40 MB.
DEFAULT_MAX_BYTES = 64 * 2**20
_GRACE = 30.0  # seconds; a request under way is waited for this long


@dataclass(frozen=True)
class RunningServer:
    """A server that answers.

    Attributes:
        host: the address that it listens on.
        rest_port: for HTTP.
        grpc_port: for gRPC.
        store: its models.
    """

    host: str
    rest_port: int
    grpc_port: int
    store: ModelStore


@contextlib.contextmanager
def serve(
    export_dir: Path,
    rest_port: int = 8501,
    grpc_port: int = 8500,
    host: str = "127.0.0.1",
    *,
    interval: float = 1.0,
    max_batch: int = 64,
    max_bytes: int = DEFAULT_MAX_BYTES,
    notify: Notify = ignore,
) -> Iterator[RunningServer]:
    """Serve `<export_dir>/<model name>/<version>/` within the context, by TensorFlow Serving's two protocols.

    It is ready on entry: what was in the folder is loaded, or has failed. On exit requests under way are answered.

    Args:
        export_dir: the models' folders.
        rest_port: for HTTP; 0 for any free one.
        grpc_port: for gRPC; 0 for any free one.
        host: the address to listen on. There is no authentication: others than this machine's should be asked for.
        interval: seconds between two looks for new versions.
        max_batch: the most rows of concurrent requests to run in one call; 1 for each request alone.
        max_bytes: the largest request.
        notify: told of each version that was loaded, released or refused.

    Raises:
        InvalidArgument: `export_dir` is no folder.
        OSError: a port cannot be had.
    """
    if not export_dir.is_dir():
        raise InvalidArgument(f"{export_dir} is not a folder; export a model first")
    store = ModelStore(export_dir, interval, notify)
    with contextlib.ExitStack() as undo:
        batcher = Batcher(max_batch)
        undo.callback(batcher.close)
        grpc_server = GrpcServer(store, batcher, host, grpc_port, max_bytes)
        undo.callback(grpc_server.stop, 0)
        rest_server = RestServer(store, batcher, host, rest_port, max_bytes)
        undo.callback(_stop, grpc_server, rest_server)
        store.start()
        undo.callback(store.close)
        grpc_server.start()
        rest_server.start()
        yield RunningServer(host, rest_server.port, grpc_server.port, store)


def _stop(grpc_server: GrpcServer, rest_server: RestServer) -> None:
    grpc_stopped = grpc_server.stop(_GRACE)
    rest_server.stop(_GRACE)
    grpc_stopped.wait()
    grpc_server.close()
