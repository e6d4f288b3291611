"""Latency and throughput of a served model, beside other ways to serve it, in one run.

    pip install '.[benchmark,onnx]'
    python benchmarks/serving_load.py exported_models/lenet5_none --output docs/serving_load.json

Starts `lenet-keras serve`'s embedded server, and FastAPI around `model.predict` (`serving_peers.py`), each in a process
of its own, and sends them requests in turn from 1, 4 and 32 threads of this process: numbers in JSON, PNG files in
JSON, and gRPC, with 1, 16 and 64 images per request. With --rest and --grpc, a server that is running already is
measured beside them: TensorFlow Serving, or another version of this package. Before that, the SavedModel in TensorFlow
and the network in ONNX Runtime compute in loops with nothing around them, which have the machine to themselves; servers
and clients share it. Prints a table; --output saves the figures.
"""

from __future__ import annotations

import argparse
import base64
import contextlib
import http.client
import itertools
import json
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from lenet_keras import runtime
from lenet_keras.data.load import load
from lenet_keras.inference.images import encode_png
from lenet_keras.serving.client import ServingClient
from lenet_keras.serving.config import version_folders
from lenet_keras.serving.endpoint import ENCODED, IMAGE_BYTES, ModelSpec

BATCHES = (1, 16, 64)
CLIENTS = (1, 4, 32)
PEERS = str(Path(__file__).with_name("serving_peers.py"))

# Sends one request over its own connection, as often as it is called.
Send = Callable[[], None]


def rest_sender(address: str, path: str, body: bytes) -> Send:
    """Return a function that posts `body`, over one connection that stays open."""
    connection = http.client.HTTPConnection(address)

    def send() -> None:
        connection.request("POST", path, body, {"Content-Type": "application/json"})
        answer = connection.getresponse()
        content = answer.read()
        if answer.status != 200:
            raise RuntimeError(content[:300])

    return send


def grpc_sender(address: str, model: str, images: np.ndarray) -> Send:
    """Return a function that calls PredictionService.Predict, over one channel."""
    import grpc
    import tensorflow as tf
    from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc

    # Without its own pool of connections, every channel of the process would share one.
    channel = grpc.insecure_channel(address, options=[("grpc.use_local_subchannel_pool", 1)])
    stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
    request = predict_pb2.PredictRequest()
    request.model_spec.name, request.model_spec.signature_name = model, "uint8"
    request.inputs["images"].CopyFrom(tf.make_tensor_proto(images))
    return lambda: stub.Predict(request)


def bodies(images: np.ndarray) -> dict[str, bytes]:
    """Return a request for the images as numbers, and one as PNG files."""
    files = [{IMAGE_BYTES: {"b64": base64.b64encode(encode_png(image)).decode()}} for image in images]
    return {
        "numbers": json.dumps({"signature_name": "uint8", "instances": images.tolist()}).encode(),
        "PNG files": json.dumps({"signature_name": ENCODED, "instances": files}).encode(),
    }


def senders(rest: str, grpc: str, model: str, images: np.ndarray) -> dict[str, Callable[[], Send]]:
    """Return, for each kind of request to a server of TensorFlow's protocol, a function that makes its senders."""
    path = f"{ModelSpec(model).path}:predict"
    made: dict[str, Callable[[], Send]] = {
        f"REST, {kind}": lambda body=body: rest_sender(rest, path, body)  # type: ignore[misc]
        for kind, body in bodies(images).items()
    }
    return {**made, "gRPC, uint8": lambda: grpc_sender(grpc, model, images)}


def fastapi_senders(address: str, images: np.ndarray) -> dict[str, Callable[[], Send]]:
    """Return the same for the application of `serving_peers.py`."""
    numbers, files = bodies(images).values()
    return {
        "REST, numbers": lambda: rest_sender(address, "/numbers", numbers),
        "REST, PNG files": lambda: rest_sender(address, "/files", files),
    }


def measure(make: Callable[[], Send], clients: int, seconds: float) -> list[list[float]]:
    """Send requests from `clients` threads; return, for each of them, the seconds that its requests took."""
    durations: list[list[float]] = [[] for _ in range(clients)]
    failures: list[Exception] = []
    connected = threading.Barrier(clients)

    def work(own: list[float]) -> None:
        try:
            send = make()
            send()  # connects
            connected.wait()
            end = time.perf_counter() + seconds
            while (start := time.perf_counter()) < end:
                send()
                own.append(time.perf_counter() - start)
        except threading.BrokenBarrierError:
            pass  # another client could not connect
        except Exception as error:
            failures.append(error)
            connected.abort()

    threads = [threading.Thread(target=work, args=(own,)) for own in durations]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]
    return durations


@contextlib.contextmanager
def started(*command: str, addresses: int) -> Iterator[list[str]]:
    """Start a Python program that serves; yield the addresses that it prints, one a line."""
    process = subprocess.Popen([sys.executable, *command], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        found = [re.findall(r"[\w.]+:\d+", process.stdout.readline()) for _ in range(addresses)]
        yield [address for line in found for address in line[:1]]
    finally:
        process.terminate()
        process.wait()


def in_process(seconds: float, *command: str) -> dict[int, float]:
    """Return the images per second of a loop of `serving_peers.py`, for each size of a batch."""
    run = subprocess.run(
        [sys.executable, PEERS, *command, str(seconds), *map(str, BATCHES)], check=True, capture_output=True, text=True
    )
    return dict(zip(BATCHES, map(float, run.stdout.split()), strict=True))


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path, help="the folder of a model's versions, in the export folder")
    parser.add_argument("--seconds", type=float, default=3.0, help="seconds to measure for each figure")
    parser.add_argument("--rest", help="HOST:PORT of a server that is running, with --grpc")
    parser.add_argument("--grpc", help="its HOST:PORT for gRPC")
    parser.add_argument("--name", default="given", help="what to call it in the table")
    parser.add_argument("--output", type=Path, help="JSON file for the figures")
    options = parser.parse_args()
    runtime.load_tensorflow()

    model, serve = options.model.name, ["--backend", "embedded", "--rest-port", "0", "--grpc-port", "0"]
    bare = in_process(options.seconds, "tensorflow", str(version_folders(options.model)[-1]))
    loops = {"TensorFlow": bare, "ONNX Runtime": in_process(options.seconds, "onnxruntime")}
    rows: list[dict[str, Any]] = [
        {"server": name, "way": "in process", "batch": batch, "clients": 1, "images_per_second": speed}
        for name, speeds in loops.items()
        for batch, speed in speeds.items()
    ]
    with (
        started("-m", "lenet_keras", "serve", str(options.model.parent), *serve, addresses=2) as (rest, grpc),
        started(PEERS, "fastapi", addresses=1) as (fastapi,),
    ):
        with ServingClient(f"http://{rest}{ModelSpec(model).path}") as client:
            client.wait_until_available(60)
        for batch, clients in itertools.product(BATCHES, CLIENTS):
            images = load("fashion_mnist_sample").test.images[:batch]
            servers = {"embedded": senders(rest, grpc, model, images), "FastAPI": fastapi_senders(fastapi, images)}
            if options.rest:
                servers[options.name] = senders(options.rest, options.grpc, model, images)
            ways = {(server, way): make for server, kinds in servers.items() for way, make in kinds.items()}
            for (server, way), make in ways.items():
                durations = measure(make, clients, options.seconds)
                p50, p99 = 1e3 * np.percentile([*itertools.chain.from_iterable(durations)], (50, 99))
                rate = batch * sum(len(own) / sum(own) for own in durations)
                rows.append(
                    {"server": server, "way": way, "batch": batch, "clients": clients,
                     "images_per_second": rate, "p50_ms": float(p50), "p99_ms": float(p99)}
                )  # fmt: skip
    for row in rows:
        row["ratio"] = row["images_per_second"] / bare[row["batch"]]
    report = {
        "seconds": options.seconds,
        "processor": runtime.processor(),
        "versions": runtime.versions(),
        "load_average": os.getloadavg()[0],
        "rows": rows,
    }
    if options.output:
        options.output.write_text(json.dumps(report, indent=2) + "\n")
    print(report["processor"])
    print(
        f"{'server':<14}{'way':<16}{'batch':>6}{'clients':>8}{'images/s':>10}{'of bare':>9}{'p50 ms':>8}{'p99 ms':>8}"
    )
    for row in rows:
        latency = f"{row['p50_ms']:>8.1f}{row['p99_ms']:>8.1f}" if "p50_ms" in row else ""
        place = f"{row['server']:<14}{row['way']:<16}{row['batch']:>6}{row['clients']:>8}"
        print(f"{place}{row['images_per_second']:>10,.0f}{row['ratio']:>9.2f}{latency}")


if __name__ == "__main__":
    main()
