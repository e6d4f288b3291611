"""Latency and throughput of a served model, compared with a bare loop over the same SavedModel.

    python benchmarks/serving_load.py exported_models/lenet5_none --output docs/serving_load.json

Starts `lenet-keras serve`'s embedded server in a process of its own (or uses the one at --rest and --grpc) and sends it
requests from several threads of this process, for some seconds each: numbers in JSON, PNG files in JSON, and gRPC, with
1, 16 and 64 images per request. The peer is a third process that calls the signature `uint8` in a loop with nothing
around it. Server and clients share the machine's cores, which a bare loop has to itself: ratios above one half on two
cores mean that the server itself costs little. Prints a table; --output saves the figures.
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

import numpy as np

from lenet_keras import runtime
from lenet_keras.data.load import load
from lenet_keras.inference.images import encode_png
from lenet_keras.serving.config import version_folders
from lenet_keras.serving.endpoint import ENCODED, IMAGE_BYTES, ModelSpec

BATCHES = (1, 16, 64)

BARE_LOOP = """
import sys, time
from lenet_keras import runtime
runtime.load_tensorflow()
import tensorflow as tf
from lenet_keras.data.load import load
model = tf.saved_model.load(sys.argv[1])
classify = model.signatures["uint8"]
for batch in map(int, sys.argv[3:]):
    images = tf.constant(load("fashion_mnist_sample").test.images[:batch])
    for _ in range(20):
        classify(images=images)
    calls, start = 0, time.perf_counter()
    while time.perf_counter() - start < float(sys.argv[2]):
        {name: tensor.numpy() for name, tensor in classify(images=images).items()}
        calls += 1
    print(batch * calls / (time.perf_counter() - start), flush=True)
"""

# Sends one request over its own connection, as often as it is called.
Send = Callable[[], None]


def rest_sender(address: str, model: str, body: bytes) -> Send:
    """Return a function that posts `body` to the model's predict, over one connection that stays open."""
    connection = http.client.HTTPConnection(address)

    def send() -> None:
        connection.request("POST", f"{ModelSpec(model).path}:predict", body, {"Content-Type": "application/json"})
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


def senders(rest: str, grpc: str, model: str, images: np.ndarray) -> dict[str, Callable[[], Send]]:
    """Return, for each kind of request, a function that makes its senders."""
    numbers = {"signature_name": "uint8", "instances": images.tolist()}
    files = [{IMAGE_BYTES: {"b64": base64.b64encode(encode_png(image)).decode()}} for image in images]
    encoded = {"signature_name": ENCODED, "instances": files}
    return {
        "REST, numbers": lambda: rest_sender(rest, model, json.dumps(numbers).encode()),
        "REST, PNG files": lambda: rest_sender(rest, model, json.dumps(encoded).encode()),
        "gRPC, uint8": lambda: grpc_sender(grpc, model, images),
    }


def measure(make: Callable[[], Send], clients: int, seconds: float) -> list[float]:
    """Send requests from `clients` threads; return the seconds that each request took."""
    durations: list[list[float]] = [[] for _ in range(clients)]
    failures: list[Exception] = []
    end = time.perf_counter() + seconds

    def work(own: list[float]) -> None:
        try:
            send = make()
            send()  # connects
            while (start := time.perf_counter()) < end:
                send()
                own.append(time.perf_counter() - start)
        except Exception as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(own,)) for own in durations]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]
    return list(itertools.chain.from_iterable(durations))


@contextlib.contextmanager
def embedded_server(export_dir: Path) -> Iterator[tuple[str, str]]:
    """Serve `export_dir` in a process of its own; yield the addresses for REST and gRPC."""
    program = "from lenet_keras_cli.main import main; main(prog_name='lenet-keras')"
    command = ["serve", str(export_dir), "--backend", "embedded", "--rest-port", "0", "--grpc-port", "0"]
    process = subprocess.Popen(
        [sys.executable, "-c", program, *command], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    assert process.stdout is not None
    try:
        rest, grpc = (re.search(r"[\w.]+:\d+", process.stdout.readline()) for _ in range(2))
        assert rest
        assert grpc
        yield rest[0], grpc[0]
    finally:
        process.terminate()
        process.wait()


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path, help="the folder of a model's versions, in the export folder")
    parser.add_argument("--clients", type=int, default=8, help="number of threads that send requests")
    parser.add_argument("--seconds", type=float, default=5.0, help="seconds to measure for each figure")
    parser.add_argument("--rest", help="HOST:PORT of a running server, with --grpc")
    parser.add_argument("--grpc", help="its HOST:PORT for gRPC")
    parser.add_argument("--output", type=Path, help="JSON file for the figures")
    options = parser.parse_args()
    runtime.load_tensorflow()

    version = version_folders(options.model)[-1]
    bare = subprocess.run(
        [sys.executable, "-c", BARE_LOOP, str(version), str(options.seconds), *map(str, BATCHES)],
        check=True, capture_output=True, text=True,
    )  # fmt: skip
    peer = dict(zip(BATCHES, map(float, bare.stdout.split()), strict=True))
    given = contextlib.nullcontext((options.rest, options.grpc))
    rows = []
    with given if options.rest else embedded_server(options.model.parent) as (rest, grpc):
        for batch in BATCHES:
            images = load("fashion_mnist_sample").test.images[:batch]
            rows.append({"way": "bare loop", "batch": batch, "images_per_second": peer[batch], "ratio": 1.0})
            for way, make in senders(rest, grpc, options.model.name, images).items():
                durations = measure(make, options.clients, options.seconds)
                rate = batch * len(durations) / options.seconds
                p50, p99 = (1e3 * float(np.percentile(durations, q)) for q in (50, 99))
                rows.append(
                    {"way": way, "batch": batch, "images_per_second": rate, "ratio": rate / peer[batch],
                     "p50_ms": p50, "p99_ms": p99}
                )  # fmt: skip
    report = {
        "server": options.rest or "embedded",
        "clients": options.clients,
        "seconds": options.seconds,
        "processor": runtime.processor(),
        "versions": runtime.versions(),
        "load_average": os.getloadavg()[0],
        "rows": rows,
    }
    if options.output:
        options.output.write_text(json.dumps(report, indent=2) + "\n")
    print(f"{report['processor']}; server: {report['server']}; {options.clients} clients")
    print(f"{'way':<16}{'batch':>6}{'images/s':>10}{'of bare':>9}{'p50 ms':>8}{'p99 ms':>8}")
    for row in rows:
        latency = f"{row['p50_ms']:>8.1f}{row['p99_ms']:>8.1f}" if "p50_ms" in row else ""
        print(f"{row['way']:<16}{row['batch']:>6}{row['images_per_second']:>10,.0f}{row['ratio']:>9.2f}{latency}")


if __name__ == "__main__":
    main()
