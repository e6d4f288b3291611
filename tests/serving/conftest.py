"""An embedded server over two small models, and how to ask it."""

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

from lenet_keras.data import Split, load
from lenet_keras.export import export_model
from lenet_keras.models import build_lenet5
from lenet_keras.serving.embedded import RunningServer, serve

NAMES = [f"class {i}" for i in range(9)] + ["Ångström"]


@pytest.fixture(scope="session")
def images() -> np.ndarray:
    """Twelve real images, uint8 [12, 28, 28, 1]."""
    return load("fashion_mnist_sample").test.images[:12]


def make(seed: int) -> keras.Model:
    """A model that is sure of itself."""
    model = build_lenet5(seed=seed)
    head = model.get_layer("logits")
    head.set_weights([weight * 20 for weight in head.get_weights()])
    return model


@pytest.fixture(scope="session")
def exports(tmp_path_factory: pytest.TempPathFactory, images: np.ndarray) -> Path:
    """A folder of exports: `digits`, versions 1 and 2, which differ. Not to be changed."""
    folder = tmp_path_factory.mktemp("exports")
    for seed in (1, 2):
        export_model(make(seed), folder / "digits", NAMES, Split(images, np.zeros(12, np.int64)))
    return folder


@pytest.fixture(scope="session")
def expected(images: np.ndarray) -> dict[int, np.ndarray]:
    """The probabilities of both versions, [12, 10]."""
    return {seed: keras.ops.softmax(make(seed)(images.astype(np.float32))).numpy() for seed in (1, 2)}


@pytest.fixture(scope="session")
def server(exports: Path) -> Iterator[RunningServer]:
    """A server of `exports`."""
    with serve(exports, rest_port=0, grpc_port=0) as running:
        yield running


Ask = Callable[..., tuple[int, Any]]


@pytest.fixture(scope="session")
def ask(server: RunningServer) -> Iterator[Ask]:
    """Send an HTTP request: method, path, body (bytes, or what becomes JSON); returns status and parsed answer."""
    connection = http.client.HTTPConnection(server.host, server.rest_port, timeout=60)
    used = time.monotonic()

    def send(method: str, path: str, body: Any = None) -> tuple[int, Any]:
        nonlocal used
        if time.monotonic() - used > 20:  # other tests came between; the server ends what is idle for a minute
            connection.close()
        used = time.monotonic()
        content = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
        connection.request(method, path, content)
        answer = connection.getresponse()
        return answer.status, json.loads(answer.read())

    yield send
    connection.close()


@pytest.fixture
def own_exports(tmp_path: Path, exports: Path) -> Path:
    """A folder with version 1 only, to be changed; `exports` holds what may be added."""
    shutil.copytree(exports / "digits" / "1", tmp_path / "exports" / "digits" / "1")
    return tmp_path / "exports"
