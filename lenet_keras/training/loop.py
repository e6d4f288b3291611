"""The training loop: many steps in one graph call, over the public API of Keras and tf.distribute alone."""

from __future__ import annotations

import time
from collections.abc import Callable

import keras
import numpy as np
import tensorflow as tf

from lenet_keras.data import Split
from lenet_keras.data.order import epoch_order
from lenet_keras.errors import LenetKerasError

# Python is entered once in so many steps: seldom enough to cost nothing, often enough for a progress bar and Ctrl-C.
STEPS_PER_CALL = 50


class TrainingLoop:
    """Trains `model` with its compiled optimizer on `split`; the images lie in the device's memory as uint8."""

    def __init__(self, model: keras.Model, split: Split, batch_size: int, strategy: tf.distribute.Strategy) -> None:
        """Prepare to train.

        Args:
            model: compiled; its variables and optimizer were made under `strategy`'s scope.
            split: training images, at least `batch_size`.
            batch_size: images a step, over all replicas.
            strategy: where the steps run.
        """
        self.model = model
        self.batch_size = batch_size
        self.size = len(split.labels)
        self.steps = self.size // batch_size
        self._images = tf.constant(split.images)
        self._labels = tf.constant(split.labels)
        self._strategy = strategy
        # Traced now, so that the first epoch's speed is that of its steps.
        number = tf.TensorSpec((), tf.int32)
        self._run_steps = tf.function(self._steps).get_concrete_function(
            tf.TensorSpec((self.size,), tf.int64), number, number
        )

    def run_epoch(
        self, seed: int, epoch: int, on_steps: Callable[[int, int, dict[str, float]], None]
    ) -> dict[str, float]:
        """Train one epoch, in the order that `seed` and `epoch` give.

        Args:
            seed: the run's.
            epoch: counted from 0.
            on_steps: called with the first step that ran, the step behind the last, and the epoch's means so far.

        Returns:
            The means over the epoch's images, each under the weights and dropout mask of its step: "loss"
            (cross-entropy in nats, without the weight penalty) and "accuracy" (a fraction); "seconds" and
            "images_per_second".

        Raises:
            LenetKerasError: the loss is no longer a finite number.
        """
        order = tf.constant(epoch_order(seed, epoch, self.size))
        loss_sum, correct = 0.0, 0
        logs: dict[str, float] = {}
        begun = time.perf_counter()
        for start in range(0, self.steps, STEPS_PER_CALL):
            stop = min(start + STEPS_PER_CALL, self.steps)
            call_loss, call_correct = self._run_steps(order, tf.constant(start), tf.constant(stop))
            loss_sum += float(call_loss)
            correct += int(call_correct)
            if not np.isfinite(loss_sum):
                raise LenetKerasError(
                    f"the loss became {loss_sum} in epoch {epoch + 1}, step {start + 1} to {stop}. "
                    "A smaller --learning-rate may help."
                )
            seen = stop * self.batch_size
            logs = {"loss": loss_sum / seen, "accuracy": correct / seen}
            on_steps(start, stop, logs)
        seconds = time.perf_counter() - begun
        return {**logs, "seconds": seconds, "images_per_second": self.steps * self.batch_size / seconds}

    def _steps(self, order: tf.Tensor, start: tf.Tensor, stop: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        loss_sum = tf.constant(0.0, tf.float64)
        correct = tf.constant(0, tf.int64)
        for step in tf.range(start, stop):
            chosen = order[step * self.batch_size : (step + 1) * self.batch_size]
            replicas = self._strategy.run(self._replica_step, args=(chosen,))
            step_loss, step_correct = self._strategy.reduce("SUM", replicas, axis=None)
            loss_sum += tf.cast(step_loss, tf.float64)
            correct += step_correct
        return loss_sum, correct

    def _replica_step(self, chosen: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        images = tf.cast(tf.gather(self._images, chosen), tf.float32)
        labels = tf.gather(self._labels, chosen)
        with tf.GradientTape() as tape:
            logits = self.model(images, training=True)
            losses = tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits)
            # Divided by what all replicas see, so that their gradients add up to the batch's mean.
            objective = tf.reduce_sum(losses) / self.batch_size
            if self.model.losses:
                objective += tf.add_n(self.model.losses) / self._strategy.num_replicas_in_sync
        weights = self.model.trainable_variables
        self.model.optimizer.apply(tape.gradient(objective, weights), weights)
        correct = tf.math.count_nonzero(tf.equal(tf.argmax(logits, axis=-1), labels))
        return tf.reduce_sum(losses), correct
