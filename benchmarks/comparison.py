"""Images per second of a comparison, against as many separate trainings of one core each, and the memory of each.

    python benchmarks/comparison.py [--reg none] [--epochs 4] [--rounds 3]

A comparison trains as many runs at a time as there are cores. Its peer is what a user would do without it: a
`lenet-keras train` for each core, bound to that core, all started together. Figures add up the runs of a round, each
with the median of its epochs after the first; the epochs are long beside starting and ending.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from peers import describe, in_turn, machine

PEERS = ("separate trainings", "comparison")


def measure(peer: str, reg: str, epochs: int) -> dict[str, float]:
    """Return images per second of all runs together, and the memory of the largest process in GB."""
    cores = sorted(os.sched_getaffinity(0))
    program = [sys.executable, "-m", "lenet_keras_cli"]
    with tempfile.TemporaryDirectory() as folder:
        alike = ["--reg", reg, "--epochs", str(epochs)]
        if peer == "comparison":
            chosen = [*alike, "--seeds", str(len(cores)), "--jobs", str(len(cores)), "--out", folder]
            subprocess.run([*program, "compare", *chosen], check=True, stdout=subprocess.DEVNULL)
        else:
            chosen = [*alike, "--strategy", "one_device", "--record-test", "--no-export"]
            trainings = []
            for index, core in enumerate(cores):
                command = ["taskset", "--cpu-list", str(core), *program, "train", *chosen]
                command += ["--seed", str(index), "--run-dir", f"{folder}/{index}"]
                trainings.append(subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL))
            for training in trainings:
                if training.wait():
                    sys.exit("a training failed")
        speeds = [_speed(path) for path in Path(folder).rglob("history.csv")]
    assert len(speeds) == len(cores)
    memory = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1e6
    return {"images_per_second": sum(speeds), "gigabytes": memory}


def _speed(history: Path) -> float:
    head, *rows = (line.split(",") for line in history.read_text().splitlines())
    column = head.index("images_per_second")
    return statistics.median(float(row[column]) for row in rows[1:])


def main() -> None:
    """Measure both in turn and print medians and their ratio."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--reg", default="none")
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--measure", choices=PEERS, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        print(json.dumps(measure(arguments.measure, arguments.reg, arguments.epochs)))
        return

    print(machine())
    print(f"LeNet-5, {arguments.reg}, {arguments.rounds} rounds of {arguments.epochs} epochs on each core")
    alike = ["--reg", arguments.reg, "--epochs", str(arguments.epochs)]
    found = in_turn({peer: [__file__, "--measure", peer, *alike] for peer in PEERS}, arguments.rounds)
    speeds = {peer: [one["images_per_second"] for one in figures] for peer, figures in found.items()}
    for peer, values in speeds.items():
        ratio = statistics.median(values) / statistics.median(speeds[PEERS[0]])
        memory = max(one["gigabytes"] for one in found[peer])
        print(f"{peer:20}{describe(values)}; {ratio:.2f} of {PEERS[0]}; at most {memory:.2f} GB in a process")


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent.parent))
    main()
