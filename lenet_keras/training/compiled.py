"""A model with the optimizer and the loss that settings describe."""

from __future__ import annotations

import keras

from lenet_keras.config import TrainConfig
from lenet_keras.data import Dataset
from lenet_keras.distribution.placement import Placement
from lenet_keras.models import build_lenet5
from lenet_keras.training.replicas import training_model


def compiled_model(config: TrainConfig, dataset: Dataset) -> keras.Model:
    """The variant that `config` describes, compiled for `dataset`: plain Keras in float32."""
    model = build_lenet5(
        reg=config.reg,
        num_classes=len(dataset.spec.class_names),
        input_shape=dataset.train.images.shape[1:],
        activation=config.activation,
        pooling=config.pooling,
        dropout_rate=config.dropout_rate,
        weight_decay=config.weight_decay,
        seed=config.seed,
    )
    compile_model(model, config)
    return model


def trained_copy(model: keras.Model, config: TrainConfig, placement: Placement) -> keras.Model:
    """A copy of `model` that `placement`'s devices can train, compiled; see `training_model`."""
    with placement.strategy.scope():
        copy = training_model(model, placement.replicas, config.precision)
        compile_model(copy, config)
    return copy


def compile_model(model: keras.Model, config: TrainConfig) -> None:
    """Give `model` the optimizer, built, and the loss that `config` describes; in the scope that made the model."""
    optimizer = keras.optimizers.Adam(config.learning_rate)
    if config.precision == "mixed_float16":
        optimizer = keras.optimizers.LossScaleOptimizer(optimizer)
    model.compile(
        optimizer=optimizer,
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    model.optimizer.build(model.trainable_variables)
