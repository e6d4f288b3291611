"""From settings to a tf.distribute strategy."""

from __future__ import annotations

import contextlib
import ctypes
import dataclasses
import faulthandler
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tensorflow as tf

from lenet_keras.config import TrainConfig, parse_devices
from lenet_keras.distribution.cluster import Cluster
from lenet_keras.distribution.workers import Workers
from lenet_keras.errors import ClusterError, InvalidArgument, LenetKerasError, first_line
from lenet_keras.runtime import cores

# With fewer images per step, a core costs more than it saves (docs/scaling.md).
MIN_IMAGES_PER_CORE = 32
# TensorFlow takes less than a second to connect workers that have joined. If one is killed in that second, it would
# wait for an hour without letting any Python run; this ends the process.
_CONNECTING = 60.0  # seconds
_LAST_WORDS = """
import select, sys
if not select.select([sys.stdin], [], [], float(sys.argv[1]))[0]:
    print(sys.argv[2], file=sys.stderr)
"""
_NO_PROXY = "no_grpc_proxy"  # the variable in which gRPC looks for hosts to be reached directly
_SIGACTION = 1024  # bytes, more than any platform's struct sigaction


@dataclass(frozen=True)
class Placement:
    """Where training runs.

    Attributes:
        name: of the strategy, one of `lenet_keras.config.STRATEGIES` except "auto".
        strategy: tf.distribute's.
        devices: of this process, such as "GPU:0".
        device_name: the model of these devices.
        reason: why they were chosen.
        workers: the processes that train together.
        cores: how many processor cores share what a device computes, each with an equal part of a batch.
    """

    name: str
    strategy: tf.distribute.Strategy
    devices: tuple[str, ...]
    device_name: str
    reason: str
    workers: Workers
    cores: int = 1

    @property
    def replicas(self) -> int:
        """The number of devices of all workers together; each trains on an equal share of a batch."""
        return int(self.strategy.num_replicas_in_sync)

    def describe(self, batch_size: int) -> str:
        """Describe the placement in one line for people."""
        where = ", ".join(self.devices) if len(self.devices) <= 4 else f"{self.devices[0]} to {self.devices[-1]}"
        if self.workers.count > 1:
            where = f"{self.workers.count} workers on {where}"
        model = f" ({self.device_name})" if self.device_name != "CPU" else ""
        share = f", {batch_size // self.replicas} images of a batch each" if self.replicas > 1 else ""
        if self.cores > 1:
            share = f", {batch_size // self.cores} images of a batch on each of {self.cores} cores"
        return f"strategy: {self.name}, {where}{model}{share}; {self.reason}"

    def to_json(self) -> dict[str, Any]:
        """Return what config.json records of the placement."""
        return {
            "strategy": self.name,
            "workers": self.workers.count,
            "replicas": self.replicas,
            "devices": list(self.devices),
            "cores": self.cores,
            "device_name": self.device_name,
            "reason": self.reason,
        }


def recorded_cores(record: dict[str, Any]) -> int | None:
    """Return how many cores trained a run in one process on the CPU, from its config.json.

    >>> recorded_cores({"placement": {"workers": 1, "devices": ["CPU:0"], "cores": 2}})
    2

    Returns:
        None if it was trained on anything else.
    """
    placement = record.get("placement")
    if not isinstance(placement, dict) or (placement.get("workers"), placement.get("devices")) != (1, ["CPU:0"]):
        return None
    cores = placement.get("cores")
    return cores if isinstance(cores, int) and cores > 0 else None


def fastest_cores(batch_size: int, available: int) -> int:
    """Return the number of cores, at most `available`, that train fastest with equal parts of a batch.

    >>> fastest_cores(batch_size=64, available=16)
    2
    """
    counts = range(1, max(1, min(available, batch_size // MIN_IMAGES_PER_CORE)) + 1)
    return max(count for count in counts if batch_size % count == 0)


def check_divisible(batch_size: int, replicas: int) -> None:
    """Check that `replicas` can share a batch equally.

    >>> check_divisible(64, 4)

    Raises:
        InvalidArgument: they cannot; the message names the nearest batch sizes that they can share.
    """
    if batch_size % replicas:
        below = batch_size - batch_size % replicas
        nearest = f"sizes are {below} and {below + replicas}" if below else f"size is {replicas}"
        raise InvalidArgument(
            f"a batch of {batch_size} images cannot be shared equally by {replicas} devices. The nearest possible "
            f"{nearest}."
        )


def place(config: TrainConfig, cluster: Cluster | None = None, before: int | None = None) -> Placement:
    """Return the placement that `config.strategy` and `config.devices` request.

    For several CPU devices, or in a cluster, call it before anything else in TensorFlow. The workers of a cluster must
    have joined the chief (`lenet_keras.distribution.join`). They connect when this is called and while they train: both
    belong in the context of `bypassing_proxies`.

    >>> place(TrainConfig(strategy="one_device", devices="CPU:0")).replicas
    1

    Args:
        config: the settings.
        cluster: the cluster of this process; "auto" and "multi_worker" use it.
        before: how many cores have shared the batches of a run that is resumed. "auto" takes as many again, for
            bit-identical results. None: the fastest number.

    Raises:
        InvalidArgument: the devices do not exist, or do not fit the strategy or the batch.
        ClusterError: TensorFlow could not connect the workers.
        LenetKerasError: no TPU was found, or TensorFlow is already running in this process, with too few CPU devices.
    """
    chosen = parse_devices(config.devices) if config.devices else None
    gpus = [f"GPU:{i}" for i in range(len(tf.config.list_physical_devices("GPU")))]
    for device in chosen or ():
        if device.startswith("GPU") and device not in gpus:
            raise InvalidArgument(f"devices must exist. Received: {device}; found: {', '.join(gpus) or 'no GPU'}")
    if config.strategy == "tpu":
        return _tpu(config)
    if cluster is not None:
        return _multi_worker(config, cluster, chosen or tuple(gpus) or ("CPU:0",))
    if config.strategy == "one_device":
        if chosen and len(chosen) > 1:
            raise InvalidArgument(f"strategy one_device takes one device. Received: {', '.join(chosen)}")
        return _local(config, chosen or (*gpus, "CPU:0")[:1], "as requested")
    if config.strategy == "cores":
        if chosen:
            raise InvalidArgument(f"strategy cores takes no devices. Received: {', '.join(chosen)}")
        return _cores(config, fastest_cores(config.batch_size, cores()), "as requested", before)
    if chosen:
        return _local(config, chosen, "as requested")
    if gpus:
        return _local(config, tuple(gpus), "all GPUs found")
    count, reason = fastest_cores(config.batch_size, cores()), f"no GPU found, {cores()} cores"
    if config.strategy == "mirrored":
        return _local(config, tuple(f"CPU:{i}" for i in range(max(2, count))), reason)
    return _cores(config, count, reason, before)


def _cores(config: TrainConfig, count: int, reason: str, before: int | None) -> Placement:
    if before and config.batch_size % before == 0:
        count, reason = before, "as before"
    placement = _local(config, ("CPU:0",), reason)
    return dataclasses.replace(placement, name="cores", cores=count) if count > 1 else placement


def _local(config: TrainConfig, devices: tuple[str, ...], reason: str) -> Placement:
    check_divisible(config.batch_size, len(devices))
    _let_memory_grow()  # also on CPUs: TensorFlow starts with every GPU that it sees
    is_cpu = devices[0].startswith("CPU")
    if is_cpu:
        needed = 1 + max(int(device.partition(":")[2]) for device in devices)
        if (found := _start_cpu_devices(needed)) < needed:
            raise LenetKerasError(
                f"TensorFlow is already running in this process, with {found} of the {needed} CPU devices required. "
                "Start training before TensorFlow is used for anything else, or name other devices."
            )
    name = "mirrored" if len(devices) > 1 or config.strategy == "mirrored" else "one_device"
    if name == "one_device":
        strategy = tf.distribute.OneDeviceStrategy(f"/{devices[0]}")
    else:
        # On CPUs, TensorFlow's default, a collective, fails with a second strategy in one process
        # (tensorflow/tensorflow#62790).
        reduction = tf.distribute.ReductionToOneDevice() if is_cpu else None
        with _environment("TF_CONFIG", None):  # TensorFlow would parse it, and fail if it is empty, for example
            strategy = tf.distribute.MirroredStrategy([f"/{device}" for device in devices], cross_device_ops=reduction)
    return Placement(name, strategy, devices, _device_name(devices), reason, Workers(strategy))


@contextlib.contextmanager
def bypassing_proxies(cluster: Cluster | None) -> Iterator[None]:
    """Let the workers connect to each other directly within the context: a proxy to the internet does not know them.

    >>> with bypassing_proxies(Cluster(("10.0.0.1:2222", "10.0.0.2:2222"), index=1, source="TF_CONFIG")):
    ...     os.environ["no_grpc_proxy"]
    '10.0.0.1,10.0.0.2'

    Args:
        cluster: the workers; None changes nothing.
    """
    if cluster is None:
        yield
        return
    # Where no_grpc_proxy is set, gRPC does not look at no_proxy.
    kept = os.environ.get(_NO_PROXY, os.environ.get("no_proxy", ""))
    hosts = [cluster.host_and_port(index)[0] for index in range(len(cluster.addresses))]
    with _environment(_NO_PROXY, ",".join(filter(None, [kept, *hosts]))):
        yield


@contextlib.contextmanager
def _environment(name: str, value: str | None) -> Iterator[None]:
    # Within the context the variable has this value, or is not set.
    def change_to(value: str | None) -> None:
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value

    earlier = os.environ.get(name)
    change_to(value)
    try:
        yield
    finally:
        change_to(earlier)


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
    resolver = tf.distribute.cluster_resolver.SimpleClusterResolver(
        tf.train.ClusterSpec({"worker": list(cluster.addresses)}),
        task_type="worker",
        task_id=cluster.index,
        rpc_layer="grpc",
    )
    try:
        last_words = (
            f"{cluster.name(cluster.index)}: TensorFlow has not connected the workers within {_CONNECTING:g} s. "
            "One of them must have ended just after all had joined. Start them again."
        )
        with _exiting_after(_CONNECTING, last_words), _keeping_sigterm_handler():
            strategy = tf.distribute.MultiWorkerMirroredStrategy(cluster_resolver=resolver)
    except RuntimeError as error:
        raise LenetKerasError(
            "TensorFlow is already running in this process: multi-worker training must start before TensorFlow is used "
            f"for anything else ({first_line(error)})."
        ) from error
    except tf.errors.OpError as error:
        raise ClusterError(f"TensorFlow could not connect the workers: {first_line(error)}") from error
    workers = Workers(strategy, cluster)
    return Placement("multi_worker", strategy, devices, _device_name(devices), f"by {cluster.source}", workers)


def _tpu(config: TrainConfig) -> Placement:
    if config.devices:
        raise InvalidArgument("strategy tpu uses every core of the TPU and takes no devices.")
    try:
        resolver = tf.distribute.cluster_resolver.TPUClusterResolver.connect()
        strategy = tf.distribute.TPUStrategy(resolver)
    except Exception as error:  # of many types, from ValueError to requests that find no metadata server
        raise LenetKerasError(f"no TPU was found: {first_line(error)} Name one in TPU_NAME.") from error
    check_divisible(config.batch_size, strategy.num_replicas_in_sync)
    devices = tuple(f"TPU:{i}" for i in range(strategy.num_replicas_in_sync))
    return Placement("tpu", strategy, devices, "TPU", "as requested", Workers(strategy))


def _start_cpu_devices(count: int) -> int:
    # Configures `count` logical CPU devices or more, unless TensorFlow is already running; returns how many exist.
    cpu = tf.config.list_physical_devices("CPU")[0]
    if len(tf.config.get_logical_device_configuration(cpu) or ()) < count:
        with contextlib.suppress(RuntimeError):
            tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * count)
    return len(tf.config.list_logical_devices("CPU"))


def _let_memory_grow() -> None:
    # Otherwise one LeNet-5 takes all the memory of every GPU. TensorFlow requires the same setting for all of them.
    with contextlib.suppress(RuntimeError):  # TensorFlow is already running
        for gpu in tf.config.get_visible_devices("GPU"):
            tf.config.experimental.set_memory_growth(gpu, True)


def _device_name(devices: tuple[str, ...]) -> str:
    if devices[0].startswith("CPU"):
        return "CPU"
    physical = tf.config.list_physical_devices("GPU")[int(devices[0][4:])]
    return str(tf.config.experimental.get_device_details(physical).get("device_name", "GPU"))


@contextlib.contextmanager
def _keeping_sigterm_handler() -> Iterator[None]:
    # When TensorFlow connects a cluster, it installs a handler in C++ that does nothing. Python's `signal` cannot put
    # the earlier one back in every thread, and knows none that was installed in C, as by `faulthandler.register`.
    libc, earlier = ctypes.CDLL(None), ctypes.create_string_buffer(_SIGACTION)
    libc.sigaction(signal.SIGTERM, None, earlier)
    try:
        yield
    finally:
        libc.sigaction(signal.SIGTERM, earlier, None)


@contextlib.contextmanager
def _exiting_after(seconds: float, last_words: str) -> Iterator[None]:
    # Exits the process, with `last_words` on stderr, if the body takes longer, even if it is in C++ and holds the
    # interpreter's lock. Nothing of Python can write then, so another process does, which ends with its standard input.
    with contextlib.ExitStack() as stack:
        nowhere = stack.enter_context(Path(os.devnull).open("w"))
        with contextlib.suppress(OSError):
            command = [sys.executable, "-I", "-S", "-c", _LAST_WORDS, str(seconds), f"Error: {last_words}"]
            stack.enter_context(subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True))
        faulthandler.dump_traceback_later(seconds + 2, exit=True, file=nowhere)
        stack.callback(faulthandler.cancel_dump_traceback_later)
        yield
