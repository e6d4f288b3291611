"""A served model: its URL, what its server answers, and TensorFlow Serving's REST protocol from the client's side."""

from __future__ import annotations

import base64
import dataclasses
import http.client
import json
import re
import urllib.error
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import quote, unquote, urlsplit

from lenet_keras.errors import LARGEST_INTEGER, InvalidArgument, LenetKerasError, ServerUnavailable, first_line
from lenet_keras.serving.config import GRPC_PORT, REST_PORT

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

# TensorFlow Serving's paths: a model below ROOT, and perhaps one of its versions, by number or by label.
ROOT = "/v1/models"
MODEL = r"/(?P<name>[^/:]+)(?:/versions/(?P<version>[0-9]+)|/labels/(?P<label>[^/:]+))?"
_PATH = re.compile(rf"(?:(?P<prefix>.*){ROOT})?{MODEL}(?::predict)?/?")

_DEFAULT_PORTS = {"http": REST_PORT, "https": 443, "grpc": GRPC_PORT}

_NO_CREDENTIALS = "asks for a user and a password: write them as USER:PASSWORD@HOST in the URL"

# The signature of exported models that takes the contents of image files, and the name of its input.
ENCODED, IMAGE_BYTES = "encoded", "image_bytes"


@dataclass(frozen=True)
class ModelSpec:
    """The model that a request is for; named after TensorFlow Serving's message.

    Attributes:
        name: the model's name.
        version: the number of a version, or None.
        label: the label of a version, such as "stable", or None. Without version and label the newest one answers.
    """

    name: str
    version: int | None = None
    label: str | None = None

    @classmethod
    def from_match(cls, match: re.Match[str]) -> ModelSpec:
        """Read the groups of `MODEL`.

        Raises:
            ValueError: the version is not a signed 64-bit integer.
        """
        name, digits, label = (match[group] for group in ("name", "version", "label"))
        version = None
        if digits is not None:
            # Python refuses to convert thousands of digits.
            version = int(digits.lstrip("0")[:20] or "0")
            if version > LARGEST_INTEGER:
                raise ValueError(f"Failed to convert version: {digits[:20]} to numeric.")
        return cls(unquote(name), version, None if label is None else unquote(label))

    @property
    def path(self) -> str:
        """The path that REST uses, `/v1/models/NAME`, with version or label."""
        path = f"{ROOT}/{quote(self.name, safe='')}"
        if self.version is not None:
            return f"{path}/versions/{self.version}"
        return path if self.label is None else f"{path}/labels/{quote(self.label, safe='')}"


@dataclass(frozen=True)
class Endpoint:
    """A model on a server.

    Attributes:
        scheme: "http", "https" or "grpc".
        host: name and port.
        model: which of the server's models.
        prefix: the path on the host below which a proxy puts the server, empty or `/…`.
        credentials: user and password for the proxy, `user:password`; empty without. They are not shown.
    """

    scheme: str
    host: str
    model: ModelSpec
    prefix: str = ""
    credentials: str = dataclasses.field(default="", repr=False)

    def __str__(self) -> str:
        return f"{self.scheme}://{self.host}{self.prefix}{self.model.path}"

    def at_version(self, version: int) -> Endpoint:
        """Return the same model's endpoint with the number of a version."""
        return dataclasses.replace(self, model=ModelSpec(self.model.name, version))

    @property
    def authorization(self) -> dict[str, str]:
        """The header that carries the credentials (RFC 7617), if there are any."""
        if not self.credentials:
            return {}
        return {"authorization": f"Basic {base64.b64encode(self.credentials.encode()).decode()}"}


def parse_url(url: str) -> Endpoint:
    """Read `http[s]://HOST:PORT/v1/models/NAME` or `grpc://HOST:PORT/NAME`.

    Both may end in `/versions/NUMBER` or `/labels/LABEL`; a final `:predict` is ignored. A proxy may ask for a user and
    a password, `USER:PASSWORD@HOST`, and by REST have a path before `/v1/models`.

    >>> endpoint = parse_url("https://me:secret@localhost/vision/v1/models/lenet5_none/labels/stable")
    >>> str(endpoint), endpoint.model.label
    ('https://localhost:443/vision/v1/models/lenet5_none/labels/stable', 'stable')

    Raises:
        InvalidArgument: it is not such a URL.
    """
    try:
        parts = urlsplit(url)
        port = parts.port
        found = _PATH.fullmatch(parts.path)
        model = None if found is None else ModelSpec.from_match(found)
    except ValueError as error:
        raise InvalidArgument(f"{_shown(url)!r} is not a URL: {error}") from error
    prefix = quote(unquote(found["prefix"] or ""), safe="/") if found else ""
    has_foreign_prefix = bool(prefix) and parts.scheme == "grpc"
    if parts.scheme not in _DEFAULT_PORTS or not parts.hostname or model is None or parts.query or has_foreign_prefix:
        raise InvalidArgument(
            f"{_shown(url)!r} is not the URL of a served model: expected http://HOST:{REST_PORT}{ROOT}/NAME or "
            f"grpc://HOST:{GRPC_PORT}/NAME, optionally followed by /versions/NUMBER or /labels/LABEL"
        )
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    address = f"{host}:{_DEFAULT_PORTS[parts.scheme] if port is None else port}"
    user, password = unquote(parts.username or ""), unquote(parts.password or "")
    return Endpoint(parts.scheme, address, model, prefix, f"{user}:{password}" if user or password else "")


def _shown(url: str) -> str:
    return re.sub("//.*@", "//", url)  # without a password, even one that should have been percent-encoded


@dataclass(frozen=True)
class VersionState:
    """A version's number, its state ("LOADING", "AVAILABLE", …) and, if it failed, why."""

    version: int
    state: str
    error: str = ""


@dataclass(frozen=True)
class Answer:
    """A server's answer for one image.

    Attributes:
        class_name: the most probable class.
        class_id: its number.
        probabilities: float64 [classes], in the order of the class numbers.
        version: the version of the model that answered.
    """

    class_name: str
    class_id: int
    probabilities: npt.NDArray[np.float64]
    version: int

    def __post_init__(self) -> None:
        """Raise ValueError unless `class_id` is the number of one of the classes in `probabilities`."""
        if self.probabilities.ndim != 1 or not 0 <= self.class_id < len(self.probabilities):
            raise ValueError(f"class {self.class_id} is not among {self.probabilities.shape} probabilities")


class Transport(Protocol):
    """A protocol for querying one endpoint."""

    def states(self) -> list[VersionState]:
        """Return the states of the model's versions, or of the one that the endpoint names by its number.

        Raises:
            ServerUnavailable: the server does not answer, or knows no such model.
            LenetKerasError: what answers is not TensorFlow Serving.
        """

    def current_version(self) -> int:
        """Return the version that answers at the endpoint now, also if it names a label, which states do not regard.

        Raises:
            ServerUnavailable: the server does not answer, or has no such version.
            LenetKerasError: it knows no such label, or what answers is not TensorFlow Serving.
        """

    def classify(self, contents: Sequence[bytes], version: int) -> list[Answer]:
        """Return the answers of `version` to PNG or JPEG files.

        Raises:
            ServerUnavailable: the server does not answer, or no longer has the version.
            LenetKerasError: it refuses the files, or serves a model that this package did not export.
        """

    def close(self) -> None:
        """Close the connection."""


class RestTransport:
    """TensorFlow Serving's REST protocol. It bypasses proxies: servers are expected on the local network."""

    def __init__(self, endpoint: Endpoint, timeout: float) -> None:
        """Take the endpoint, and the seconds to wait for each answer; nothing is sent yet."""
        self._endpoint = endpoint
        self._timeout = timeout
        self._opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), _AnyStatus())

    def states(self) -> list[VersionState]:
        """See `Transport`."""
        reply = self._exchange(str(self._endpoint), None)
        try:
            return [
                VersionState(int(found["version"]), found["state"], found.get("status", {}).get("error_message", ""))
                for found in reply["model_version_status"]
            ]
        except (KeyError, TypeError, ValueError) as error:
            raise LenetKerasError(f"{self._endpoint} is not TensorFlow Serving: its reply holds no states") from error

    def current_version(self) -> int:
        """See `Transport`."""
        reply = self._exchange(f"{self._endpoint}/metadata", None)
        try:
            return int(reply["model_spec"]["version"])
        except (KeyError, TypeError, ValueError) as error:
            raise LenetKerasError(f"{self._endpoint} is not TensorFlow Serving: its reply names no version") from error

    def classify(self, contents: Sequence[bytes], version: int) -> list[Answer]:
        """See `Transport`."""
        import numpy as np

        instances = [{IMAGE_BYTES: {"b64": base64.b64encode(content).decode()}} for content in contents]
        endpoint = self._endpoint.at_version(version)
        reply = self._exchange(f"{endpoint}:predict", {"signature_name": ENCODED, "instances": instances})
        try:
            return [
                Answer(
                    str(row["class_name"]),
                    int(row["class_id"]),
                    np.array([float(value) for value in row["probabilities"]]),
                    version,
                )
                for row in reply["predictions"]
            ]
        except (KeyError, TypeError, ValueError) as error:
            raise LenetKerasError(f"{endpoint} is not a model that this package exported") from error

    def close(self) -> None:
        """Do nothing: no connection is kept open."""

    def _exchange(self, url: str, body: dict[str, Any] | None) -> Any:
        data = None if body is None else json.dumps(body).encode()
        headers = {"Content-Type": "application/json", **self._endpoint.authorization}
        request = urllib.request.Request(url, data, headers)
        try:
            with self._opener.open(request, timeout=self._timeout) as reply:
                status, content = reply.status, reply.read()
        except urllib.error.URLError as error:
            cause = error.reason.strerror if isinstance(error.reason, OSError) else None
            raise ServerUnavailable(f"{url}: {cause or error.reason}") from error
        except (ConnectionError, http.client.IncompleteRead) as error:
            raise ServerUnavailable(f"{url}: the server closed the connection before it had answered") from error
        except http.client.HTTPException as error:
            raise ServerUnavailable(f"{url}: the reply is not HTTP; is this TensorFlow Serving's REST port?") from error
        except OSError as error:
            raise ServerUnavailable(f"{url}: {first_line(error)}") from error
        if not 200 <= status < 300:
            reason = _server_message(content) or f"{status} {reply.reason}"
            if status in (401, 407):
                given = "does not accept that user and password" if self._endpoint.credentials else _NO_CREDENTIALS
                raise LenetKerasError(f"{url}: the server, or a proxy in front of it, {given} ({reason})")
            raise (ServerUnavailable if status in (404, 503) else LenetKerasError)(f"{url}: {reason}")
        try:
            return json.loads(content)
        except ValueError as error:
            raise LenetKerasError(f"{url}: the reply is not JSON; is this TensorFlow Serving's REST port?") from error


class _AnyStatus(urllib.request.HTTPErrorProcessor):
    """Returns any reply as it is. A redirect, if followed, would carry the password to another host."""

    def http_response(self, request: urllib.request.Request, response: Any) -> Any:  # noqa: ARG002
        return response

    https_response = http_response


def _server_message(content: bytes) -> str | None:
    """Return the first line of the error message in a reply, if there is one."""
    try:
        return str(json.loads(content)["error"]).splitlines()[0]
    except (ValueError, KeyError, TypeError, IndexError):
        return None
