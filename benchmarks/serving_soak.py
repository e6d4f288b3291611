"""A soak of the embedded server: does its memory stay, and does anybody wait, whatever is sent to it?

    python benchmarks/serving_soak.py --output docs/serving_soak.json --plot docs/serving_soak.svg

Trains nothing: exports two fresh models, serves them with `lenet-keras serve` in a process of its own, and sends, one
after the other: good requests to begin with, uploads that are broken off half-way, hostile requests by REST and gRPC,
slow and idle connections, requests that ask for much, new versions (which replace the oldest ones), and good requests
again. During each attack, other clients send good requests: none may be lost, and their longest wait is reported. The
resident memory is read throughout; at the end it is compared with what it was after the first good requests. Those
include some images of the largest size, as TensorFlow keeps the memory of the largest computation that it has done
(some 400 MB for such an image, once and for all; giving back what malloc holds does not change that).
"""

from __future__ import annotations

import argparse
import base64
import http.client
import itertools
import json
import os
import random
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from lenet_keras import runtime
from lenet_keras.data.load import load
from lenet_keras.inference.images import encode_png

MODEL = "soak"
PREDICT = f"/v1/models/{MODEL}:predict"
TOLERANCE = 0.10  # of the memory after the first good requests
LONGEST = 1.0  # seconds for a good request, on two free cores
CLIENTS = 4  # that send good requests


@dataclass
class Record:
    """What was measured.

    Attributes:
        memory: (seconds, MiB, phase), several times a second.
        waits: the seconds of each good request, by phase.
        lost: what was answered instead of a good reply, by phase.
    """

    phase: str = "start"
    memory: list[tuple[float, float, str]] = field(default_factory=list)
    waits: dict[str, list[float]] = field(default_factory=dict)
    lost: dict[str, list[str]] = field(default_factory=dict)


class Server:
    """`lenet-keras serve` in a process of its own."""

    def __init__(self, export_dir: Path, record: Record) -> None:
        """Start it, and wait until it answers; note its memory from now on."""
        program = "from lenet_keras_cli.main import main; main(prog_name='lenet-keras')"
        command = ["serve", str(export_dir), "--backend", "embedded", "--rest-port", "0", "--grpc-port", "0"]
        self.log = tempfile.TemporaryFile("w+")  # noqa: SIM115
        self.process = subprocess.Popen(
            [sys.executable, "-c", program, *command, "--idle-timeout", "10"],
            stdout=subprocess.PIPE, stderr=self.log, text=True,
        )  # fmt: skip
        assert self.process.stdout is not None
        lines = (self.process.stdout.readline() for _ in range(2))
        self.rest, self.grpc = (int(re.findall(r":(\d+)", line)[0]) for line in lines)
        self._record, self._start = record, time.monotonic()
        self._ended = threading.Event()
        self._watcher = threading.Thread(target=self._watch)
        self._watcher.start()

    def memory(self) -> float:
        """Return the resident memory in MiB."""
        return resident_mib(self.process.pid)

    def stop(self) -> str:
        """Stop it; return what it wrote to stderr."""
        self._ended.set()
        self._watcher.join()
        self.process.terminate()
        self.process.wait()
        self.log.seek(0)
        return self.log.read()

    def _watch(self) -> None:
        while not self._ended.wait(0.2):
            self._record.memory.append((time.monotonic() - self._start, self.memory(), self._record.phase))


def resident_mib(process: int) -> float:
    """Return the resident memory of a process in MiB."""
    pages = Path(f"/proc/{process}/statm").read_text().split()[1]
    return int(pages) * os.sysconf("SC_PAGE_SIZE") / 2**20


def good_body(images: np.ndarray) -> bytes:
    """Return a request of four images as PNG files."""
    files = [{"b64": base64.b64encode(encode_png(image)).decode()} for image in images[:4]]
    return json.dumps({"signature_name": "encoded", "instances": files}).encode()


def send_good(port: int, body: bytes, record: Record, more: Callable[[], bool]) -> None:
    """Send good requests over one connection as long as `more` says so, and again if the server has closed it."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    while more():
        start = time.monotonic()
        try:
            connection.request("POST", PREDICT, body)
            reply = connection.getresponse()
            content = reply.read()
            problem = "" if reply.status == 200 and len(json.loads(content)["predictions"]) == 4 else str(content[:200])
        except (OSError, http.client.HTTPException, ValueError) as error:
            problem = repr(error)
            connection.close()
        record.waits.setdefault(record.phase, []).append(time.monotonic() - start)
        if problem:
            record.lost.setdefault(record.phase, []).append(problem)
    connection.close()


def count(number: int) -> Callable[[], bool]:
    """Return a function that is true `number` times, from any thread."""
    left = iter(range(number))
    lock = threading.Lock()

    def more() -> bool:
        with lock:
            return next(left, None) is not None

    return more


def together(work: Callable[[], None], threads: int) -> None:
    """Do `work` in some threads at a time, and wait for them."""
    running = [threading.Thread(target=work) for _ in range(threads)]
    for thread in running:
        thread.start()
    for thread in running:
        thread.join()


@contextmanager
def good_clients(port: int, body: bytes, record: Record, threads: int = 2) -> Iterator[None]:
    """Send good requests, a little apart, within the context."""
    ended = threading.Event()
    running = [
        threading.Thread(target=send_good, args=(port, body, record, lambda: not ended.wait(0.02)))
        for _ in range(threads)
    ]
    for thread in running:
        thread.start()
    try:
        yield
    finally:
        ended.set()
        for thread in running:
            thread.join()


def break_off(port: int, number: int) -> None:
    """Send uploads of 15 MB that end half-way."""
    head = f"POST {PREDICT} HTTP/1.1\r\nHost: a\r\nContent-Length: 15000000\r\n\r\n".encode()
    for _ in range(number):
        with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=60) as connection:
            connection.sendall(head + b"1" * 7_500_000)


def hostile_bodies(chance: random.Random, images: np.ndarray) -> Iterator[bytes]:
    """Yield bodies that are wrong in some way, without end."""
    good = json.dumps({"signature_name": "uint8", "instances": images[:2].tolist()}).encode()
    while True:
        damaged = bytearray(good)
        damaged[chance.randrange(len(damaged))] = chance.randrange(256)
        yield bytes(damaged)
        yield b"[" * chance.randrange(100_000)
        yield json.dumps({"instances": [chance.random()] * chance.randrange(1000)}).encode()
        file = base64.b64encode(encode_png(images[0])[: chance.randrange(300)]).decode()
        yield json.dumps({"signature_name": "encoded", "instances": [{"b64": file}]}).encode()
        yield chance.randbytes(chance.randrange(3000))


def attack_rest(port: int, number: int, chance: random.Random, images: np.ndarray) -> None:
    """Send hostile requests by REST."""
    bodies = hostile_bodies(chance, images)
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    for _ in range(number):
        try:
            connection.request("POST", PREDICT, next(bodies))
            connection.getresponse().read()
        except (OSError, http.client.HTTPException):
            connection.close()
    connection.close()


def attack_grpc(port: int, number: int, chance: random.Random) -> None:
    """Send hostile messages by gRPC: damaged ones, shapes that repeat one value, calls without a message."""
    import grpc
    from tensorflow_serving.apis import predict_pb2

    with grpc.insecure_channel(f"127.0.0.1:{port}", [("grpc.enable_http_proxy", 0)]) as channel:
        call = channel.unary_unary("/tensorflow.serving.PredictionService/Predict")
        silent = channel.stream_unary("/tensorflow.serving.PredictionService/Predict")
        for index in range(number):
            message = predict_pb2.PredictRequest()
            message.model_spec.name, message.model_spec.signature_name = MODEL, "uint8"
            proto = message.inputs["images"]
            proto.dtype = chance.choice([4, 4, 4, 120])
            for size in (chance.choice([85_000, 1, 2**40]), 28, 28, 1):
                proto.tensor_shape.dim.add(size=size)
            proto.int_val.append(1)
            content = bytearray(message.SerializeToString())
            if index % 4 == 0:
                content[chance.randrange(len(content))] = chance.randrange(256)
            with suppress(grpc.RpcError):
                silent(iter(()), timeout=1) if index % 7 == 0 else call(bytes(content))


def attack_connections(port: int, number: int) -> None:
    """Open connections that send nothing, or half a request, and hold them."""
    beginnings = (b"", b"POST /v1", f"POST {PREDICT} HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\n{{".encode())
    connections = []
    for beginning in itertools.islice(itertools.cycle(beginnings), number):
        with suppress(OSError):
            connection = socket.create_connection(("127.0.0.1", port), timeout=60)
            connection.sendall(beginning)
            connections.append(connection)
    time.sleep(5)
    for connection in connections:
        connection.close()


def attack_costly(port: int, number: int) -> None:
    """Ask for much with little: the largest image that is accepted, and more of them than are."""
    large = base64.b64encode(encode_png(np.full((4096, 4096, 1), 120, np.uint8))).decode()
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
    for index in range(number):
        files = [{"b64": large}] * (1 if index % 2 else 30)
        connection.request("POST", PREDICT, json.dumps({"signature_name": "encoded", "instances": files}).encode())
        connection.getresponse().read()
    connection.close()


def export_versions(folder: Path) -> list[Path]:
    """Write two SavedModels as an export does, without training; return their folders."""
    from lenet_keras.export.signatures import describe_signatures, write_saved_model, write_warmup
    from lenet_keras.models import build_lenet5

    images = load("fashion_mnist_sample").test.images
    paths = []
    for seed in (1, 2):
        paths.append(folder / str(seed))
        write_saved_model(build_lenet5(seed=seed), [f"class {index}" for index in range(10)], paths[-1])
        write_warmup(paths[-1], describe_signatures((28, 28, 1), 10).values(), images)
    return paths


def change_versions(sources: list[Path], model: Path, port: int, number: int) -> None:
    """Publish new versions one after the other, each when the one before answers; keep the two newest."""
    for version in range(2, 2 + number):
        temporary = model / f".0123abcd.{version}"
        shutil.copytree(sources[version % 2], temporary)
        temporary.rename(model / str(version))
        if version > 2:
            shutil.rmtree(model / str(version - 2))
        while True:
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
            connection.request("GET", f"/v1/models/{MODEL}/labels/canary/metadata")
            reply: Any = json.loads(connection.getresponse().read())
            connection.close()
            if reply.get("model_spec", {}).get("version") == str(version):
                break
            time.sleep(0.05)


def soak(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Do everything in order; return the report."""
    images = load("fashion_mnist_sample").test.images
    sources = export_versions(folder / "sources")
    model = folder / "exports" / MODEL
    shutil.copytree(sources[1], model / "1")
    record, body, chance = Record(), good_body(images), random.Random(options.seed)
    server = Server(folder / "exports", record)

    def good(phase: str, number: int) -> None:
        record.phase = phase
        more = count(number)
        together(lambda: send_good(server.rest, body, record, more), CLIENTS)

    record.phase = "largest images"
    attack_costly(server.rest, 6)
    good("first good requests", 1000)
    time.sleep(1)
    first = server.memory()
    attacks: list[tuple[str, Callable[[], None]]] = [
        ("broken-off uploads", lambda: break_off(server.rest, options.uploads)),
        ("hostile REST", lambda: attack_rest(server.rest, options.hostile * 2 // 3, chance, images)),
        ("hostile gRPC", lambda: attack_grpc(server.grpc, options.hostile // 3, chance)),
        ("idle and slow connections", lambda: attack_connections(server.rest, 2 * options.connections)),
        ("costly requests", lambda: attack_costly(server.rest, options.costly)),
        ("version changes", lambda: change_versions(sources, model, server.rest, options.versions)),
    ]
    for name, attack in attacks:
        record.phase = name
        with good_clients(server.rest, body, record):
            attack()
    good("good requests", options.good)
    time.sleep(1)
    last = server.memory()
    log = server.stop()
    phases = {
        name: {
            "requests": len(waits),
            "lost": len(record.lost.get(name, [])),
            "p99_ms": 1e3 * float(np.percentile(waits, 99)),
            "longest_ms": 1e3 * max(waits),
        }
        for name, waits in record.waits.items()
    }
    return {
        "settings": {name: value for name, value in vars(options).items() if isinstance(value, int)},
        "processor": runtime.processor(),
        "versions": runtime.versions(),
        "load_average": os.getloadavg()[0],
        "first_mib": first,
        "last_mib": last,
        "tracebacks": log.count("Traceback"),
        "phases": phases,
        "lost": {name: sorted(set(problems))[:5] for name, problems in record.lost.items()},
        "memory": [[round(second, 1), round(mib), name] for second, mib, name in record.memory[::5]],
    }


def plot(report: dict[str, Any], path: Path) -> None:
    """Draw the memory over time. All phases are equally wide, since some take seconds and others minutes."""
    from matplotlib.figure import Figure

    seconds, mib, names = (np.array(column) for column in zip(*report["memory"], strict=True))
    phases = list(dict.fromkeys(names))
    starts = np.array([seconds[names == name][0] for name in phases] + [seconds[-1]])
    figure = Figure(figsize=(9, 3.8), layout="constrained")
    axes = figure.subplots()
    axes.plot(np.interp(seconds, starts, np.arange(len(starts))), mib, color="#1f5f8b", linewidth=1.2)
    axes.axhspan(
        report["first_mib"] * (1 - TOLERANCE), report["first_mib"] * (1 + TOLERANCE), color="#1f5f8b", alpha=0.12, lw=0
    )
    for start in range(1, len(phases)):
        axes.axvline(start, color="0.85", linewidth=0.6)
    labels = [f"{name}\n{end - start:.0f} s" for name, start, end in zip(phases, starts, starts[1:], strict=False)]
    axes.set_xticks(np.arange(len(phases)) + 0.5, labels, fontsize=7, rotation=30, ha="right", rotation_mode="anchor")
    axes.tick_params(axis="x", length=0)
    axes.set(ylabel="resident memory, MiB", xlim=(0, len(phases)), ylim=(0, 1.15 * max(mib)))
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, metadata={"Date": None})


def main() -> None:
    """Run the soak; print and save what it found; end with 1 if a bound was broken."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--uploads", type=int, default=200, help="uploads that are broken off")
    parser.add_argument("--hostile", type=int, default=10_000, help="hostile requests")
    parser.add_argument("--good", type=int, default=50_000, help="good requests")
    parser.add_argument("--versions", type=int, default=100, help="version changes")
    parser.add_argument("--connections", type=int, default=500, help="half of the idle and slow connections")
    parser.add_argument("--costly", type=int, default=20, help="requests that ask for much")
    parser.add_argument("--seed", type=int, default=0, help="seed of what is random")
    parser.add_argument("--output", type=Path, help="JSON file for the report")
    parser.add_argument("--plot", type=Path, help="SVG or PNG file for the plot")
    options = parser.parse_args()
    runtime.load_tensorflow()
    with tempfile.TemporaryDirectory() as folder:
        report = soak(options, Path(folder))
    if options.output:
        options.output.write_text(json.dumps(report, indent=1) + "\n")
    if options.plot:
        plot(report, options.plot)
    print(f"{'phase':<28}{'requests':>9}{'lost':>6}{'p99 ms':>9}{'longest ms':>12}")
    for name, phase in report["phases"].items():
        figures = f"{phase['requests']:>9,}{phase['lost']:>6}{phase['p99_ms']:>9.0f}{phase['longest_ms']:>12.0f}"
        print(f"{name:<28}{figures}")
    growth = report["last_mib"] / report["first_mib"] - 1
    print(f"memory: {report['first_mib']:.0f} MiB, at the end {report['last_mib']:.0f} MiB ({100 * growth:+.1f} %)")
    print(f"tracebacks: {report['tracebacks']}")
    lost = sum(phase["lost"] for phase in report["phases"].values())
    sys.exit(growth > TOLERANCE or lost > 0 or report["tracebacks"] > 0)


if __name__ == "__main__":
    main()
