"""What the workers of a run share while they train, as sums over all of them."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from lenet_keras.distribution.cluster import Cluster
from lenet_keras.errors import WorkerLost

Float64s = npt.NDArray[np.float64]

# How TensorFlow reports that another process has gone: its connection broke, or its heartbeat stopped.
_LOST = (
    tf.errors.UnavailableError,
    tf.errors.AbortedError,
    tf.errors.CancelledError,
    tf.errors.DeadlineExceededError,
)


class Workers:
    """The workers of a run; a process that trains alone is its own chief.

    A method called by one of them must be called by all, in the same order: each waits for the others.
    """

    def __init__(self, strategy: tf.distribute.Strategy, cluster: Cluster | None = None) -> None:
        """Take the workers of `cluster`, which train under `strategy`."""
        self.index = cluster.index if cluster else 0
        self.count = len(cluster.addresses) if cluster else 1
        self._cluster = cluster
        self._strategy = strategy
        self._sum = tf.function(self._sum_over_replicas, input_signature=[tf.TensorSpec((None,), tf.float64)])

    @property
    def is_chief(self) -> bool:
        """Whether this process writes the run folder."""
        return self.index == 0

    def any(self, flag: bool) -> bool:
        """Return whether `flag` is true in any worker."""
        return bool(self.total(np.array([float(flag)]))[0])

    def from_chief(self, values: Float64s) -> Float64s:
        """Return the chief's `values`, finite float64 of any shape, the same in all workers; others' are ignored."""
        return self.total(values if self.is_chief else np.zeros_like(values))

    def total(self, values: Float64s) -> Float64s:
        """Return the sum over the workers of `values`, float64 of any shape; integers up to 2**53 add up exactly."""
        if self.count == 1:
            return values
        with self.naming_the_lost():
            flat = self._sum(tf.constant(values.ravel())).numpy()
        return np.asarray(flat).reshape(values.shape)

    @contextlib.contextmanager
    def naming_the_lost(self) -> Iterator[None]:
        """Raise TensorFlow's errors about a lost worker as `WorkerLost`, which names it."""
        try:
            yield
        except _LOST as error:
            if self._cluster is None:
                raise
            raise WorkerLost(_describe_loss(self._cluster, error)) from error

    def _sum_over_replicas(self, values: tf.Tensor) -> tf.Tensor:
        devices_here = self._strategy.num_replicas_in_sync // self.count

        def of_one_replica(values: tf.Tensor) -> tf.Tensor:
            # A worker's values count once, however many devices it has.
            replica = tf.distribute.get_replica_context().replica_id_in_sync_group
            return tf.where(tf.equal(replica % devices_here, 0), values, tf.zeros_like(values))

        return self._strategy.reduce("SUM", self._strategy.run(of_one_replica, args=(values,)), axis=None)


def _describe_loss(cluster: Cluster, error: Any) -> str:
    # The message traces the failure; the last task in it is where it started, as far as can be seen from here: another
    # worker may have ended for the same reason just before. Without a task it is the chief, which keeps the heartbeats.
    tasks = [int(task) for task in re.findall(r"/task:(\d+)", str(error))]
    lost = tasks[-1] if tasks else 0
    own = cluster.name(cluster.index)
    if lost == cluster.index or lost >= len(cluster.addresses):
        return f"{own} lost its connection to the others. The last saved state is kept."
    return f"{own} lost {cluster.name(lost)}, which ended or lost another worker itself. The last saved state is kept."
