"""Images per second of the training loop against `model.fit` on NumPy arrays: same model, batch size and data.

    python benchmarks/training_speed.py [--reg none] [--rounds 3]

Each measurement is a process of its own, since threads and kernels are settled when TensorFlow starts; they take turns,
so that a machine whose speed drifts slows all of them. "fit, stock" is TensorFlow as it comes; "fit, our settings" has
the environment that `lenet-keras` sets up. Printed are the median of each and the ratios of the medians.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from pathlib import Path

from peers import in_turn, loop_speed, machine, shown

WARM_UP_STEPS = 50
MEASURED_STEPS = 600
BATCH_SIZE = 64
PEERS = ("fit, stock", "fit, our settings", "loop")


def measure(peer: str, reg: str) -> float:
    """Images per second of one peer, in this process."""
    if peer != "fit, stock":
        from lenet_keras import runtime

        runtime.load_tensorflow()
    import numpy as np

    from lenet_keras import TrainConfig
    from lenet_keras.data import load
    from lenet_keras.training.compiled import compiled_model

    config = TrainConfig(reg=reg, batch_size=BATCH_SIZE, strategy="one_device")
    if peer == "loop":
        speed = loop_speed(config, MEASURED_STEPS * BATCH_SIZE)
        assert speed is not None  # it trains alone
        return speed
    dataset = load(config.dataset)
    train, model = dataset.train, compiled_model(config, dataset)
    images = train.images.astype(np.float32)
    for steps in (WARM_UP_STEPS, MEASURED_STEPS):
        begun = time.perf_counter()
        count = steps * BATCH_SIZE
        model.fit(images[:count], train.labels[:count], batch_size=BATCH_SIZE, verbose=0)
        seconds = time.perf_counter() - begun
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
        print(f"{peer:18} {shown(values)}; the loop is {times:.2f} times as fast")


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent.parent))
    main()
