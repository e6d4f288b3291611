"""A client of TensorFlow Serving for models that this package exported."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Sequence
from types import TracebackType

from lenet_keras.errors import LenetKerasError, ServerUnavailable
from lenet_keras.serving.embedded.limits import Limits
from lenet_keras.serving.endpoint import Answer, Endpoint, RestTransport, Transport, parse_url
from lenet_keras.serving.image_size import count_pixels

# What one request holds at most: the embedded server accepts ten times as many images, and just these pixels and bytes.
BATCH = 100  # images
_PIXELS = Limits.pixels
_BYTES = Limits.request_bytes * 5 // 8  # base64 adds a third, and JSON a little
_POLL = 0.2  # seconds between two requests for the state
_RETRIES = 2


class ServingClient:
    """A client of one served model.

    Example::

        with ServingClient("http://localhost:8501/v1/models/lenet5_none") as client:
            answers = client.classify([Path("boot.png").read_bytes()])

    Attributes:
        endpoint: the model and where it is served.
    """

    def __init__(self, url: str, *, timeout: float = 30.0) -> None:
        """Take the model at `url`; nothing is sent yet.

        Args:
            url: `http[s]://HOST:PORT/v1/models/NAME` or `grpc://HOST:PORT/NAME`, either optionally followed by
                `/versions/NUMBER` or `/labels/LABEL`, and with what `parse_url` says of proxies.
            timeout: seconds to wait for each answer.

        Raises:
            InvalidArgument: it is not such a URL.
        """
        self.endpoint = parse_url(url)
        self._transport = _transport(self.endpoint, timeout)

    def wait_until_available(self, seconds: float = 30.0) -> int:
        """Request the model's state until a version is available; return the number of the newest, or of the label's.

        Raises:
            ServerUnavailable: after `seconds`, no version is available or the requested one has failed to load.
            LenetKerasError: what answers is not TensorFlow Serving, or it does not know the label.
        """
        deadline = time.monotonic() + seconds
        while True:
            try:
                if self.endpoint.model.label is not None:
                    return self._transport.current_version()
                states = self._transport.states()
                available = [found.version for found in states if found.state == "AVAILABLE"]
                if available:
                    return max(available)
                described = ", ".join(
                    f"version {found.version} is {found.state} {found.error}".strip() for found in states
                )
                problem = f"{self.endpoint}: {described or 'no version is known'}"
            except ServerUnavailable as error:
                problem = str(error)
            if time.monotonic() + _POLL > deadline:
                raise ServerUnavailable(f"{problem} (waited for {seconds:g} seconds)")
            time.sleep(_POLL)

    def classify(self, contents: Sequence[bytes]) -> list[Answer]:
        """Return the answers for images, given as the contents of PNG or JPEG files, all from one version.

        Raises:
            ServerUnavailable: the server does not answer, or has no version of the model.
            LenetKerasError: it refuses the images, or serves a model that this package did not export.
        """
        for _ in range(_RETRIES):
            version = self.wait_until_available()
            with contextlib.suppress(ServerUnavailable):  # the version may have been replaced in between
                return self._classify(contents, version)
        return self._classify(contents, self.wait_until_available())

    def _classify(self, contents: Sequence[bytes], version: int) -> list[Answer]:
        answers: list[Answer] = []
        for batch in _batches(contents):
            found = self._transport.classify(batch, version)
            if len(found) != len(batch):
                raise LenetKerasError(f"{self.endpoint} returned {len(found)} answers for {len(batch)} images")
            answers += found
        if len({answer.probabilities.size for answer in answers}) > 1:
            raise LenetKerasError(f"{self.endpoint} returned answers with different numbers of classes")
        return answers

    def close(self) -> None:
        """Close the connection."""
        self._transport.close()

    def __enter__(self) -> ServingClient:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _batches(contents: Sequence[bytes]) -> Iterator[list[bytes]]:
    """Split images, in their order, into lists that fit a request each; a larger image is alone."""
    batch: list[bytes] = []
    pixels = size = 0
    for content in contents:
        more = count_pixels(content)
        if batch and (len(batch) == BATCH or pixels + more > _PIXELS or size + len(content) > _BYTES):
            yield batch
            batch, pixels, size = [], 0, 0
        batch.append(content)
        pixels, size = pixels + more, size + len(content)
    if batch:
        yield batch


def _transport(endpoint: Endpoint, timeout: float) -> Transport:
    if endpoint.scheme != "grpc":
        return RestTransport(endpoint, timeout)
    # gRPC's messages need TensorFlow, whose import takes seconds that REST need not spend.
    from lenet_keras.serving.grpc_client import GrpcTransport

    return GrpcTransport(endpoint, timeout)
