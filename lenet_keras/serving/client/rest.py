"""TensorFlow Serving's REST protocol, from the side of the one who asks."""

from __future__ import annotations

import base64
import dataclasses
import http.client
import json
import urllib.error
import urllib.request
from collections.abc import Sequence
from typing import Any

from lenet_keras.errors import LenetKerasError, first_line
from lenet_keras.serving.client.endpoint import Classified, Endpoint, Unavailable, VersionState


class RestTransport:
    """Asks one endpoint by HTTP. Directly: servers stand in the local network, where no proxy leads to."""

    def __init__(self, endpoint: Endpoint, seconds: float) -> None:
        """Ask `endpoint`, and wait so many seconds for an answer."""
        self._endpoint = endpoint
        self._seconds = seconds
        self._opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))

    def states(self) -> list[VersionState]:
        """What the server knows of the endpoint's versions.

        Raises:
            Unavailable: it does not answer, or knows no such model.
            LenetKerasError: what answers is no TensorFlow Serving.
        """
        answer = self._ask(str(self._endpoint), None)
        try:
            return [
                VersionState(int(found["version"]), found["state"], found.get("status", {}).get("error_message", ""))
                for found in answer["model_version_status"]
            ]
        except (KeyError, TypeError, ValueError) as error:
            raise LenetKerasError(f"{self._endpoint} is not TensorFlow Serving: its answer has no states") from error

    def classify(self, contents: Sequence[bytes], version: int) -> Classified:
        """Ask `version` for the classes of PNG or JPEG files.

        Raises:
            Unavailable: it does not answer, or no longer has the version.
            LenetKerasError: it refuses the files, or is no model that this program exported.
        """
        instances = [{"image_bytes": {"b64": base64.b64encode(content).decode()}} for content in contents]
        endpoint = dataclasses.replace(self._endpoint, version=version, label=None)
        answer = self._ask(f"{endpoint}:predict", {"signature_name": "encoded", "instances": instances})
        try:
            rows = answer["predictions"]
            return Classified(
                [str(row["class_name"]) for row in rows],
                [int(row["class_id"]) for row in rows],
                [[float(value) for value in row["probabilities"]] for row in rows],
            )
        except (KeyError, TypeError, ValueError) as error:
            raise LenetKerasError(f"{endpoint} is not a model that this program exported") from error

    def close(self) -> None:
        """Nothing is kept open."""

    def _ask(self, url: str, body: dict[str, Any] | None) -> Any:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(url, data, {"Content-Type": "application/json"})
        try:
            with self._opener.open(request, timeout=self._seconds) as answer:
                content = answer.read()
        except urllib.error.HTTPError as error:
            with error:
                reason = _reason(error.read()) or f"{error.code} {error.reason}"
            kind = Unavailable if error.code in (404, 503) else LenetKerasError
            raise kind(f"{url}: {reason}") from error
        except urllib.error.URLError as error:
            cause = error.reason.strerror if isinstance(error.reason, OSError) else None
            raise Unavailable(f"{url}: {cause or error.reason}") from error
        except http.client.HTTPException as error:
            raise Unavailable(f"{url}: the answer is no HTTP; is this TensorFlow Serving's REST port?") from error
        except OSError as error:
            raise Unavailable(f"{url}: {first_line(error)}") from error
        try:
            return json.loads(content)
        except ValueError as error:
            raise LenetKerasError(f"{url}: the answer is no JSON; is this TensorFlow Serving's REST port?") from error


def _reason(content: bytes) -> str | None:
    """The first line of a server's own account."""
    try:
        return str(json.loads(content)["error"]).splitlines()[0]
    except (ValueError, KeyError, TypeError, IndexError):
        return None
