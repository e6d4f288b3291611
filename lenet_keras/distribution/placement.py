"""From settings to a tf.distribute strategy."""

from __future__ import annotations

import contextlib
import faulthandler
import os
import signal
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tensorflow as tf

from lenet_keras.config import TrainConfig
from lenet_keras.distribution.cluster import Cluster
from lenet_keras.distribution.devices import check_divisible, cpu_devices_for, parse_devices
from lenet_keras.distribution.workers import Workers
from lenet_keras.errors import InvalidArgument, LenetKerasError, first_line
from lenet_keras.runtime import cores

# TensorFlow connects workers that have met in less than a second. Should one be killed just then, it would wait for an
# hour, and let no Python run; this ends the process.
_CONNECTING = 60.0


@dataclass(frozen=True)
class Placement:
    """Where a training runs.

    Attributes:
        name: the strategy, one of `lenet_keras.config.STRATEGIES` but "auto".
        strategy: tf.distribute's.
        devices: this process's, as "GPU:0".
        device_name: what such a device is called.
        reason: why it was chosen.
        workers: the processes that train together.
    """

    name: str
    strategy: tf.distribute.Strategy
    devices: tuple[str, ...]
    device_name: str
    reason: str
    workers: Workers

    @property
    def replicas(self) -> int:
        """The devices of all workers; each trains an equal share of a batch."""
        return int(self.strategy.num_replicas_in_sync)

    def describe(self, batch_size: int) -> str:
        """All of it in one line for people."""
        where = ", ".join(self.devices) if len(self.devices) <= 4 else f"{self.devices[0]} to {self.devices[-1]}"
        if self.workers.count > 1:
            where = f"{self.workers.count} workers on {where}"
        share = f", {batch_size // self.replicas} images of a batch each" if self.replicas > 1 else ""
        called = f" ({self.device_name})" if self.device_name != "CPU" else ""
        return f"strategy: {self.name}, {where}{called}{share}; {self.reason}"

    def to_json(self) -> dict[str, Any]:
        """What config.json says of it."""
        return {
            "strategy": self.name,
            "workers": self.workers.count,
            "replicas": self.replicas,
            "devices": list(self.devices),
            "device_name": self.device_name,
            "reason": self.reason,
        }


def cpu_devices_before(record: dict[str, Any]) -> int | None:
    """How many CPU devices of one process a run was trained on, by its config.json; None for anything else."""
    placement = record.get("placement")
    if not isinstance(placement, dict) or placement.get("workers") != 1:
        return None
    devices = placement.get("devices")
    if not isinstance(devices, list) or not all(str(device).startswith("CPU:") for device in devices):
        return None
    return len(devices) or None


def place(config: TrainConfig, cluster: Cluster | None = None, cpu_devices: int | None = None) -> Placement:
    """The placement that `config.strategy` and `config.devices` ask for.

    To be called before anything else of TensorFlow in a process that shall train on several CPU devices or in a
    cluster, whose workers have met (`lenet_keras.distribution.rendezvous`).

    Args:
        config: the settings.
        cluster: the one that this process is in; "auto" and "multi_worker" use it.
        cpu_devices: how many "auto" shall take, as a run that is resumed had, for the same bits; None: whatever is
            fastest.

    Raises:
        InvalidArgument: the devices are not there, or do not fit the strategy or the batch.
        LenetKerasError: there is no TPU, or TensorFlow runs already in this process with too few CPU devices.
    """
    chosen = parse_devices(config.devices) if config.devices else None
    gpus = [f"GPU:{i}" for i in range(len(tf.config.list_physical_devices("GPU")))]
    for device in chosen or ():
        if device.startswith("GPU") and device not in gpus:
            raise InvalidArgument(f"devices must be there. Received: {device}; found: {', '.join(gpus) or 'no GPU'}")
    if config.strategy == "tpu":
        return _tpu(config)
    if cluster is not None:
        return _multi_worker(config, cluster, chosen or tuple(gpus) or ("CPU:0",))
    if config.strategy == "one_device":
        if chosen and len(chosen) > 1:
            raise InvalidArgument(f"strategy one_device takes one device. Received: {', '.join(chosen)}")
        return _local(config, chosen or (*gpus, "CPU:0")[:1], "as asked")
    if chosen:
        return _local(config, chosen, "as asked")
    if gpus:
        return _local(config, tuple(gpus), "every GPU that was found")
    return _local(config, *_cpu_devices(config, cpu_devices))


def _cpu_devices(config: TrainConfig, before: int | None) -> tuple[tuple[str, ...], str]:
    count, reason = cpu_devices_for(config.batch_size, cores()), f"no GPU was found, {cores()} cores"
    if before and config.batch_size % before == 0:
        count, reason = before, "as the run began"
    if config.strategy == "mirrored":
        count = max(2, count)
    elif (started := _start_cpu_devices(count)) < count:
        count, reason = cpu_devices_for(config.batch_size, started), "as TensorFlow runs already"
    return tuple(f"CPU:{i}" for i in range(count)), reason


def _local(config: TrainConfig, devices: tuple[str, ...], reason: str) -> Placement:
    check_divisible(config.batch_size, len(devices))
    is_cpu = devices[0].startswith("CPU")
    if is_cpu:
        needed = 1 + max(int(device.partition(":")[2]) for device in devices)
        if (found := _start_cpu_devices(needed)) < needed:
            raise LenetKerasError(
                f"TensorFlow runs in this process already, with {found} CPU devices of the {needed} that are needed. "
                "Place the training before anything else of TensorFlow is used, or name other devices."
            )
    else:
        _let_memory_grow()
    name = "mirrored" if len(devices) > 1 or config.strategy == "mirrored" else "one_device"
    if name == "one_device":
        strategy = tf.distribute.OneDeviceStrategy(f"/{devices[0]}")
    else:
        # On CPUs TensorFlow's default, a collective, fails with a second strategy in one process
        # (tensorflow/tensorflow#62790).
        reduction = tf.distribute.ReductionToOneDevice() if is_cpu else None
        strategy = tf.distribute.MirroredStrategy([f"/{device}" for device in devices], cross_device_ops=reduction)
    return Placement(name, strategy, devices, _device_name(devices), reason, Workers(strategy))


def _multi_worker(config: TrainConfig, cluster: Cluster, devices: tuple[str, ...]) -> Placement:
    check_divisible(config.batch_size, len(cluster.addresses) * len(devices))
    physical = tf.config.list_physical_devices("GPU")
    if devices[0].startswith("GPU"):
        tf.config.set_visible_devices([physical[int(device[4:])] for device in devices], "GPU")
        _let_memory_grow()
    elif devices != ("CPU:0",):
        raise InvalidArgument(f"a worker trains on CPU:0 or on GPUs. Received: {', '.join(devices)}")
    elif physical:
        tf.config.set_visible_devices([], "GPU")
    # A proxy for the outside world does not know the workers.
    hosts = [cluster.host_and_port(index)[0] for index in range(len(cluster.addresses))]
    os.environ.update(no_grpc_proxy=",".join(hosts))
    resolver = tf.distribute.cluster_resolver.SimpleClusterResolver(
        tf.train.ClusterSpec({"worker": list(cluster.addresses)}),
        task_type="worker",
        task_id=cluster.index,
        rpc_layer="grpc",
    )
    try:
        with _ended_after(_CONNECTING), _sigterm_kept():
            strategy = tf.distribute.MultiWorkerMirroredStrategy(cluster_resolver=resolver)
    except RuntimeError as error:
        raise LenetKerasError(
            "TensorFlow runs in this process already: a multi-worker training must be placed before anything else "
            f"of TensorFlow is used ({first_line(error)})."
        ) from error
    except tf.errors.OpError as error:
        raise LenetKerasError(f"TensorFlow could not connect the workers: {first_line(error)}") from error
    workers = Workers(strategy, cluster)
    return Placement("multi_worker", strategy, devices, _device_name(devices), f"by {cluster.source}", workers)


def _tpu(config: TrainConfig) -> Placement:
    if config.devices:
        raise InvalidArgument("strategy tpu takes every core of the TPU, and no devices.")
    try:
        resolver = tf.distribute.cluster_resolver.TPUClusterResolver.connect()
        strategy = tf.distribute.TPUStrategy(resolver)
    except Exception as error:  # of many types, from ValueError to requests that find no metadata server
        raise LenetKerasError(f"no TPU was found: {first_line(error)} TPU_NAME names one.") from error
    check_divisible(config.batch_size, strategy.num_replicas_in_sync)
    devices = tuple(f"TPU:{i}" for i in range(strategy.num_replicas_in_sync))
    return Placement("tpu", strategy, devices, "TPU", "as asked", Workers(strategy))


def _start_cpu_devices(count: int) -> int:
    """Have `count` logical CPU devices or more, unless TensorFlow has been started; returns how many there are."""
    cpu = tf.config.list_physical_devices("CPU")[0]
    if len(tf.config.get_logical_device_configuration(cpu) or ()) < count:
        with contextlib.suppress(RuntimeError):
            tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * count)
    return len(tf.config.list_logical_devices("CPU"))


def _let_memory_grow() -> None:
    # Otherwise a LeNet-5 takes the whole memory of every GPU. TensorFlow wants it the same for all of them.
    with contextlib.suppress(RuntimeError):  # TensorFlow has been started
        for gpu in tf.config.get_visible_devices("GPU"):
            tf.config.experimental.set_memory_growth(gpu, True)


def _device_name(devices: tuple[str, ...]) -> str:
    if devices[0].startswith("CPU"):
        return "CPU"
    physical = tf.config.list_physical_devices("GPU")[int(devices[0][4:])]
    return str(tf.config.experimental.get_device_details(physical).get("device_name", "GPU"))


@contextlib.contextmanager
def _sigterm_kept() -> Iterator[None]:
    """Leave SIGTERM to whom it was: TensorFlow, connecting a cluster, takes it, and then does nothing on it."""
    yield
    handler = signal.getsignal(signal.SIGTERM)
    if handler is not None and threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, handler)


@contextlib.contextmanager
def _ended_after(seconds: float) -> Iterator[None]:
    """End the process if the body takes longer, even if it is in C++ and holds the interpreter's lock."""
    with Path(os.devnull).open("w") as nowhere:
        faulthandler.dump_traceback_later(seconds, exit=True, file=nowhere)
        try:
            yield
        finally:
            faulthandler.cancel_dump_traceback_later()
