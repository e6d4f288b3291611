"""What the processes of a run tell each other while they train, as sums over all of them."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from lenet_keras.distribution.cluster import Cluster
from lenet_keras.errors import LenetKerasError

Float64s = npt.NDArray[np.float64]

# How TensorFlow says that another process has gone: its connection broke, or its heartbeat stopped.
_LOST = (
    tf.errors.UnavailableError,
    tf.errors.AbortedError,
    tf.errors.CancelledError,
    tf.errors.DeadlineExceededError,
)


class Workers:
    """The workers of a run; a process that trains alone is the chief of one.

    What one of them calls all must call, in the same order: each waits for the others.
    """

    def __init__(self, strategy: tf.distribute.Strategy, cluster: Cluster | None = None) -> None:
        """Take the workers of `cluster`, which train under `strategy`."""
        self.index = cluster.index if cluster else 0
        self.count = len(cluster.addresses) if cluster else 1
        self._cluster = cluster
        self._strategy = strategy
        self._total = tf.function(self._sum, input_signature=[tf.TensorSpec((None,), tf.float64)])

    @property
    def is_chief(self) -> bool:
        """Whether this process writes the run folder."""
        return self.index == 0

    def any(self, flag: bool) -> bool:
        """Whether `flag` is true in one of the workers."""
        return bool(self.total(np.array([float(flag)]))[0])

    def from_chief(self, content: bytes) -> bytes:
        """The chief's `content`; what the others give is not looked at."""
        if self.count == 1:
            return content
        own = content if self.is_chief else b""
        values = np.zeros(int(self.total(np.array([float(len(own))]))[0]))
        values[: len(own)] = np.frombuffer(own, np.uint8)
        return self.total(values).astype(np.uint8).tobytes()

    def total(self, values: Float64s) -> Float64s:
        """The sum over the workers of `values`, float64 of any shape; whole numbers to 2**53 add up exactly."""
        if self.count == 1:
            return values
        with self.lost_named():
            flat = self._total(tf.constant(values.ravel())).numpy()
        return np.asarray(flat).reshape(values.shape)

    @contextlib.contextmanager
    def lost_named(self) -> Iterator[None]:
        """Raise what TensorFlow raises when another worker is lost as a `LenetKerasError` that names it."""
        try:
            yield
        except _LOST as error:
            if self._cluster is None:
                raise
            raise LenetKerasError(_lost(self._cluster, error)) from error

    def _sum(self, values: tf.Tensor) -> tf.Tensor:
        devices_here = self._strategy.num_replicas_in_sync // self.count

        def of_one_replica(values: tf.Tensor) -> tf.Tensor:
            # A worker's values count once, however many devices it has.
            replica = tf.distribute.get_replica_context().replica_id_in_sync_group
            return tf.where(tf.equal(replica % devices_here, 0), values, tf.zeros_like(values))

        return self._strategy.reduce("SUM", self._strategy.run(of_one_replica, args=(values,)), axis=None)


def _lost(cluster: Cluster, error: Any) -> str:
    # The message tells the way of the failure; the last task in it is where it began, as far as can be seen from here:
    # another one may have ended for the same cause just before. Without one it is the chief, who keeps the heartbeats.
    tasks = [int(task) for task in re.findall(r"/task:(\d+)", str(error))]
    lost = tasks[-1] if tasks else 0
    if lost == cluster.index or lost >= len(cluster.addresses):
        what = f"{cluster.name(cluster.index)} lost its connection to the others"
    else:
        what = f"{cluster.name(cluster.index)} lost {cluster.name(lost)}, which was ended, or lost another one itself"
    return f"{what}. What was saved is kept: start all workers again with --resume."
