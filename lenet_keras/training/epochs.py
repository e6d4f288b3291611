"""The epochs of a training: loop, validation, callbacks, state, and when to stop."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
import tensorflow as tf

from lenet_keras.checkpoint import TrainingState, capture, restore, write_state
from lenet_keras.config import TrainConfig
from lenet_keras.data import Split
from lenet_keras.metrics import loss_and_accuracy
from lenet_keras.run_folder import RunFolder
from lenet_keras.training.loop import TrainingLoop
from lenet_keras.training.predictor import Predictor


class Epochs:
    """A training of `model` that can be captured between any two epochs."""

    def __init__(
        self,
        model: keras.Model,
        training: Split,
        validation: Split,
        config: TrainConfig,
        strategy: tf.distribute.Strategy,
    ) -> None:
        """Prepare to train; `model` is compiled and its optimizer built."""
        self.model = model
        self.history: list[dict[str, float]] = []
        self._config = config
        self._validation = validation
        self._best: dict[str, npt.NDArray[Any]] = {}
        self._variables = [*model.variables, *model.optimizer.variables]
        self._loop = TrainingLoop(model, training, config.batch_size, strategy)
        self.predict = Predictor(model)

    @property
    def best_epoch(self) -> int | None:
        """The epoch, counted from 1, whose validation loss is the least; None where nothing selects on it."""
        if self._config.early_stopping is None or not self.history:
            return None
        return 1 + int(np.argmin([row["val_loss"] for row in self.history]))

    @property
    def is_done(self) -> bool:
        """Whether all epochs are trained, or the validation loss has not fallen for `early_stopping` of them."""
        done = len(self.history)
        if self.best_epoch is not None and self._config.early_stopping is not None:
            return done >= self._config.epochs or done - self.best_epoch >= self._config.early_stopping
        return done >= self._config.epochs

    def restore(self, state: TrainingState) -> None:
        """Continue from `state`.

        Raises:
            LenetKerasError: it is of another model or optimizer.
        """
        restore(self._variables, state.variables)
        self.history = list(state.history)
        self._best = state.best

    def run(self, folder: RunFolder, callbacks: Sequence[keras.callbacks.Callback]) -> None:
        """Train the epochs that are left, writing state and history at the end of each; end with the best weights.

        Raises:
            LenetKerasError: the loss became infinite or NaN.
            OSError: the run folder cannot be written to.
        """
        self.model.stop_training = False
        listeners = keras.callbacks.CallbackList(
            list(callbacks), model=self.model, epochs=self._config.epochs, steps=self._loop.steps, verbose=0
        )
        listeners.on_train_begin()
        while not self.is_done and not self.model.stop_training:
            listeners.on_epoch_begin(len(self.history))  # callbacks count from 0
            row = self._train_epoch(listeners)
            listeners.on_epoch_end(len(self.history), {name: row[name] for name in row if name != "epoch"})
            self.history.append(row)
            if self.best_epoch == len(self.history):
                self._best = capture(self.model.variables)
            write_state(folder.state, TrainingState(capture(self._variables), self.history, self._best))
            folder.write_history(self.history)
        listeners.on_train_end()
        if self._best:
            restore(self.model.variables, self._best)

    def measure(self, split: Split) -> dict[str, float]:
        """Loss and accuracy over every image of `split`, dropout off."""
        return loss_and_accuracy(self.predict(split.images), split.labels)

    def _train_epoch(self, listeners: keras.callbacks.CallbackList) -> dict[str, float]:
        def on_steps(start: int, stop: int, logs: dict[str, float]) -> None:
            listeners.on_train_batch_begin(start)
            listeners.on_train_batch_end(stop - 1, logs)

        means = self._loop.run_epoch(self._config.seed, len(self.history), on_steps)
        row = {"epoch": len(self.history) + 1, "loss": means["loss"], "accuracy": means["accuracy"]}
        if len(self._validation):
            measured = self.measure(self._validation)
            row |= {"val_loss": measured["loss"], "val_accuracy": measured["accuracy"]}
        row["learning_rate"] = float(self.model.optimizer.learning_rate)
        return row | {"seconds": means["seconds"], "images_per_second": means["images_per_second"]}
