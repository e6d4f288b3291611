"""Names of devices, and how many of them share a batch."""

from __future__ import annotations

import re

from lenet_keras.errors import InvalidArgument
from lenet_keras.models.variants import shown

# On CPUs, a device with fewer images a step spends more on the sharing than it saves (docs/scaling.md).
LEAST_IMAGES_PER_CPU_DEVICE = 32
LARGEST_INDEX = 255
_DEVICE = re.compile(r"(CPU|GPU):(\d{1,3})", re.IGNORECASE)


def parse_devices(text: str) -> tuple[str, ...]:
    """The devices in `text`: "gpu:0, gpu:1" is ("GPU:0", "GPU:1").

    Raises:
        InvalidArgument: no list of devices, one twice, or CPUs and GPUs mixed.
    """
    devices = []
    for word in text.split(","):
        match = _DEVICE.fullmatch(word.strip())
        if match is None or int(match[2]) > LARGEST_INDEX:
            raise InvalidArgument(f"devices must be names like GPU:0,GPU:1 or CPU:0,CPU:1. Received: {shown(text)}")
        devices.append(f"{match[1].upper()}:{int(match[2])}")
    if len(set(devices)) < len(devices):
        raise InvalidArgument(f"devices must differ from each other. Received: {shown(text)}")
    if len({device[:3] for device in devices}) > 1:
        raise InvalidArgument(f"devices must be all CPUs or all GPUs. Received: {shown(text)}")
    return tuple(devices)


def cpu_devices_for(batch_size: int, most: int) -> int:
    """How many CPU devices, at most `most`, share a batch fastest: the shares are equal, and none is too small."""
    counts = range(1, max(1, min(most, batch_size // LEAST_IMAGES_PER_CPU_DEVICE)) + 1)
    return max(count for count in counts if batch_size % count == 0)


def check_divisible(batch_size: int, replicas: int) -> None:
    """See whether `replicas` can share a batch equally.

    Raises:
        InvalidArgument: they cannot; it names the nearest batch sizes that they can.
    """
    if batch_size % replicas:
        below = batch_size - batch_size % replicas
        nearest = f"{below} or {below + replicas}" if below else f"{replicas}"
        raise InvalidArgument(
            f"a batch of {batch_size} images cannot be shared equally by {replicas} devices. "
            f"The nearest batch size that can is {nearest}."
        )
