"""The model that is trained, by several replicas at once, and the plain one that is kept."""

from __future__ import annotations

import math
from typing import Any

import tensorflow as tf

from lenet_keras.backend import float32_by_default, keras
from lenet_keras.checkpoint import capture, restore
from lenet_keras.config import TrainConfig
from lenet_keras.distribution.strategy import Placement
from lenet_keras.inference.run_model import build_run_model

_PHILOX = 1  # tf.random.Algorithm.PHILOX, as an operation's argument
_NUMBERS_PER_COUNT = 4  # float32s that Philox makes from one value of its counter


def plain_model(config: TrainConfig) -> keras.Model:
    """Return the variant that `config` describes, compiled: plain Keras in float32.

    >>> plain_model(TrainConfig(reg="weight_decay")).count_params()
    61706
    """
    model = build_run_model(config)
    compile_model(model, config)
    return model


def training_model(config: TrainConfig, placement: Placement) -> keras.Model:
    """Return the variant that `config` describes, compiled, as the devices of `placement` train it."""
    with placement.strategy.scope():
        model = replicated(build_run_model(config), placement.replicas, config.precision)
        compile_model(model, config)
    return model


def trained_model(model: keras.Model, config: TrainConfig) -> keras.Model:
    """Return a `plain_model` with the values of `model`, a trained `training_model`, optimizer included.

    Here the values pass from the model that was trained to the one that is measured, saved and exported.
    """
    plain = plain_model(config)
    restore([*plain.variables, *plain.optimizer.variables], capture([*model.variables, *model.optimizer.variables]))
    return plain


def replicated(model: keras.Model, replicas: int, precision: str = "float32") -> keras.Model:
    """Return a copy of `model` to train, with the same layer names, and the same variables and values in their order.

    - Batch normalisation takes its statistics over the whole batch, not over a replica's share.
    - Dropout draws a mask for the whole batch, of which a replica takes its share, so that replicas have different
      masks, and a batch has the same one however many devices share it.
    - Layers compute in `precision`; with a mixed one, the last layer in float32, for the loss.

    Call it in a strategy's scope.

    Args:
        model: a functional model, its output in float32. It remains unchanged.
        replicas: how many train it.
        precision: the name of a Keras dtype policy.
    """
    last = model.layers[-1].name

    def copy(layer: keras.Layer) -> keras.Layer:
        config = layer.get_config()
        config["dtype"] = "float32" if layer.name == last and precision.startswith("mixed") else precision
        if isinstance(layer, keras.layers.BatchNormalization):
            return keras.layers.BatchNormalization.from_config({**config, "synchronized": replicas > 1})
        if isinstance(layer, keras.layers.Dropout):
            return share_masks(keras.layers.Dropout.from_config(config))
        return type(layer).from_config(config)

    copied = keras.models.clone_model(model, clone_function=copy)
    copied.dtype_policy = model.dtype_policy
    restore(copied.variables, capture(model.variables))
    return copied


def compile_model(model: keras.Model, config: TrainConfig) -> None:
    """Give `model` the loss and the optimizer, built, that `config` describes; call it in the model's scope."""
    with float32_by_default():
        # Named, as Keras would number them in each process, and model.keras would differ.
        optimizer = keras.optimizers.Adam(config.learning_rate, epsilon=1e-7, name="adam")
        if config.precision == "mixed_float16":
            optimizer = keras.optimizers.LossScaleOptimizer(optimizer, name="loss_scale")
        model.compile(
            optimizer=optimizer,
            loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
            metrics=["accuracy"],
        )
        model.optimizer.build(model.trainable_variables)


def share_masks(dropout: keras.layers.Dropout) -> keras.layers.Dropout:
    """Make the masks of a layer independent of how many replicas share a batch, and return it.

    Keras's own draws the same mask in each replica. Here the numbers for a batch, in row order, are a stretch of
    Philox's stream (Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3"), and a replica starts where its
    rows do. Inputs are [N, ...], with the same N in each replica.

    The layer is not of a class of our own, so that a model saved by a callback loads without this package.
    """

    def call(inputs: tf.Tensor, training: bool = False) -> tf.Tensor:
        if not training or dropout.rate == 0:
            return inputs
        replica = tf.distribute.get_replica_context()
        rows_before = 0 if replica is None else replica.replica_id_in_sync_group * tf.shape(inputs)[0]
        drawn = _uniform(dropout.seed_generator.next(), rows_before, tf.shape(inputs)[0], math.prod(inputs.shape[1:]))
        drawn = tf.reshape(drawn, tf.shape(inputs))
        return tf.where(drawn >= dropout.rate, inputs / (1 - dropout.rate), tf.zeros_like(inputs))

    dropout.call = call
    return dropout


def _uniform(seed: tf.Tensor, first_row: Any, rows: Any, columns: int) -> tf.Tensor:
    # Rows from `first_row` on of the endless matrix that `seed` (two integers) stands for: float32 in [0, 1).
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
