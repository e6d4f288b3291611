"""Images per second of training on one core, on two, on two CPU devices in one process, and in two processes.

    python benchmarks/scaling.py [--reg none] [--rounds 3]

Each measurement is a process of its own, or two workers that communicate over loopback. The peers take turns, so that a
machine whose speed drifts slows all of them. It prints medians and ratios to one core, for each batch size: what a
second core or a second worker brings.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
from pathlib import Path

from peers import describe, in_turn, loop_speed, machine

IMAGES = 38_400  # of an epoch; the second one is measured
BATCH_SIZES = (64, 256, 1024)
PEERS = {
    "one core": {"strategy": "one_device"},
    "two cores": {"strategy": "cores"},
    "two CPU devices": {"devices": "CPU:0,CPU:1"},
    "two workers": {"strategy": "multi_worker"},
}


def measure(peer: str, reg: str, batch_size: int) -> float | None:
    """Return images per second of one peer, in this process; None in a worker that is not the chief."""
    from lenet_keras import runtime

    runtime.load_tensorflow()

    from lenet_keras import TrainConfig

    return loop_speed(TrainConfig(reg=reg, batch_size=batch_size, **PEERS[peer]), IMAGES)  # type: ignore[arg-type]


def main() -> None:
    """Measure the peers in turn and print medians and ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--reg", default="none")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--measure", choices=PEERS, help=argparse.SUPPRESS)
    parser.add_argument("--batch-size", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        from lenet_keras.distribution.local import run_local_workers

        if arguments.measure == "two workers" and "TF_CONFIG" not in os.environ:
            sys.exit(run_local_workers([sys.executable, *sys.argv], 2))
        speed = measure(arguments.measure, arguments.reg, arguments.batch_size)
        if speed is not None:
            print(json.dumps(speed))
        return

    print(machine())
    print(f"LeNet-5, {arguments.reg}, {arguments.rounds} rounds of {IMAGES:,} images")
    for batch_size in BATCH_SIZES:
        options = ["--reg", arguments.reg, "--batch-size", str(batch_size)]
        figures = in_turn({peer: [__file__, *options, "--measure", peer] for peer in PEERS}, arguments.rounds)
        one = statistics.median(figures["one core"])
        for peer, values in figures.items():
            times = statistics.median(values) / one
            print(f"batch {batch_size:4}  {peer:15} {describe(values)}; {times:.2f} of one core")


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent.parent))
    main()
