"""The processes of a multi-worker run, as their environment names them: TF_CONFIG, or Slurm's variables."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from lenet_keras.errors import InvalidArgument
from lenet_keras.models.variants import shown

DEFAULT_CLUSTER_TIMEOUT = 300.0  # seconds until all have come: machines start at different times

# Of a job's tasks on one machine each takes the next port. Jobs that share a machine are kept apart by their numbers.
# All lie below the ports that Linux hands out by itself.
_SLURM_FIRST_PORT = 16384
_SLURM_PORTS_PER_JOB = 64
_SLURM_PORT_RANGES = 250
_ADDRESS = re.compile(r"[^\s:/]+:\d{1,5}|\[[0-9a-fA-F:.]+\]:\d{1,5}")


@dataclass(frozen=True)
class Cluster:
    """Workers by address, and which of them this process is.

    Attributes:
        addresses: "host:port" of each; the first is the chief, who alone writes.
        index: this process's place among them.
        source: what named them, for people.
    """

    addresses: tuple[str, ...]
    index: int
    source: str

    @property
    def is_chief(self) -> bool:
        """Whether this process writes the run folder."""
        return self.index == 0

    def host_and_port(self, index: int) -> tuple[str, int]:
        """Where a worker is reached."""
        host, _, port = self.addresses[index].rpartition(":")
        return host.strip("[]"), int(port)

    def name(self, index: int) -> str:
        """A worker for people: "worker 2 (host:port)"."""
        return f"worker {index} ({self.addresses[index]})"


def cluster_source(strategy: str) -> str | None:
    """What names the cluster of this process: "TF_CONFIG" or "Slurm". None if nothing does, or if `strategy` is for a
    single process. Loads no TensorFlow.
    """
    if strategy not in ("auto", "multi_worker"):
        return None
    if os.environ.get("TF_CONFIG"):
        return "TF_CONFIG"
    is_step = os.environ.get("SLURM_STEP_NUM_TASKS", "1") != "1" and "SLURM_PROCID" in os.environ
    return "Slurm" if is_step else None


def find_cluster(strategy: str) -> Cluster | None:
    """The cluster that this process belongs to; None without one, or if `strategy` is for a single process.

    Raises:
        InvalidArgument: TF_CONFIG cannot be used, or `strategy` is "multi_worker" and nothing names the workers.
    """
    source = cluster_source(strategy)
    cluster = None
    if source == "TF_CONFIG":
        cluster = from_tf_config(os.environ["TF_CONFIG"])
    elif source == "Slurm":
        cluster = from_slurm()
    if strategy == "multi_worker" and cluster is None:
        raise InvalidArgument(
            "strategy multi_worker needs to be told the workers: by TF_CONFIG, by Slurm's srun, or, "
            "for workers on this machine, by --workers N."
        )
    if cluster is not None and len(cluster.addresses) == 1 and strategy == "auto":
        return None
    return cluster


def tf_config(addresses: tuple[str, ...], index: int) -> str:
    """TF_CONFIG for one worker of those at `addresses`."""
    return json.dumps({"cluster": {"worker": list(addresses)}, "task": {"type": "worker", "index": index}})


def from_tf_config(text: str) -> Cluster:
    """The cluster in TF_CONFIG's JSON.

    It is {"cluster": {"worker": ["host:port", ...]}, "task": {"type": "worker", "index": 0}}. A job "chief" of one
    address may stand beside "worker"; it is then the chief.

    Raises:
        InvalidArgument: anything else.
    """
    try:
        content = json.loads(text)
        jobs: Mapping[str, Any] = content["cluster"]
        kind, number = content["task"]["type"], content["task"]["index"]
        unknown = set(jobs) - {"chief", "worker"}
        chiefs, workers = list(jobs.get("chief", [])), list(jobs.get("worker", []))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise InvalidArgument(
            'TF_CONFIG must be like {"cluster": {"worker": ["host:port", ...]}, "task": {"type": "worker", '
            f'"index": 0}}}}. Received: {shown(text)}'
        ) from error
    if unknown:
        raise InvalidArgument(f"TF_CONFIG names a job {shown(min(unknown))}; chief and worker are trained with.")
    addresses = chiefs + workers
    for address in addresses:
        if not isinstance(address, str) or not _ADDRESS.fullmatch(address):
            raise InvalidArgument(f"TF_CONFIG must name its workers as host:port. Received: {shown(address)}")
    if len(chiefs) > 1 or len(set(addresses)) < len(addresses):
        raise InvalidArgument("TF_CONFIG must name one chief at most, and each address once.")
    own = {"chief": chiefs, "worker": workers}.get(kind, []) if isinstance(kind, str) else []
    if not isinstance(number, int) or isinstance(number, bool) or not 0 <= number < len(own):
        raise InvalidArgument(f"TF_CONFIG's task, {shown(kind)} {shown(number)}, is none of its cluster's.")
    return Cluster(tuple(addresses), number + (len(chiefs) if kind == "worker" else 0), "TF_CONFIG")


def from_slurm() -> Cluster:
    """The tasks of the Slurm job step that this process is one of, by the variables that `srun` sets.

    TensorFlow's resolver sorts hosts by letter, so that n10 comes before n2, and takes SLURM_PROCID, which counts them
    as Slurm does, for an index into that. This process is therefore found by its host and its number there.

    Raises:
        InvalidArgument: the variables cannot be used.
    """
    import tensorflow as tf

    try:
        block = int(os.environ["SLURM_JOB_ID"]) % _SLURM_PORT_RANGES
        first_port = _SLURM_FIRST_PORT + _SLURM_PORTS_PER_JOB * block
        own = f"{os.environ['SLURMD_NODENAME']}:{first_port + int(os.environ['SLURM_LOCALID'])}"
        # It would ask nvidia-smi for GPUs, and fail where there is none. Which GPUs a task sees is Slurm's business.
        resolver = tf.distribute.cluster_resolver.SlurmClusterResolver(
            port_base=first_port, gpus_per_node=_SLURM_PORTS_PER_JOB, gpus_per_task=1, auto_set_gpu=False
        )
        addresses = tuple(resolver.cluster_spec().as_dict()["worker"])
        return Cluster(addresses, addresses.index(own), "Slurm")
    except (KeyError, ValueError, RuntimeError) as error:
        raise InvalidArgument(f"Slurm's variables name no cluster that this task belongs to: {error}.") from error
