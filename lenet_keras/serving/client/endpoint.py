"""Where a served model is, and what its two protocols have in common."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol
from urllib.parse import quote, unquote, urlsplit

from lenet_keras.errors import InvalidArgument, LenetKerasError

# As TensorFlow Serving's own path patterns: a model, and perhaps a version or a label of it.
_PATH = re.compile(r"/(?:v1/models/)?([^/:]+)(?:/versions/([0-9]+)|/labels/([^/:]+))?(?::predict)?/?")


class Unavailable(LenetKerasError):
    """The server does not answer, or not for this model; it may later."""


@dataclass(frozen=True)
class Endpoint:
    """A served model.

    Attributes:
        scheme: "http", "https" or "grpc".
        host: name and port.
        model: its name.
        version: a number, or None.
        label: such as "stable", or None. Without version and label the server chooses, the newest.
    """

    scheme: str
    host: str
    model: str
    version: int | None = None
    label: str | None = None

    @property
    def path(self) -> str:
        """The path that REST asks, `/v1/models/NAME`, with version or label."""
        path = f"/v1/models/{quote(self.model, safe='')}"
        if self.version is not None:
            return f"{path}/versions/{self.version}"
        return f"{path}/labels/{quote(self.label, safe='')}" if self.label else path

    def __str__(self) -> str:
        return f"{self.scheme}://{self.host}{self.path}"


@dataclass(frozen=True)
class VersionState:
    """What the server says of a version: its number, "LOADING", "AVAILABLE" and so on, and why it failed if it did."""

    version: int
    state: str
    error: str = ""


@dataclass(frozen=True)
class Classified:
    """What the server returned for some pictures, one each, and the version that it said it was (REST does not)."""

    class_names: list[str]
    class_ids: list[int]
    probabilities: list[list[float]]
    version: int | None = None

    @property
    def is_consistent(self) -> bool:
        """Whether there is one of each for every picture, and the classes have probabilities."""
        return len(self.class_names) == len(self.class_ids) == len(self.probabilities) and all(
            0 <= class_id < len(row) for class_id, row in zip(self.class_ids, self.probabilities, strict=True)
        )


class Transport(Protocol):
    """One of the two protocols, for one endpoint."""

    def states(self) -> list[VersionState]:
        """What the server knows of the endpoint's versions. Raises `Unavailable`."""

    def classify(self, contents: Sequence[bytes], version: int) -> Classified:
        """Ask `version` for the classes of PNG or JPEG files. Raises `LenetKerasError`."""

    def close(self) -> None:
        """Close the connection."""


def parse_url(url: str) -> Endpoint:
    """Read `http[s]://HOST:PORT/v1/models/NAME` or `grpc://HOST:PORT/NAME`.

    Both may end in `/versions/NUMBER` or `/labels/LABEL`; `:predict` behind them is passed over.

    Raises:
        InvalidArgument: it is no such URL.
    """
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise InvalidArgument(f"{url!r} is no URL: {error}") from error
    found = _PATH.fullmatch(parts.path)
    if parts.scheme not in ("http", "https", "grpc") or not parts.hostname or found is None or parts.query:
        raise InvalidArgument(
            f"{url!r} is not the URL of a served model: expected http://HOST:8501/v1/models/NAME or "
            "grpc://HOST:8500/NAME, with /versions/NUMBER or /labels/LABEL behind it if need be"
        )
    default = {"http": 8501, "https": 443, "grpc": 8500}[parts.scheme]
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    model, version, label = found.groups()
    return Endpoint(
        parts.scheme,
        f"{host}:{default if port is None else port}",
        unquote(model),
        None if version is None else int(version),
        None if label is None else unquote(label),
    )
