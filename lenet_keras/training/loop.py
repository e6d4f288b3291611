"""The training loop: many steps in one graph call, built only on the public API of Keras and tf.distribute."""

from __future__ import annotations

import functools
import time
from typing import Any

import numpy.typing as npt
import tensorflow as tf

from lenet_keras.backend import keras
from lenet_keras.checkpoint import EpochProgress
from lenet_keras.data.arrays import Split, epoch_order
from lenet_keras.training.adam import gradient_step
from lenet_keras.training.fast_step import training_call

# Python is entered once per this many steps: rarely enough to cost nothing, often enough for a progress bar and
# Ctrl-C.
STEPS_PER_CALL = 50
# Fewer steps with larger batches, so that a call takes at most half a second on two cores from 2020, or a second with
# batch normalisation: a scheduler that sends SIGTERM kills the process some seconds later.
IMAGES_PER_CALL = 3200


class TrainingLoop:
    """Trains `model` with its compiled optimizer on `split`, whose images stay in the device's memory as uint8."""

    def __init__(
        self,
        model: keras.Model,
        split: Split,
        batch_size: int,
        strategy: tf.distribute.Strategy,
        *,
        cores: int = 1,
        xla: bool = False,
    ) -> None:
        """Prepare to train.

        Args:
            model: compiled; its variables and optimizer were created in `strategy`'s scope.
            split: training images, at least `batch_size`.
            batch_size: images per step, across all replicas, which get equal shares.
            strategy: runs the steps.
            cores: how many processor cores compute a replica's share side by side. They divide its size.
            xla: whether XLA compiles the computation of the gradients.
        """
        self.model = model
        self.batch_size = batch_size
        self.size = len(split.labels)
        self.steps = self.size // batch_size
        self.steps_per_call = max(1, min(STEPS_PER_CALL, IMAGES_PER_CALL // batch_size))
        self._strategy = strategy
        devices = map(tf.DeviceSpec.from_string, strategy.extended.worker_devices)
        is_fast = all(device.device_type == "CPU" for device in devices)  # elsewhere it was not measured
        self._call = training_call(model, cores) if is_fast else functools.partial(model, training=True)
        self._apply = gradient_step(model.optimizer, model.trainable_variables, strategy.num_replicas_in_sync)
        self._images = self._on_each_device(split.images)
        self._labels = self._on_each_device(split.labels)
        # Not the whole step: communication between devices cannot be compiled (keras-team/keras#19005).
        self._compute = tf.function(self._gradients, jit_compile=True, autograph=False) if xla else self._gradients
        # Traced now, so that the first epoch's speed is the speed of its steps.
        self._run_steps = tf.function(self._steps).get_concrete_function(
            tf.TensorSpec((self.size,), tf.int64),
            tf.TensorSpec((), tf.int32),
            tf.TensorSpec((), tf.int32),
            tf.TensorSpec((), tf.float64),
            tf.TensorSpec((), tf.int64),
        )

    def order(self, seed: int, epoch: int) -> tf.Tensor:
        """Return the order of the images, int64 [size], in an epoch (counted from 0) of the run with this seed."""
        return tf.constant(epoch_order(seed, epoch, self.size))

    def advance(self, order: tf.Tensor, progress: EpochProgress, stop: int) -> EpochProgress:
        """Train the steps from `progress.step` to `stop`, at most `steps_per_call` of them.

        However an epoch is divided into calls, weights and sums are bit-identical. After a step whose loss is infinite
        or NaN, no further step is trained: the sum shows it, and `step` is that step's number, counted from 1.
        """
        stop = min(stop, progress.step + self.steps_per_call)
        start = time.perf_counter()
        loss_sum, correct, step = self._run_steps(
            order,
            tf.constant(progress.step),
            tf.constant(stop),
            tf.constant(progress.loss_sum, tf.float64),
            tf.constant(progress.correct, tf.int64),
        )
        loss_sum, correct, step = float(loss_sum), int(correct), int(step)
        return EpochProgress(step, loss_sum, correct, progress.seconds + time.perf_counter() - start)

    def means(self, progress: EpochProgress) -> dict[str, float]:
        """Return means over the images of the epoch so far, each with the weights and dropout mask of its step.

        They are "loss" (cross-entropy in nats, without the weight penalty) and "accuracy" (a fraction).
        """
        seen = progress.step * self.batch_size
        return {"loss": progress.loss_sum / seen, "accuracy": progress.correct / seen}

    def _steps(
        self, order: tf.Tensor, step: tf.Tensor, stop: tf.Tensor, loss_sum: tf.Tensor, correct: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        # AutoGraph is for this loop only: to convert the step, which has no control flow, takes half a second.
        replica_step = tf.autograph.experimental.do_not_convert(self._replica_step)
        while step < stop and tf.math.is_finite(loss_sum):
            chosen = tf.slice(order, [step * self.batch_size], [self.batch_size])
            replicas = self._strategy.run(replica_step, args=(chosen, self._images, self._labels))
            sums = self._strategy.reduce("SUM", replicas, axis=None)
            loss_sum += tf.cast(sums[0], tf.float64)
            correct += tf.cast(sums[1], tf.int64)
            step += 1
        return loss_sum, correct, step

    def _replica_step(self, chosen: tf.Tensor, images: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
        share = self.batch_size // self._strategy.num_replicas_in_sync
        first = tf.distribute.get_replica_context().replica_id_in_sync_group * share
        chosen = tf.slice(chosen, [first], [share])
        images, labels = tf.gather(images, chosen), tf.gather(labels, chosen)
        gradients, sums = self._compute(images, labels)
        is_scaled = isinstance(self.model.optimizer, keras.optimizers.LossScaleOptimizer)
        if is_scaled and self._strategy.num_replicas_in_sync > 1:
            gradients = self._overflowing_together(gradients)
        self._apply(gradients)
        return sums

    def _gradients(self, images: tf.Tensor, labels: tf.Tensor) -> tuple[list[tf.Tensor], tf.Tensor]:
        with tf.GradientTape() as tape:
            logits = self._call(tf.cast(images, tf.float32))
            losses = tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits)
            # Divided by the batch size of all replicas together, so that their gradients add up to the batch's mean.
            objective = tf.reduce_sum(losses) / self.batch_size
            if self.model.losses:
                objective += tf.add_n(self.model.losses) / self._strategy.num_replicas_in_sync
            objective = self.model.optimizer.scale_loss(objective)
        gradients = tape.gradient(objective, self.model.trainable_variables)
        correct = tf.cast(tf.equal(tf.argmax(logits, axis=-1), labels), losses.dtype)
        # Loss and number correct in one tensor, which takes one message between workers.
        return gradients, tf.stack([tf.reduce_sum(losses), tf.reduce_sum(correct)])

    def _overflowing_together(self, gradients: list[tf.Tensor]) -> list[tf.Tensor]:
        # Keras has each replica look only at its own gradients to tell whether the step overflowed in float16. Those
        # that saw no overflow would apply the sum, which is infinite, and the workers would part ways.
        own = tf.add_n([tf.reduce_sum(0 * gradient) for gradient in gradients])  # 0; NaN if any is infinite or NaN
        total = tf.distribute.get_replica_context().all_reduce("SUM", own)
        return [gradient + total for gradient in gradients]

    def _on_each_device(self, values: npt.NDArray[Any]) -> Any:
        # With a copy on another device, every step would have to fetch its images. CPU devices share one copy.
        devices = self._strategy.extended.worker_devices
        whole = tf.constant(values)

        def copy(replica: tf.distribute.experimental.ValueContext) -> tf.Tensor:
            with tf.device(devices[replica.replica_id_in_sync_group % len(devices)]):
                return tf.identity(whole)

        return self._strategy.experimental_distribute_values_from_function(copy)
