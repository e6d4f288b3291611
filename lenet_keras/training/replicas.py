"""A model made ready to be trained by several replicas, each on its share of a batch."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf

from lenet_keras.checkpoint import capture, restore

_PHILOX = 1  # tf.random.Algorithm.PHILOX, as an operation's argument
_NUMBERS_PER_COUNT = 4  # float32s that Philox makes of one value of its counter


def training_model(model: keras.Model, replicas: int, precision: str = "float32") -> keras.Model:
    """A copy of `model` to be trained: the same layers by name, the same variables in the same order and values.

    - Batch normalisation takes its statistics over the whole batch, not over a replica's share.
    - Dropout draws a mask of the whole batch, of which a replica takes its share, so that replicas have different
      masks, and a batch has the same one however many devices share it.
    - Layers compute in `precision`; with a mixed one, the last in float32, for the loss.

    To be called in a strategy's scope. `model` itself stays as it is, plain Keras: the trained values go back into it.

    Args:
        model: a functional model, its output in float32.
        replicas: how many train it.
        precision: a name of a Keras dtype policy.
    """
    last = model.layers[-1].name

    def copy(layer: keras.Layer) -> keras.Layer:
        config = layer.get_config()
        config["dtype"] = "float32" if layer.name == last and precision.startswith("mixed") else precision
        if isinstance(layer, keras.layers.BatchNormalization):
            return keras.layers.BatchNormalization.from_config({**config, "synchronized": replicas > 1})
        if isinstance(layer, keras.layers.Dropout):
            return SharedDropout.from_config(config)
        return type(layer).from_config(config)

    copied = keras.models.clone_model(model, clone_function=copy)
    restore(copied.variables, capture(model.variables))
    return copied


class SharedDropout(keras.layers.Dropout):  # type: ignore[misc]  # Keras ships no types
    """Dropout whose masks do not depend on how many replicas share a batch.

    Keras's own draws the same mask in each replica. Here the numbers of a batch, in row order, are a stretch of
    Philox's stream (Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3"), and a replica starts where its
    rows do. Inputs are [N, units], N the same in each replica.
    """

    def call(self, inputs: tf.Tensor, training: bool = False) -> tf.Tensor:
        """Inputs with a fraction `rate` of them at 0 and the others divided by `1 - rate`, if `training`."""
        if not training or self.rate == 0:
            return inputs
        replica = tf.distribute.get_replica_context()
        rows_before = 0 if replica is None else replica.replica_id_in_sync_group * tf.shape(inputs)[0]
        drawn = _uniform(self.seed_generator.next(), rows_before, tf.shape(inputs)[0], inputs.shape[1])
        return tf.where(drawn >= self.rate, inputs / (1 - self.rate), tf.zeros_like(inputs))


def _uniform(seed: tf.Tensor, first_row: Any, rows: Any, columns: int) -> tf.Tensor:
    """Rows from `first_row` on of the endless matrix that `seed`, two integers, stands for: float32 in [0, 1)."""
    counts_per_row = -(-columns // _NUMBERS_PER_COUNT)
    made = tf.raw_ops.StatelessRandomGetKeyCounter(seed=tf.cast(seed, tf.int64))
    skipped = tf.cast(first_row * counts_per_row, tf.uint64)
    numbers = tf.raw_ops.StatelessRandomUniformV2(
        shape=[rows, counts_per_row * _NUMBERS_PER_COUNT],
        key=made.key,
        counter=made.counter + tf.stack([skipped, tf.zeros_like(skipped)]),
        alg=_PHILOX,
    )
    return numbers[:, :columns]
