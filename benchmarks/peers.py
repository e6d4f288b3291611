"""What the training benchmarks share: measuring the loop, peers that take turns, describing figures."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lenet_keras import TrainConfig
    from lenet_keras.training.loop import TrainingLoop


def loop_speed(config: TrainConfig, images: int) -> float | None:
    """Return images per second of the loop in the second of two epochs; None in a worker that is not the chief."""
    from lenet_keras.data.arrays import Split
    from lenet_keras.data.load import load
    from lenet_keras.distribution.cluster import find_cluster
    from lenet_keras.distribution.join import join, lead
    from lenet_keras.distribution.strategy import bypassing_proxies, place
    from lenet_keras.training.loop import TrainingLoop
    from lenet_keras.training.replicas import training_model

    cluster = find_cluster(config.strategy)
    if cluster is not None and cluster.is_chief:
        lead(cluster, {}, b"", 60)
    elif cluster is not None:
        join(cluster, {}, 60)
    with bypassing_proxies(cluster):
        placement = place(config, cluster)
        train = load(config.dataset).train
        model = training_model(config, placement)
        split = Split(train.images[:images], train.labels[:images])
        loop = TrainingLoop(model, split, config.batch_size, placement.strategy, cores=placement.cores)
        _, speed = (epoch_speed(loop, epoch) for epoch in (0, 1))
    return speed if placement.workers.is_chief else None


def epoch_speed(loop: TrainingLoop, epoch: int = 0) -> float:
    """Return the images per second of an epoch."""
    from lenet_keras.checkpoint import EpochProgress

    order, progress = loop.order(0, epoch), EpochProgress()
    while progress.step < loop.steps:
        progress = loop.advance(order, progress, loop.steps)
    return loop.steps * loop.batch_size / progress.seconds


def loop_over_noise(config: TrainConfig, steps: int, cores: int = 1) -> TrainingLoop:
    """Return a loop over random images, on one device, whose epoch has `steps` steps."""
    import numpy as np
    import tensorflow as tf

    from lenet_keras.data.arrays import Split
    from lenet_keras.training.loop import TrainingLoop
    from lenet_keras.training.replicas import plain_model

    noise, count = np.random.default_rng(0), steps * config.batch_size
    split = Split(noise.integers(0, 256, (count, 28, 28, 1), np.uint8), noise.integers(0, 10, count))
    strategy = tf.distribute.OneDeviceStrategy("CPU:0")
    return TrainingLoop(plain_model(config), split, config.batch_size, strategy, cores=cores)


def in_turn(commands: Mapping[str, Sequence[str]], rounds: int, processes: int = 1) -> dict[str, list[Any]]:
    """Run each peer's Python program in turn, `rounds` times; return the figures that it prints last.

    With several `processes`, so many of a peer run at a time, and their figures are added up.
    """
    figures: dict[str, list[Any]] = {peer: [] for peer in commands}
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}

    def run(command: Sequence[str]) -> Any:
        answer = subprocess.run([sys.executable, *command], capture_output=True, text=True, env=environment)
        if answer.returncode:
            sys.exit(f"{' '.join(command)} failed:\n{answer.stderr}")
        return json.loads(answer.stdout.splitlines()[-1])

    with ThreadPoolExecutor(processes) as pool:
        for _ in range(rounds):
            for peer, command in commands.items():
                found = list(pool.map(run, [command] * processes))
                figures[peer].append(sum(found) if processes > 1 else found[0])
    return figures


def describe(figures: Sequence[float]) -> str:
    """Return median and spread in images per second."""
    return f"{statistics.median(figures):8,.0f} images/s ({min(figures):,.0f} to {max(figures):,.0f})"


def machine() -> str:
    """Return processor and versions in one line."""
    from lenet_keras import runtime

    versions = runtime.versions()
    return f"{runtime.processor()}; TensorFlow {versions['tensorflow']}, Keras {versions['keras']}"
