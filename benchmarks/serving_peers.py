"""What the embedded server is compared with, each in a process of its own; see `serving_load.py`.

    python benchmarks/serving_peers.py tensorflow VERSION_FOLDER SECONDS BATCH...
    python benchmarks/serving_peers.py onnxruntime SECONDS BATCH...
    python benchmarks/serving_peers.py fastapi

The first two compute in a loop with nothing around it, and print the images per second of each batch size. The last is
the server that one would write in a few lines: FastAPI around `model.predict`. It prints its address.
"""

from __future__ import annotations

import base64
import io
import os
import socket
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from lenet_keras import runtime
from lenet_keras.data.load import load

Images = npt.NDArray[np.uint8]


def print_speeds(compute: Callable[[Images], Any], seconds: float, batches: list[int]) -> None:
    """Print how many images `compute` takes a second, for each size of a batch."""
    for batch in batches:
        images = load("fashion_mnist_sample").test.images[:batch]
        for _ in range(20):
            compute(images)
        calls, start = 0, time.perf_counter()
        while time.perf_counter() - start < seconds:
            compute(images)
            calls += 1
        print(batch * calls / (time.perf_counter() - start), flush=True)


def tensorflow_signature(folder: str) -> Callable[[Images], Any]:
    """Return the signature `uint8` of a SavedModel."""
    import tensorflow as tf

    model = tf.saved_model.load(folder)  # which holds the signature's variables
    classify = model.signatures["uint8"]
    return lambda images: (model, {name: value.numpy() for name, value in classify(images=tf.constant(images)).items()})


def onnx_session() -> Callable[[Images], Any]:
    """Return LeNet-5 in ONNX Runtime, with as many threads as it takes by itself. Its weights are the initial ones."""
    from lenet_keras.export.formats import to_onnx
    from lenet_keras.models import build_lenet5

    content = to_onnx(build_lenet5(), [f"class {index}" for index in range(10)])
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    import onnxruntime

    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    return lambda images: session.run(None, {"images": images.astype(np.float32)})


def serve_fastapi() -> None:
    """Answer the requests of `:predict` at /numbers (pixels) and at /files (PNG files in base64)."""
    import uvicorn
    from fastapi import FastAPI
    from PIL import Image

    from lenet_keras.models import build_lenet5

    model = build_lenet5()
    application = FastAPI()

    def answer(images: npt.NDArray[Any]) -> dict[str, Any]:
        return {"predictions": model.predict(images.astype(np.float32), verbose=0).tolist()}

    @application.post("/numbers")  # type: ignore[untyped-decorator]
    def numbers(request: dict[str, Any]) -> dict[str, Any]:
        return answer(np.array(request["instances"], np.uint8))

    @application.post("/files")  # type: ignore[untyped-decorator]
    def files(request: dict[str, Any]) -> dict[str, Any]:
        decoded = (
            Image.open(io.BytesIO(base64.b64decode(file["image_bytes"]["b64"]))) for file in request["instances"]
        )
        return answer(np.stack([np.asarray(image)[..., np.newaxis] for image in decoded]))

    answer(np.zeros((1, 28, 28, 1)))  # compiled before the first request
    with socket.create_server(("127.0.0.1", 0)) as listening:
        print(f"127.0.0.1:{listening.getsockname()[1]}", flush=True)
        uvicorn.Server(uvicorn.Config(application, log_level="error")).run(sockets=[listening])


if __name__ == "__main__":
    runtime.load_tensorflow()
    match sys.argv[1:]:
        case ["tensorflow", folder, seconds, *batches]:
            print_speeds(tensorflow_signature(folder), float(seconds), [int(batch) for batch in batches])
        case ["onnxruntime", seconds, *batches]:
            print_speeds(onnx_session(), float(seconds), [int(batch) for batch in batches])
        case ["fastapi"]:
            serve_fastapi()
        case _:
            sys.exit(__doc__)
