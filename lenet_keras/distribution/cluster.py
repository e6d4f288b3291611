"""The workers of a training run: named by the environment (TF_CONFIG, Slurm), or started on this machine."""

from __future__ import annotations

import contextlib
import json
import os
import re
import socket
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lenet_keras.errors import InvalidArgument, excerpt

DEFAULT_CLUSTER_TIMEOUT = 300.0  # seconds for all workers to join: machines start at different times

# The tasks of a job on one machine take consecutive ports. Jobs that share a machine are kept apart by their numbers.
# All are below the ports that Linux assigns automatically.
_SLURM_FIRST_PORT = 16384
_SLURM_PORTS_PER_JOB = 64
_SLURM_PORT_RANGES = 250
_ADDRESS = re.compile(r"[^\s:/]+:\d{1,5}|\[[0-9a-fA-F:.]+\]:\d{1,5}")

_GRACE = 30.0  # seconds that the other local workers get to end after one has failed or all are interrupted
_POLL = 0.1  # seconds between two checks of the local workers


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
    """
    if strategy not in ("auto", "multi_worker"):
        return None
    if os.environ.get("TF_CONFIG"):
        return "TF_CONFIG"
    is_step = os.environ.get("SLURM_STEP_NUM_TASKS", "1") != "1" and "SLURM_PROCID" in os.environ
    return "Slurm" if is_step else None


def find_cluster(strategy: str) -> Cluster | None:
    """Return the cluster that this process belongs to.

    >>> find_cluster("one_device")

    Returns:
        None without a cluster, or if `strategy` is for a single process.

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


def from_tf_config(text: str) -> Cluster:
    """Read the cluster from TF_CONFIG's JSON.

    It is {"cluster": {"worker": ["host:port", ...]}, "task": {"type": "worker", "index": 0}}. A job "chief" with one
    address may precede "worker"; it is then the chief.

    >>> from_tf_config(tf_config(["10.0.0.1:2222", "10.0.0.2:2222"], 1)).is_chief
    False

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
            f'"index": 0}}}}. Received: {excerpt(text)}'
        ) from error
    if unknown:
        raise InvalidArgument(f"TF_CONFIG may name the jobs chief and worker only. Received: {excerpt(min(unknown))}")
    addresses = chiefs + workers
    for address in addresses:
        if not isinstance(address, str) or not _ADDRESS.fullmatch(address):
            raise InvalidArgument(f"TF_CONFIG must name its workers as host:port. Received: {excerpt(address)}")
    if len(chiefs) > 1 or len(set(addresses)) < len(addresses):
        raise InvalidArgument("TF_CONFIG must name one chief at most, and each address once.")
    own = {"chief": chiefs, "worker": workers}.get(kind, []) if isinstance(kind, str) else []
    if not isinstance(number, int) or isinstance(number, bool) or not 0 <= number < len(own):
        raise InvalidArgument(f"TF_CONFIG's task, {excerpt(kind)} {excerpt(number)}, is not in its cluster.")
    return Cluster(tuple(addresses), number + (len(chiefs) if kind == "worker" else 0), "TF_CONFIG")


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


def is_local_worker(count: int) -> bool:
    """Return whether this process is one of `count` workers, according to TF_CONFIG, and not the one that starts them.

    Raises:
        InvalidArgument: TF_CONFIG names another number of workers.
    """
    if not os.environ.get("TF_CONFIG"):
        return False
    named = len(from_tf_config(os.environ["TF_CONFIG"]).addresses)
    if named != count:
        raise InvalidArgument(f"{count} workers were requested, but TF_CONFIG names {named}. Unset TF_CONFIG.")
    return True


def run_local_workers(command: Sequence[str], count: int) -> int:
    """Run `command` as `count` workers of a cluster on 127.0.0.1, and wait until all have ended.

    They share this process's standard streams. When one fails, or this process is interrupted, the others get half a
    minute to end by themselves, and are then killed.

    Returns:
        0 if all succeeded; otherwise the exit code of the first that failed, or 1 if a signal ended it.

    Raises:
        KeyboardInterrupt: passed on once the workers have ended.
    """
    addresses = free_addresses(count)
    workers: list[subprocess.Popen[bytes]] = []
    try:
        for index in range(count):
            environment = {**os.environ, "TF_CONFIG": tf_config(addresses, index)}
            # In their own sessions: Ctrl-C in the terminal reaches this process only, which passes it on once.
            workers.append(subprocess.Popen(command, env=environment, start_new_session=True))
        while True:
            ended = [worker.returncode for worker in workers if worker.poll() is not None]
            failed = [code for code in ended if code != 0]
            if failed:
                _wait_for_all(workers)
                return failed[0] if failed[0] > 0 else 1
            if len(ended) == count:
                return 0
            time.sleep(_POLL)
    except KeyboardInterrupt:
        for worker in workers:
            worker.terminate()
        _wait_for_all(workers)
        raise
    finally:
        for worker in workers:
            worker.kill()
            worker.wait()


def _wait_for_all(workers: Sequence[subprocess.Popen[bytes]]) -> None:
    deadline = time.monotonic() + _GRACE
    for worker in workers:
        with contextlib.suppress(subprocess.TimeoutExpired):
            worker.wait(max(0.0, deadline - time.monotonic()))


def free_addresses(count: int) -> tuple[str, ...]:
    """Return `count` different addresses on 127.0.0.1 whose ports are free.

    >>> len(set(free_addresses(3)))
    3
    """
    # All are open at the same time, so that they differ.
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return tuple(f"127.0.0.1:{each.getsockname()[1]}" for each in sockets)
