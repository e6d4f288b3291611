"""The workers of a training run, as the environment names them: TF_CONFIG or Slurm's variables."""

from __future__ import annotations

import contextlib
import json
import os
import re
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lenet_keras.errors import InvalidArgument, InvalidCluster, excerpt

DEFAULT_CLUSTER_TIMEOUT = 300.0  # seconds for all workers to join: machines start at different times

# The tasks of a job on one machine take consecutive ports. Jobs that share a machine are kept apart by their numbers.
# All are below the ports that Linux assigns automatically.
_SLURM_FIRST_PORT = 16384
_SLURM_PORTS_PER_JOB = 64
_SLURM_PORT_RANGES = 250
_ADDRESS = re.compile(r"(?:[^\s:/\[\]]+|\[[0-9a-fA-F:.]+\]):([0-9]{1,5})")
_LARGEST_PORT = 65535

# In this order they are numbered. "master" is the older name of a chief, which Kubeflow and Vertex AI still write.
_JOBS = ("chief", "master", "worker")


@dataclass(frozen=True)
class Cluster:
    """The addresses of the workers, and which of them this process is.

    >>> Cluster(("10.0.0.1:2222", "10.0.0.2:2222"), index=1, source="TF_CONFIG").name(0)
    'worker 0 (10.0.0.1:2222)'

    Attributes:
        addresses: "host:port" of each worker; the first is the chief, which alone writes the run folder.
        index: of this process.
        source: what named the workers, for people.
    """

    addresses: tuple[str, ...]
    index: int
    source: str

    @property
    def is_chief(self) -> bool:
        """Whether this process writes the run folder."""
        return self.index == 0

    def host_and_port(self, index: int) -> tuple[str, int]:
        """Return where a worker can be reached."""
        host, _, port = self.addresses[index].rpartition(":")
        return host.strip("[]"), int(port)

    def name(self, index: int) -> str:
        """Return a worker's name for people, "worker 2 (host:port)"."""
        return f"worker {index} ({self.addresses[index]})"


def cluster_source(strategy: str) -> str | None:
    """Return what names the cluster of this process, "TF_CONFIG" or "Slurm", without loading TensorFlow.

    >>> cluster_source("one_device")

    Returns:
        None if nothing does, or if `strategy` is for a single process.

    Raises:
        InvalidCluster: TF_CONFIG cannot be used.
    """
    if strategy not in ("auto", "multi_worker"):
        return None
    if from_tf_config(os.environ.get("TF_CONFIG", "")) is not None:
        return "TF_CONFIG"
    is_step = os.environ.get("SLURM_STEP_NUM_TASKS", "1") != "1" and "SLURM_PROCID" in os.environ
    return "Slurm" if is_step else None


def find_cluster(strategy: str) -> Cluster | None:
    """Return the cluster that this process belongs to.

    >>> find_cluster("one_device")

    Returns:
        None without a cluster, or if `strategy` is for a single process.

    Raises:
        InvalidCluster: TF_CONFIG cannot be used.
        InvalidArgument: nor can Slurm's variables, or `strategy` is "multi_worker" and nothing names the workers.
    """
    source = cluster_source(strategy)
    cluster = None
    if source == "TF_CONFIG":
        cluster = from_tf_config(os.environ["TF_CONFIG"])
    elif source == "Slurm":
        cluster = from_slurm()
    if strategy == "multi_worker" and cluster is None:
        raise InvalidArgument("strategy multi_worker needs TF_CONFIG or Slurm's srun to name the workers.")
    if cluster is not None and len(cluster.addresses) == 1 and strategy == "auto":
        return None
    return cluster


def tf_config(addresses: Sequence[str], index: int) -> str:
    """Return TF_CONFIG for one of the workers at `addresses`.

    >>> tf_config(["127.0.0.1:2222"], 0)
    '{"cluster": {"worker": ["127.0.0.1:2222"]}, "task": {"type": "worker", "index": 0}}'
    """
    return json.dumps({"cluster": {"worker": list(addresses)}, "task": {"type": "worker", "index": index}})


def from_tf_config(text: str) -> Cluster | None:
    """Read the cluster from TF_CONFIG's JSON, as written by hand, Kubeflow, Vertex AI or SageMaker.

    It is {"cluster": {"worker": ["host:port", ...]}, "task": {"type": "worker", "index": 0}}. A job "chief" or "master"
    with one address may precede "worker"; it is then the chief. Whatever else it holds has no meaning here.

    >>> from_tf_config(tf_config(["10.0.0.1:2222", "10.0.0.2:2222"], 1)).is_chief
    False

    Returns:
        None if it names no addresses: services set TF_CONFIG for a process that trains alone, too.

    Raises:
        InvalidCluster: the cluster has other jobs, such as "ps", or the text is not a TF_CONFIG.
    """
    try:
        content = json.loads(text) if text.strip() else None
        config = _mapping(content)
        jobs, task = _mapping(config.get("cluster")), _mapping(config.get("task"))
        addresses = {job: _list(named) for job, named in jobs.items() if named}
    except (ValueError, TypeError, RecursionError) as error:
        raise InvalidCluster(
            'TF_CONFIG must be like {"cluster": {"worker": ["host:port", ...]}, "task": {"type": "worker", '
            f'"index": 0}}}}. Received: {excerpt(text)}'
        ) from error
    kind, number = task.get("type"), task.get("index")
    others = {*addresses, kind} if isinstance(kind, str) and kind else {*addresses}
    if "sparseCluster" in config:  # Kubeflow's, whose workers come and go
        others.add("sparseCluster")
    if unknown := sorted(others - {*_JOBS}):
        raise InvalidCluster(
            f"TF_CONFIG names {excerpt(unknown[0])}, but only a chief (or master) and workers train together."
        )
    if not addresses:
        return None
    _check_addresses(addresses)
    if kind is None or number is None:
        raise InvalidCluster("TF_CONFIG names a cluster, but not this process's task in it, a type and an index.")
    index = int(number) if isinstance(number, str) and re.fullmatch("[0-9]{1,9}", number) else number
    own = addresses.get(kind, []) if isinstance(kind, str) else []
    if not isinstance(index, int) or isinstance(index, bool) or not 0 <= index < len(own):
        raise InvalidCluster(f"TF_CONFIG's task, {excerpt(kind)} {excerpt(number)}, is not in its cluster.")
    before = [address for job in _JOBS[: _JOBS.index(kind)] for address in addresses.get(job, [])]
    everyone = [address for job in _JOBS for address in addresses.get(job, [])]
    return Cluster(tuple(everyone), len(before) + index, "TF_CONFIG")


def _mapping(value: Any) -> Mapping[str, Any]:
    if value is not None and not isinstance(value, dict):
        raise TypeError
    return value or {}


def _list(value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise TypeError
    return value


def _check_addresses(jobs: Mapping[str, Sequence[Any]]) -> None:
    addresses = [address for named in jobs.values() for address in named]
    for address in addresses:
        found = _ADDRESS.fullmatch(address) if isinstance(address, str) else None
        if not found or not 1 <= int(found[1]) <= _LARGEST_PORT:
            raise InvalidCluster(f"TF_CONFIG must name its workers as host:port. Received: {excerpt(address)}")
    chiefs = sum(len(jobs.get(job, [])) for job in ("chief", "master"))
    if chiefs > 1 or len(set(addresses)) < len(addresses):
        raise InvalidCluster("TF_CONFIG must name one chief (or master) at most, and each address once.")


def from_slurm() -> Cluster:
    """Read the tasks of this process's Slurm job step from the variables that `srun` sets.

    TensorFlow's resolver sorts hosts alphabetically, so that n10 precedes n2, and uses SLURM_PROCID, which counts them
    in Slurm's order, as an index into that list. This process is therefore identified by its host and its number there.

    Raises:
        InvalidArgument: the variables cannot be used.
    """
    import tensorflow as tf

    try:
        block = int(os.environ["SLURM_JOB_ID"]) % _SLURM_PORT_RANGES
        first_port = _SLURM_FIRST_PORT + _SLURM_PORTS_PER_JOB * block
        own = f"{os.environ['SLURMD_NODENAME']}:{first_port + int(os.environ['SLURM_LOCALID'])}"
        # By default it would query nvidia-smi for GPUs and fail without it. Slurm decides which GPUs a task sees.
        resolver = tf.distribute.cluster_resolver.SlurmClusterResolver(
            port_base=first_port, gpus_per_node=_SLURM_PORTS_PER_JOB, gpus_per_task=1, auto_set_gpu=False
        )
        addresses = tuple(resolver.cluster_spec().as_dict()["worker"])
        return Cluster(addresses, addresses.index(own), "Slurm")
    except (KeyError, ValueError, RuntimeError) as error:
        raise InvalidArgument(f"Slurm's variables do not name a cluster that contains this task: {error}.") from error


def free_addresses(count: int) -> tuple[str, ...]:
    """Return `count` different addresses on 127.0.0.1 whose ports are free.

    >>> len(set(free_addresses(3)))
    3
    """
    # All are open at the same time, so that they differ.
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return tuple(f"127.0.0.1:{each.getsockname()[1]}" for each in sockets)
