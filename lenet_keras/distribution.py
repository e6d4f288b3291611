"""From the name of a strategy to a tf.distribute strategy."""

from __future__ import annotations

from dataclasses import dataclass

import tensorflow as tf

from lenet_keras.config import STRATEGIES
from lenet_keras.models.variants import check_choice


@dataclass(frozen=True)
class Placement:
    """A strategy, where it computes ("/GPU:0"), what that device is called, and why it was chosen."""

    strategy: tf.distribute.Strategy
    device: str
    device_name: str
    reason: str


def place(name: str) -> Placement:
    """The strategy called `name`, one of `lenet_keras.config.STRATEGIES`.

    "one_device" is the first GPU, or the CPU where there is none; "auto" is "one_device".

    Raises:
        InvalidArgument: an unknown name.
    """
    check_choice("strategy", name, STRATEGIES)
    gpus = tf.config.list_physical_devices("GPU")
    if gpus:
        details = tf.config.experimental.get_device_details(gpus[0])
        device, device_name, reason = "/GPU:0", str(details.get("device_name", "GPU")), "the first GPU"
    else:
        device, device_name, reason = "/CPU:0", "CPU", "no GPU was found"
    return Placement(tf.distribute.OneDeviceStrategy(device), device, device_name, reason)
