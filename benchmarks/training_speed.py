"""Images per second of the training loop and of `model.fit`: same model, batch size and data.

    python benchmarks/training_speed.py [--reg none] [--rounds 3]

Peers, all on one device:

- "fit, stock": `fit` on NumPy arrays, TensorFlow out of the box.
- "fit, our settings": the same, with the environment variables that `lenet-keras` sets.
- "fit, tuned": also with `steps_per_execution`, and a tf.data pipeline that shuffles indices and gathers whole batches.
- "loop": the training loop of this package.

Each measurement is a process of its own, since threads and kernels are fixed when TensorFlow starts. The peers take
turns, so that a machine whose speed drifts slows all of them. It prints the median of each, and ratios of medians.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from peers import describe, in_turn, loop_speed, machine

if TYPE_CHECKING:
    import tensorflow as tf

    from lenet_keras import TrainConfig

WARM_UP_STEPS = 100
MEASURED_STEPS = 600
STEPS_PER_EXECUTION = 100
BATCH_SIZE = 64
PEERS = ("fit, stock", "fit, our settings", "fit, tuned", "loop")


def measure(peer: str, reg: str) -> float:
    """Return the images per second of one peer, in this process."""
    if peer != "fit, stock":
        from lenet_keras import runtime

        runtime.load_tensorflow()

    from lenet_keras import TrainConfig
    from lenet_keras.models import parse_reg

    config = TrainConfig(reg=parse_reg(reg), batch_size=BATCH_SIZE, strategy="one_device")
    if peer == "loop":
        speed = loop_speed(config, MEASURED_STEPS * BATCH_SIZE)
        assert speed is not None  # it trains alone
        return speed
    return fit_speed(config, is_tuned=peer == "fit, tuned")


def fit_speed(config: TrainConfig, is_tuned: bool) -> float:
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
    for steps in (WARM_UP_STEPS, MEASURED_STEPS):
        count = steps * BATCH_SIZE
        batches = gathered(count)
        start = time.perf_counter()
        if images is None:
            model.fit(batches, verbose=0)
        else:
            model.fit(images[:count], train.labels[:count], batch_size=BATCH_SIZE, verbose=0)
        seconds = time.perf_counter() - start
    return count / seconds


def main() -> None:
    """Measure the peers in turn and print medians and ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--reg", default="none")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--measure", choices=PEERS, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        print(json.dumps(measure(arguments.measure, arguments.reg)))
        return

    commands = {peer: [__file__, "--reg", arguments.reg, "--measure", peer] for peer in PEERS}
    figures = in_turn(commands, arguments.rounds)
    print(machine())
    print(f"LeNet-5, {arguments.reg}, batch {BATCH_SIZE}, {arguments.rounds} rounds of {MEASURED_STEPS} steps")
    loop = statistics.median(figures["loop"])
    for peer, values in figures.items():
        times = loop / statistics.median(values)
        print(f"{peer:18} {describe(values)}; the loop is {times:.2f} times as fast")


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent.parent))
    main()
