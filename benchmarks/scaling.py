"""Images per second of one training on one device, on two CPU devices of a process, and by two processes.

    python benchmarks/scaling.py [--reg none] [--rounds 3]

Each measurement is a process of its own, or two that are workers of each other over loopback; they take turns, so that
a machine whose speed drifts slows all of them. Printed are medians and the ratio to one device with one thread, for
each batch size: the speed-up that a second core, or a second worker, brings.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
from pathlib import Path

IMAGES = 38_400  # of an epoch; the second one is measured
BATCH_SIZES = (64, 256, 1024)
PEERS = {
    "one device": {"strategy": "one_device"},
    "two CPU devices": {"devices": "CPU:0,CPU:1"},
    "two workers": {"strategy": "multi_worker"},
}


def measure(peer: str, reg: str, batch_size: int) -> float | None:
    """Images per second of one peer, in this process; None in a worker that is not the chief."""
    from lenet_keras import runtime

    runtime.load_tensorflow()

    from lenet_keras import TrainConfig
    from lenet_keras.checkpoint import EpochProgress
    from lenet_keras.data import Split, load
    from lenet_keras.distribution.cluster import find_cluster
    from lenet_keras.distribution.placement import place
    from lenet_keras.distribution.rendezvous import meet
    from lenet_keras.training.compiled import compile_model, compiled_model
    from lenet_keras.training.loop import TrainingLoop
    from lenet_keras.training.replicas import training_model

    config = TrainConfig(reg=reg, batch_size=batch_size, **PEERS[peer])  # type: ignore[arg-type]
    cluster = find_cluster(config.strategy)
    if cluster is not None:
        meet(cluster, {}, 60, print)
    placement = place(config, cluster)
    dataset = load("fashion_mnist")
    plain = compiled_model(config, dataset)
    with placement.strategy.scope():
        model = training_model(plain, placement.replicas)
        compile_model(model, config)
    images, labels = dataset.train.images[:IMAGES], dataset.train.labels[:IMAGES]
    loop = TrainingLoop(model, Split(images, labels), batch_size, placement.strategy)
    for epoch in (0, 1):
        order, progress = loop.order(0, epoch), EpochProgress()
        while progress.step < loop.steps:
            progress = loop.advance(order, progress, loop.steps)
    return loop.steps * batch_size / progress.seconds if placement.workers.is_chief else None


def main() -> None:
    """Measure the peers in turn and print medians and ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--reg", default="none")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--measure", choices=PEERS, help=argparse.SUPPRESS)
    parser.add_argument("--batch-size", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        from lenet_keras.distribution.local_workers import run_local_workers

        if arguments.measure == "two workers" and "TF_CONFIG" not in os.environ:
            sys.exit(run_local_workers([sys.executable, *sys.argv], 2))
        speed = measure(arguments.measure, arguments.reg, arguments.batch_size)
        if speed is not None:
            print(json.dumps(speed))
        return

    from lenet_keras import runtime

    versions = runtime.versions()
    print(f"{runtime.processor()}; TensorFlow {versions['tensorflow']}, Keras {versions['keras']}")
    print(f"LeNet-5, {arguments.reg}, {arguments.rounds} rounds of {IMAGES:,} images")
    for batch_size in BATCH_SIZES:
        figures: dict[str, list[float]] = {peer: [] for peer in PEERS}
        for _ in range(arguments.rounds):
            for peer in PEERS:
                command = [sys.executable, __file__, "--reg", arguments.reg]
                command += ["--batch-size", str(batch_size), "--measure", peer]
                answer = subprocess.run(command, capture_output=True, text=True, check=True)
                figures[peer].append(json.loads(answer.stdout.splitlines()[-1]))
        one = statistics.median(figures["one device"])
        for peer, values in figures.items():
            median = statistics.median(values)
            figure = f"{median:8,.0f} images/s ({min(values):,.0f} to {max(values):,.0f})"
            print(f"batch {batch_size:4}  {peer:15} {figure}; {median / one:.2f} of one device")


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent.parent))
    main()
