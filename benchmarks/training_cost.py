"""What a training costs, by batch size, images, epochs and processes.

    python benchmarks/training_cost.py --output docs/training_cost.json --plot docs/training_cost.svg

- Batch size: images per second of the loop, on one core and as it is by default.
- Images: seconds of an epoch, by default.
- Epochs: seconds of the whole command, from its start to its end, with the export. What remains at no epoch is the cost
  of starting, measuring and exporting.
- Processes: images per second of several runs at a time, each on one core, added up: a comparison.

Each measurement is a process of its own, and they take turns. The plot shows medians.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from peers import in_turn, loop_speed

BATCH_SIZES = (16, 32, 64, 128, 256, 512, 1024)
IMAGES = (2_048, 8_192, 19_200, 38_400)
EPOCHS = (1, 2, 4)
PROCESSES = (1, 2, 3, 4)
VARIANTS = ("none", "batch_norm")
LONG = 19_200  # images of an epoch, where they are not what is varied
CORES = {"one core": "one_device", "default": "auto"}


def speed(reg: str, strategy: str, batch_size: int, images: int) -> float | None:
    """Return the images per second of the loop, in this process."""
    from lenet_keras import TrainConfig, runtime

    runtime.load_tensorflow()
    return loop_speed(TrainConfig(reg=reg, batch_size=batch_size, strategy=strategy), images)  # type: ignore[arg-type]


def command_seconds(reg: str, epochs: int) -> float:
    """Return how long `lenet-keras train` takes in all."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "lenet_keras", "train", "--reg", reg, "--epochs", str(epochs)]
        start = time.perf_counter()
        subprocess.run(command, cwd=folder, check=True, capture_output=True)
        return time.perf_counter() - start


def measure(rounds: int) -> dict[str, Any]:
    """Return the figures of each panel: by variant and kind, the median for each value."""

    def loop(*arguments: object) -> list[str]:
        return [__file__, "--measure", "speed", *map(str, arguments)]

    def medians(commands: dict[str, list[str]], processes: int = 1) -> dict[str, float]:
        return {name: statistics.median(values) for name, values in in_turn(commands, rounds, processes).items()}

    found: dict[str, Any] = {"batch_size": {}, "images": {}, "epochs": {}, "processes": {}}
    for reg in VARIANTS:
        for kind, strategy in CORES.items():
            speeds = medians({str(size): loop(reg, strategy, size, LONG) for size in BATCH_SIZES})
            found["batch_size"][f"{reg}, {kind}"] = speeds
        speeds = medians({str(images): loop(reg, "auto", 64, images) for images in IMAGES})
        found["images"][reg] = {images: int(images) / speed for images, speed in speeds.items()}
        found["epochs"][reg] = medians(
            {str(epochs): [__file__, "--measure", "command", reg, str(epochs)] for epochs in EPOCHS}
        )
        found["processes"][reg] = {
            str(count): medians({"": loop(reg, "one_device", 64, LONG)}, count)[""] for count in PROCESSES
        }
    return found


def plot(figures: dict[str, Any], path: Path) -> None:
    """Draw the four panels."""
    from matplotlib.figure import Figure

    panels = {
        "batch_size": ("batch size", "images/s"),
        "images": ("images in an epoch", "seconds of an epoch"),
        "epochs": ("epochs of 55,000 images", "seconds of the command"),
        "processes": ("processes, one core each", "images/s, added up"),
    }
    figure = Figure(figsize=(9, 6.5), layout="constrained")
    for axes, (name, (x_label, y_label)) in zip(figure.subplots(2, 2).flat, panels.items(), strict=True):
        for label, values in figures[name].items():
            axes.plot(
                [int(value) for value in values],
                list(values.values()),
                color="#1f5f8b" if label.startswith("none") else "#c4572b",
                linestyle="--" if label.endswith("one core") else "-",
                marker="o",
                markersize=4,
                label=label,
            )
        axes.set(xlabel=x_label, ylabel=y_label)
        axes.set_ylim(bottom=0)
        if name == "batch_size":
            axes.set_xscale("log", base=2)
            axes.set_xticks(BATCH_SIZES, [str(size) for size in BATCH_SIZES])
        else:
            axes.set_xlim(left=0)
            axes.xaxis.set_major_formatter("{x:,.6g}")
        axes.yaxis.set_major_formatter("{x:,.6g}")
        axes.legend(frameon=False, fontsize=8)
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, metadata={"Date": None})


def main() -> None:
    """Measure, and draw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--output", type=Path, help="JSON file for the figures")
    parser.add_argument("--plot", type=Path, help="SVG or PNG file")
    parser.add_argument("--measure", nargs="+", help=argparse.SUPPRESS)
    options = parser.parse_args()
    match options.measure:
        case ["speed", reg, strategy, batch_size, images]:
            print(json.dumps(speed(reg, strategy, int(batch_size), int(images))))
            return
        case ["command", reg, epochs]:
            print(json.dumps(command_seconds(reg, int(epochs))))
            return

    from lenet_keras import runtime

    report = {
        "rounds": options.rounds,
        "processor": runtime.processor(),
        "versions": runtime.versions(),
        "load_average": os.getloadavg()[0],
        "figures": measure(options.rounds),
    }
    print(json.dumps(report["figures"], indent=2))
    if options.output:
        options.output.write_text(json.dumps(report, indent=2) + "\n")
    if options.plot:
        plot(report["figures"], options.plot)


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent.parent))
    main()
