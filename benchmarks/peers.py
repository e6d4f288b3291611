"""What the benchmarks of training share: one measurement of the loop, peers that take turns, how figures are shown."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lenet_keras import TrainConfig


def loop_speed(config: TrainConfig, images: int) -> float | None:
    """Images per second of the loop in the second of two epochs; None in a worker that is not the chief."""
    from lenet_keras.checkpoint import EpochProgress
    from lenet_keras.data import Split, load
    from lenet_keras.distribution.cluster import find_cluster
    from lenet_keras.distribution.placement import place
    from lenet_keras.distribution.rendezvous import meet
    from lenet_keras.training.compiled import compiled_model, trained_copy
    from lenet_keras.training.loop import TrainingLoop

    cluster = find_cluster(config.strategy)
    if cluster is not None:
        meet(cluster, {}, 60, print)
    placement = place(config, cluster)
    dataset = load(config.dataset)
    model = trained_copy(compiled_model(config, dataset), config, placement)
    split = Split(dataset.train.images[:images], dataset.train.labels[:images])
    loop = TrainingLoop(model, split, config.batch_size, placement.strategy)
    for epoch in (0, 1):
        order, progress = loop.order(0, epoch), EpochProgress()
        while progress.step < loop.steps:
            progress = loop.advance(order, progress, loop.steps)
    return loop.steps * config.batch_size / progress.seconds if placement.workers.is_chief else None


def in_turn(commands: Mapping[str, Sequence[str]], rounds: int) -> dict[str, list[float]]:
    """The figure that each peer's Python program prints last, so many times; each run is a process of its own."""
    figures: dict[str, list[float]] = {peer: [] for peer in commands}
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}
    for _ in range(rounds):
        for peer, command in commands.items():
            answer = subprocess.run(
                [sys.executable, *command], capture_output=True, text=True, check=True, env=environment
            )
            figures[peer].append(json.loads(answer.stdout.splitlines()[-1]))
    return figures


def shown(figures: Sequence[float]) -> str:
    """Median and spread in images per second."""
    return f"{statistics.median(figures):8,.0f} images/s ({min(figures):,.0f} to {max(figures):,.0f})"


def machine() -> str:
    """Processor and versions, one line."""
    from lenet_keras import runtime

    versions = runtime.versions()
    return f"{runtime.processor()}; TensorFlow {versions['tensorflow']}, Keras {versions['keras']}"
