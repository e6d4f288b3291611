"""An embedded server of two small models, and a function that sends it requests."""

from __future__ import annotations

import http.client
import json
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from lenet_keras.data.load import load
from lenet_keras.export.signatures import describe_signatures, write_saved_model, write_warmup
from lenet_keras.models import build_lenet5
from lenet_keras.serving.embedded.server import RunningServer, running_server

NAMES = [f"class {i}" for i in range(9)] + ["Ångström"]


@pytest.fixture(scope="session")
def images() -> np.ndarray:
    """Twelve real images, uint8 [12, 28, 28, 1]."""
    return load("fashion_mnist_sample").test.images[:12]


def confident_model(seed: int) -> keras.Model:
    model = build_lenet5(seed=seed)
    head = model.get_layer("logits")
    head.set_weights([weight * 20 for weight in head.get_weights()])
    return model


@pytest.fixture(scope="session")
def served_models() -> dict[int, keras.Model]:
    """The models behind the two versions, which differ."""
    return {version: confident_model(seed=version) for version in (1, 2)}


@pytest.fixture(scope="session")
def exports(
    tmp_path_factory: pytest.TempPathFactory, served_models: dict[int, keras.Model], images: np.ndarray
) -> Path:
    """An export folder with versions 1 and 2 of `digits`, not to be changed; written as an export does, unverified."""
    folder = tmp_path_factory.mktemp("exports")
    for version, model in served_models.items():
        saved_model = folder / "digits" / str(version)
        write_saved_model(model, NAMES, saved_model)
        write_warmup(saved_model, list(describe_signatures((28, 28, 1), 10).values()), images)
    return folder


@pytest.fixture(scope="session")
def expected(served_models: dict[int, keras.Model], images: np.ndarray) -> dict[int, np.ndarray]:
    """The probabilities of both versions, [12, 10]."""
    return {
        version: keras.ops.softmax(model(images.astype(np.float32))).numpy() for version, model in served_models.items()
    }


@pytest.fixture(scope="session")
def server(exports: Path) -> Iterator[RunningServer]:
    """A server of `exports`."""
    with running_server(exports, rest_port=0, grpc_port=0) as running:
        yield running


Send = Callable[..., tuple[int, Any]]


@pytest.fixture(scope="session")
def send(server: RunningServer) -> Iterator[Send]:
    """Send an HTTP request: method, path, body (bytes, or an object for JSON); returns status and parsed answer."""
    connection = http.client.HTTPConnection(server.host, server.rest_port, timeout=60)
    used = time.monotonic()

    def exchange(method: str, path: str, body: Any = None) -> tuple[int, Any]:
        nonlocal used
        if time.monotonic() - used > 20:  # the server closes connections that are idle for a minute
            connection.close()
        used = time.monotonic()
        content = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
        connection.request(method, path, content)
        answer = connection.getresponse()
        return answer.status, json.loads(answer.read())

    yield exchange
    connection.close()


@pytest.fixture
def own_exports(tmp_path: Path, exports: Path) -> Path:
    """An export folder of the test's own with version 1 only; versions can be added from `exports`."""
    shutil.copytree(exports / "digits" / "1", tmp_path / "exports" / "digits" / "1")
    return tmp_path / "exports"
