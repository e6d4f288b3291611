"""What one server takes on at a time, so that no client can take it from the others."""

from __future__ import annotations

import resource
from dataclasses import dataclass
from pathlib import Path

_SPARE = 32  # descriptors for the files of a version that is being loaded, and for what TensorFlow opens


@dataclass(frozen=True)
class Limits:
    """The limits of an embedded server.

    Attributes:
        request_bytes: the largest body or message, also once it is unpacked.
        images: the most images, or other rows, in a request.
        pixels: the most pixels in the image files of a request.
        buffered_bytes: the most memory for the bodies and arrays of all requests under way.
        waiting: the most requests that wait for the model.
        connections: the most connections by either protocol; fewer, if the process may not open as many descriptors.
        idle: seconds for a client to send its headers, again for the body, and again to take the reply.
        timeout: seconds for a request by REST, once it has arrived; gRPC's clients set their own.
    """

    request_bytes: int = 16 * 2**20
    images: int = 1000
    pixels: int = 4096 * 4096
    buffered_bytes: int = 256 * 2**20
    waiting: int = 1000
    connections: int = 500
    idle: float = 60.0
    timeout: float = 30.0

    def affordable_connections(self) -> int:
        """Return the most connections by each of two protocols that leave this process enough descriptors."""
        soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        left = soft - len(list(Path("/dev/fd").iterdir())) - _SPARE
        return max(1, min(self.connections, left // 2))
