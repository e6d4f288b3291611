"""Images per second of the training loop, of `model.fit`, PyTorch and JAX: same network, batch size and data.

    pip install '.[benchmark]'
    python benchmarks/training_speed.py [--reg none,dropout,batch_norm,weight_decay] [--rounds 5] [--processes 1]

Peers:

- "fit, stock": `fit` on NumPy arrays, TensorFlow out of the box.
- "fit, our settings": the same, with the environment variables that `lenet-keras` sets.
- "fit, tuned": also with `steps_per_execution`, and a tf.data pipeline that shuffles indices and gathers whole batches.
- "PyTorch", "torch.compile" and "JAX", each with one thread and with as many as there are cores: see `frameworks.py`.
- "loop, one device" and "loop": the training loop of this package, on one device and as it is by default.

Each measurement is a process of its own, since threads and kernels are fixed when a framework starts. The peers take
turns, so that a machine whose speed drifts slows all of them. It prints the median of each, and the median over the
rounds of how many times as fast the loop is. With `--processes 2`, two of each peer run at a time and their speeds are
added up: a comparison of several runs.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import statistics
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from peers import describe, in_turn, loop_speed, machine

if TYPE_CHECKING:
    import tensorflow as tf

    from lenet_keras import TrainConfig
    from lenet_keras.config import Strategy

WARM_UP_STEPS = 100
MEASURED_STEPS = 900
STEPS_PER_EXECUTION = 100
BATCH_SIZE = 64
PEERS = (
    "fit, stock",
    "fit, our settings",
    "fit, tuned",
    "PyTorch, 1 thread",
    "PyTorch",
    "torch.compile, 1 thread",
    "torch.compile",
    "JAX, 1 thread",
    "JAX",
    "loop, one device",
    "loop",
)


def measure(peer: str, dataset: str, reg: str, steps: int) -> float:
    """Return the images per second of one peer, in this process."""
    from lenet_keras import TrainConfig, runtime
    from lenet_keras.models import parse_reg

    config = TrainConfig(dataset=dataset, reg=parse_reg(reg), batch_size=BATCH_SIZE)  # type: ignore[arg-type]
    framework, _, option = peer.partition(", ")
    threads = 1 if option == "1 thread" else runtime.cores()
    if framework in ("PyTorch", "torch.compile"):
        from frameworks import torch_speed

        return torch_speed(config, steps, threads, is_compiled=framework == "torch.compile")
    if framework == "JAX":
        from frameworks import jax_speed

        if threads == 1:  # read when JAX starts
            os.environ["XLA_FLAGS"] = "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"
        return jax_speed(config, steps)
    if peer != "fit, stock":
        runtime.load_tensorflow()
    if framework == "fit":
        return fit_speed(config, steps, is_tuned=option == "tuned")
    strategy: Strategy = "one_device" if option else "auto"
    speed = loop_speed(dataclasses.replace(config, strategy=strategy), steps * BATCH_SIZE)
    assert speed is not None  # it trains alone
    return speed


def fit_speed(config: TrainConfig, steps: int, is_tuned: bool) -> float:
    """Return the images per second of `fit` in the second of two calls."""
    import numpy as np
    import tensorflow as tf

    from lenet_keras.data.load import load
    from lenet_keras.training.replicas import plain_model

    train, model = load(config.dataset).train, plain_model(config)
    if is_tuned:
        model.compile(
            optimizer=model.optimizer, loss=model.loss, metrics=["accuracy"], steps_per_execution=STEPS_PER_EXECUTION
        )
    pixels, labels = tf.constant(train.images), tf.constant(train.labels)

    def gathered(count: int) -> tf.data.Dataset:
        order = tf.data.Dataset.range(count).shuffle(count).batch(BATCH_SIZE, drop_remainder=True)
        batches = order.map(lambda chosen: (tf.cast(tf.gather(pixels, chosen), tf.float32), tf.gather(labels, chosen)))
        options = tf.data.Options()
        options.threading.private_threadpool_size = 1  # a second one costs more than it gains
        return batches.prefetch(2).with_options(options)

    images = None if is_tuned else train.images.astype(np.float32)
    for number in (WARM_UP_STEPS, steps):
        count = min(number * BATCH_SIZE, len(train.labels))
        batches = gathered(count)
        start = time.perf_counter()
        if images is None:
            model.fit(batches, verbose=0)
        else:
            model.fit(images[:count], train.labels[:count], batch_size=BATCH_SIZE, verbose=0)
        seconds = time.perf_counter() - start
    return count / seconds


def main() -> None:
    """Measure the peers in turn and print medians and ratios for each regularisation."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--reg", default="none,dropout,batch_norm,weight_decay", help="one or several, with commas")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--peers", default=";".join(PEERS), help="which, separated by semicolons; the loop among them")
    parser.add_argument("--steps", type=int, default=MEASURED_STEPS)
    parser.add_argument("--dataset", default="fashion_mnist")
    parser.add_argument("--measure", choices=PEERS, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        print(json.dumps(measure(arguments.measure, arguments.dataset, arguments.reg, arguments.steps)))
        return

    print(machine())
    print(f"LeNet-5, batch {BATCH_SIZE}, {arguments.rounds} rounds of {arguments.steps} steps", end="")
    print(f" in {arguments.processes} processes at a time" if arguments.processes > 1 else "")
    for reg in arguments.reg.split(","):
        alike = ["--dataset", arguments.dataset, "--reg", reg, "--steps", str(arguments.steps)]
        commands = {peer: [__file__, *alike, "--measure", peer] for peer in arguments.peers.split(";")}
        figures = in_turn(commands, arguments.rounds, arguments.processes)
        print(f"\n{reg}")
        for peer, values in figures.items():
            times = [ours / theirs for ours, theirs in zip(figures["loop"], values, strict=True)]
            spread = f"{statistics.median(times):.2f} ({min(times):.2f} to {max(times):.2f})"
            print(f"{peer:23} {describe(values)}; the loop is {spread} times as fast")


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent.parent))
    main()
