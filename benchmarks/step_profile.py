"""Where a training step goes: milliseconds, share and GFLOP/s of each operation, on one thread.

    python benchmarks/step_profile.py [--reg batch_norm] [--activation tanh] [--pooling average] [--batch-size 64]

TensorFlow's profiler records 50 steps of the training loop. An operation's time is that of its fastest execution,
which no other program has interrupted. GFLOP/s are of the convolutions and products of the layers, beside the
machine's peak: the best of several products of two float32 matrices of 512 x 512. With `--plain`, the step calls
the model as Keras computes it, without the faster batch normalisation of `lenet_keras.training.fast_step`.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import math
import os
import re
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest import mock

from peers import epoch_speed, loop_over_noise, machine

if TYPE_CHECKING:
    import keras

    from lenet_keras import TrainConfig

STEPS = 50
PEAK_SIDE = 512
SHOWN = 0.005  # of a step; smaller operations are added up


def record(config: TrainConfig, is_plain: bool) -> tuple[keras.Model, dict[str, list[float]]]:
    """Return the trained model, and the milliseconds of each execution of each operation in `STEPS` steps."""
    import tensorflow as tf

    def plain_call(model: keras.Model, parts: int) -> Callable[[tf.Tensor], tf.Tensor]:  # noqa: ARG001
        return functools.partial(model, training=True)

    keras_step = mock.patch("lenet_keras.training.loop.training_call", plain_call)
    with keras_step if is_plain else contextlib.nullcontext():
        loop = loop_over_noise(config, STEPS)
    epoch_speed(loop)  # warms up
    with tempfile.TemporaryDirectory() as folder:
        tf.profiler.experimental.start(folder)
        epoch_speed(loop)
        tf.profiler.experimental.stop()
        (trace,) = Path(folder).rglob("*.xplane.pb")
        return loop.model, durations(trace.read_bytes())


def durations(trace: bytes) -> dict[str, list[float]]:
    """Return the milliseconds of the host's events by name.

    The file is a message XSpace (openxla/xla, xla/tsl/profiler/protobuf/xplane.proto); TensorFlow's public API has no
    class for it. Of its fields: XSpace.planes 1; XPlane.name 2, lines 3, event_metadata 4 (a map: key 1, value 2);
    XLine.events 4; XEvent.metadata_id 1, duration_ps 3; XEventMetadata.name 2.
    """
    found: dict[str, list[float]] = defaultdict(list)
    for _, plane in fields(memoryview(trace)):
        parts = list(fields(plane))
        if not any(number == 2 and b"host:CPU" in bytes(value) for number, value in parts):
            continue
        entries = [dict(fields(value)) for number, value in parts if number == 4]
        names = {entry[1]: bytes(dict(fields(entry[2])).get(2, b"")).decode() for entry in entries}
        for line in (value for number, value in parts if number == 3):
            for event in (dict(fields(value)) for number, value in fields(line) if number == 4):
                found[names[event[1]]].append(event.get(3, 0) / 1e9)
    return found


def fields(message: memoryview) -> Iterator[tuple[int, Any]]:
    """Yield number and value of each field of a protobuf message: integers, and the bytes of everything else."""
    position = 0

    def varint() -> int:
        nonlocal position
        value = shift = 0
        while True:
            byte = message[position]
            position += 1
            value |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                return value

    while position < len(message):
        key = varint()
        if key & 7 == 0:
            yield key >> 3, varint()
            continue
        length = {1: 8, 5: 4}.get(key & 7) or varint()
        yield key >> 3, message[position : position + length]
        position += length


def flops(model: keras.Model, name: str, batch_size: int) -> float | None:
    """Return the floating-point operations of one of a layer's convolutions or products; None for all else."""
    if not re.search("conv|matmul", name.rpartition(":")[2], re.IGNORECASE):
        return None
    for layer in model.layers:
        if hasattr(layer, "kernel") and re.search(rf"/{layer.name}(_\d+)?/", name):
            count: float = 2.0 * batch_size * math.prod([*layer.output.shape[1:-1], *layer.kernel.shape])
            return count
    return None


def peak() -> float:
    """Return the GFLOP/s of the fastest of 100 products of float32 matrices."""
    import tensorflow as tf

    matrix = tf.random.normal((PEAK_SIDE, PEAK_SIDE))
    seconds = []
    for _ in range(100):
        start = time.perf_counter()
        tf.matmul(matrix, matrix).numpy()
        seconds.append(time.perf_counter() - start)
    return 2 * PEAK_SIDE**3 / min(seconds) / 1e9


def main() -> None:
    """Record a step and print its operations, the longest first."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--reg", default="none")
    parser.add_argument("--activation", default="relu")
    parser.add_argument("--pooling", default="max")
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--plain", action="store_true", help="the step as Keras computes it")
    arguments = parser.parse_args()
    os.environ |= {"TF_NUM_INTRAOP_THREADS": "1", "TF_NUM_INTEROP_THREADS": "1"}

    from lenet_keras import runtime

    runtime.load_tensorflow()

    from lenet_keras import TrainConfig

    chosen = {name: value for name, value in vars(arguments).items() if name != "plain"}
    model, found = record(TrainConfig(**chosen), arguments.plain)
    # An operation of the step is named "while/body/…:kind"; the others are of the call as a whole.
    times = {name: min(each) for name, each in found.items() if "/body/" in name and ":" in name}
    step, fastest = sum(times.values()), peak()
    print(machine())
    print(f"a step: {step:.2f} ms in {len(times)} operations; peak of a product: {fastest:.0f} GFLOP/s")
    print(f"{'ms':>7} {'share':>6} {'GFLOP/s':>8}  operation")
    shown = [name for name in sorted(times, key=lambda name: -times[name]) if times[name] >= SHOWN * step]
    for name in shown:
        work = flops(model, name, arguments.batch_size)
        speed = f"{work / times[name] / 1e6:8.1f}" if work else " " * 8
        where = re.sub(r"while/(body/_\d+/)?|lenet5(_\d+)?/", "", name)
        print(f"{times[name]:7.3f} {times[name] / step:6.1%} {speed}  {where}")
    rest = step - sum(times[name] for name in shown)
    print(f"{rest:7.3f} {rest / step:6.1%} {'':8}  {len(times) - len(shown)} smaller ones")


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent.parent))
    main()
