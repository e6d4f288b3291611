"""What the faster training step gains: the loop with and without it, in turn in one process.

    python benchmarks/fast_step.py [--reg none,batch_norm] [--cores 2] [--batch-size 64] [--rounds 25]

A burst of 100 steps with Keras's layers, one with the convolutions of `lenet_keras.training.convolution`, and one with
the batch normalisation of `lenet_keras.training.fast_step` as well take turns. It prints medians of images per second,
and of how many times as fast as the first of its round a burst was, with the quartiles.

oneDNN looks at `ONEDNN_MAX_CPU_ISA`: with AVX2 it takes the kernels of a processor without AVX-512. With
`TF_ENABLE_ONEDNN_OPTS=0`, TensorFlow does without it.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import statistics
import sys
from pathlib import Path
from typing import TYPE_CHECKING
from unittest import mock

from peers import epoch_speed, loop_over_noise, machine

if TYPE_CHECKING:
    from lenet_keras import TrainConfig
    from lenet_keras.training.loop import TrainingLoop

STEPS = 100
ONEDNN = "TF_ENABLE_ONEDNN_OPTS"
FAST_STEP = "lenet_keras.training.fast_step"
# What is left to Keras.
WAYS = {
    "Keras's layers": ("faster_convolution", "_is_replaced"),
    "convolutions": ("_is_replaced",),
    "and batch normalisation": (),
}


def prepare(config: TrainConfig, cores: int, left: tuple[str, ...]) -> TrainingLoop:
    """Return a loop whose step leaves some layers to Keras."""
    with contextlib.ExitStack() as patches:
        for name in left:
            patches.enter_context(mock.patch(f"{FAST_STEP}.{name}", return_value=None))
        return loop_over_noise(config, STEPS, cores)


def main() -> None:
    """Measure each variant and print the outcome."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--reg", default="none,batch_norm")
    parser.add_argument("--cores", type=int, default=2)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=25)
    arguments = parser.parse_args()
    from lenet_keras import TrainConfig, runtime
    from lenet_keras.models import parse_reg

    limits = [f"{name}={os.environ[name]}" for name in ("ONEDNN_MAX_CPU_ISA", ONEDNN) if name in os.environ]
    os.environ["TF_NUM_INTEROP_THREADS"] = str(arguments.cores)
    runtime.load_tensorflow()
    print(machine(), *limits, sep="; ")
    print(
        f"LeNet-5, batch {arguments.batch_size}, {arguments.rounds} rounds of {STEPS} steps, cores: {arguments.cores}"
    )
    for reg in arguments.reg.split(","):
        config = TrainConfig(reg=parse_reg(reg), batch_size=arguments.batch_size)
        ways = WAYS if "batch_norm" in config.reg else {way: left for way, left in WAYS.items() if left}
        loops = {way: prepare(config, arguments.cores, left) for way, left in ways.items()}
        # The first round warms up.
        rounds = [[epoch_speed(loop) for loop in loops.values()] for _ in range(arguments.rounds + 1)][1:]
        print(f"\n{reg}")
        for way, speeds in zip(loops, zip(*rounds, strict=True), strict=True):
            times = [one / first[0] for one, first in zip(speeds, rounds, strict=True)]
            low, median, high = statistics.quantiles(times, n=4)
            print(f"{way:24} {statistics.median(speeds):7,.0f} images/s; {median:.2f} times ({low:.2f} to {high:.2f})")


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent.parent))
    main()
