"""A client of TensorFlow Serving for models that this package exported."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any

import numpy as np
import numpy.typing as npt

from lenet_keras.errors import LenetKerasError
from lenet_keras.pictures import encode_png
from lenet_keras.serving.client.endpoint import Endpoint, Transport, Unavailable, parse_url

BATCH = 100  # pictures a request: well below the servers' limits of size
_POLL = 0.2  # seconds between two questions for the state


@dataclass(frozen=True)
class Answer:
    """What a server says of a picture.

    Attributes:
        class_name: the most probable class.
        class_id: its number.
        probabilities: float64 [classes], in the order of the numbers.
        version: the version of the model that answered.
    """

    class_name: str
    class_id: int
    probabilities: npt.NDArray[np.float64]
    version: int

    def to_json(self) -> dict[str, Any]:
        """As JSON values."""
        return {
            "class": self.class_name,
            "probability": float(self.probabilities[self.class_id]),
            "probabilities": self.probabilities.tolist(),
            "version": self.version,
        }


class ServingClient:
    """Asks one served model.

    with ServingClient("http://localhost:8501/v1/models/lenet5_none") as client:
        answers = client.classify([picture.pixels])
    """

    def __init__(self, url: str, *, seconds: float = 30.0) -> None:
        """Take the model at `url`; nothing is sent yet.

        Args:
            url: `http[s]://HOST:PORT/v1/models/NAME` or `grpc://HOST:PORT/NAME`, either with `/versions/NUMBER` or
                `/labels/LABEL` behind it if need be.
            seconds: how long to wait for each answer.

        Raises:
            InvalidArgument: it is no such URL.
        """
        self.endpoint = parse_url(url)
        self._transport = _transport(self.endpoint, seconds)

    def wait_until_available(self, seconds: float = 30.0) -> int:
        """Ask for the model's state until a version is available; returns its number, the newest.

        Raises:
            LenetKerasError: none is after so many seconds, or the version asked for has failed to load.
        """
        deadline = time.monotonic() + seconds
        while True:
            try:
                states = self._transport.states()
                available = [found.version for found in states if found.state == "AVAILABLE"]
                if available:
                    return max(available)
                described = ", ".join(
                    f"version {found.version} is {found.state} {found.error}".strip() for found in states
                )
                problem = f"{self.endpoint}: {described or 'no version is known'}"
            except Unavailable as error:
                problem = str(error)
            if time.monotonic() + _POLL > deadline:
                raise Unavailable(f"{problem} (asked for {seconds:g} seconds)")
            time.sleep(_POLL)

    def classify(self, images: Sequence[npt.NDArray[np.uint8]]) -> list[Answer]:
        """The classes of `images`, one or more of uint8 [height, width, 1], 0 (the background) to 255, of any size.

        They travel as PNG files, which is small and exact. All are answered by one version.

        Raises:
            LenetKerasError: the server does not answer, refuses the pictures, or serves another kind of model.
        """
        for _attempt in range(3):
            version = self.wait_until_available()
            try:
                return self._classify(images, version)
            except Unavailable as error:
                # The version was replaced between the two questions.
                problem = error
        raise problem

    def _classify(self, images: Sequence[npt.NDArray[np.uint8]], version: int) -> list[Answer]:
        answers = []
        for start in range(0, len(images), BATCH):
            contents = [encode_png(image) for image in images[start : start + BATCH]]
            found = self._transport.classify(contents, version)
            if len(found.class_names) != len(contents) or not found.is_consistent:
                raise LenetKerasError(f"{self.endpoint} answered in a form that no model of this program has")
            answered = found.version or version
            answers += [
                Answer(name, class_id, np.array(row), answered)
                for name, class_id, row in zip(found.class_names, found.class_ids, found.probabilities, strict=True)
            ]
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


def _transport(endpoint: Endpoint, seconds: float) -> Transport:
    # Imported here: gRPC's messages need TensorFlow, whose import takes seconds that REST need not spend.
    if endpoint.scheme == "grpc":
        from lenet_keras.serving.client.grpc import GrpcTransport

        return GrpcTransport(endpoint, seconds)
    from lenet_keras.serving.client.rest import RestTransport

    return RestTransport(endpoint, seconds)
