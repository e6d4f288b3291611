"""Images per second of the training loop against `model.fit` on NumPy arrays: same model, batch size and data.

    python benchmarks/training_speed.py [--reg none] [--rounds 3]

Each measurement is a process of its own, since threads and kernels are settled when TensorFlow starts; they take turns,
so that a machine whose speed drifts slows all of them. "fit, stock" is TensorFlow as it comes; "fit, our settings" has
the environment that `lenet-keras` sets up. Printed are the median of each and the ratios of the medians.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

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
    from lenet_keras.checkpoint import EpochProgress
    from lenet_keras.data import Split, load
    from lenet_keras.distribution.placement import place
    from lenet_keras.training.compiled import compiled_model
    from lenet_keras.training.loop import TrainingLoop

    dataset = load("fashion_mnist")
    train = dataset.train
    strategy = place(TrainConfig(strategy="one_device")).strategy
    model = compiled_model(TrainConfig(reg=reg), dataset)
    if peer == "loop":
        size = MEASURED_STEPS * BATCH_SIZE
        loop = TrainingLoop(model, Split(train.images[:size], train.labels[:size]), BATCH_SIZE, strategy)
        for epoch in (0, 1):  # the second is measured
            order, progress = loop.order(0, epoch), EpochProgress()
            while progress.step < loop.steps:
                progress = loop.advance(order, progress, loop.steps)
        return size / progress.seconds
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

    from lenet_keras import runtime

    figures: dict[str, list[float]] = {peer: [] for peer in PEERS}
    for _ in range(arguments.rounds):
        for peer in PEERS:
            command = [sys.executable, __file__, "--reg", arguments.reg, "--measure", peer]
            environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}
            answer = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
            figures[peer].append(json.loads(answer.stdout.splitlines()[-1]))
    versions = runtime.versions()
    print(f"{runtime.processor()}; TensorFlow {versions['tensorflow']}, Keras {versions['keras']}")
    print(f"LeNet-5, {arguments.reg}, batch {BATCH_SIZE}, {arguments.rounds} rounds of {MEASURED_STEPS} steps")
    loop = statistics.median(figures["loop"])
    for peer, values in figures.items():
        median = statistics.median(values)
        spread = f"{min(values):,.0f} to {max(values):,.0f}"
        print(f"{peer:18} {median:8,.0f} images/s ({spread}); the loop is {loop / median:.2f} times as fast")


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent.parent))
    main()
