"""The epochs of a training: loop, validation, callbacks, state, and when to stop."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
import numpy.typing as npt

from lenet_keras.checkpoint import EpochProgress, TrainingState, capture, restore
from lenet_keras.config import TrainConfig
from lenet_keras.data import Split
from lenet_keras.distribution.placement import Placement
from lenet_keras.errors import LenetKerasError
from lenet_keras.metrics import loss_and_accuracy
from lenet_keras.training.loop import TrainingLoop
from lenet_keras.training.predictor import Predictor
from lenet_keras.training.record import Record


class Epochs:
    """A training of `model` that can be captured between any two steps."""

    def __init__(
        self,
        model: keras.Model,
        training: Split,
        validation: Split,
        config: TrainConfig,
        placement: Placement,
    ) -> None:
        """Prepare to train; `model` is compiled and its optimizer built, in the placement's scope."""
        self.model = model
        self.history: list[dict[str, float]] = []
        self._config = config
        self._validation = validation
        self._best: dict[str, npt.NDArray[Any]] = {}
        self._variables = [*model.variables, *model.optimizer.variables]
        self._workers = placement.workers
        self._loop = TrainingLoop(model, training, config.batch_size, placement.strategy, xla=config.xla)
        self._progress = EpochProgress()
        self._is_consistent = False  # whether variables, progress and history belong to the same step
        self._predict = Predictor(model, placement.workers)

    @property
    def place(self) -> str:
        """What is done, for people: "epoch 3", "step 200 of epoch 4"."""
        epoch, step = len(self.history), self._progress.step
        if step:
            return f"step {step} of epoch {epoch + 1}"
        return f"epoch {epoch}" if epoch else "nothing: the run was ended before its first state was written"

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
        self._progress = state.progress
        self._best = state.best

    def run(self, record: Record, callbacks: Sequence[keras.callbacks.Callback]) -> None:
        """Train the epochs that are left, writing state and history at the end of each; end with the best weights.

        Raises:
            LenetKerasError: loss or weights became infinite or NaN; the last good state is kept.
            OSError: the run folder cannot be written to; what was written before is intact.
            KeyboardInterrupt: passed on, after the state was written if it came between two calls of the loop. A
                callback that raises it in `on_train_batch_end` loses no step, and stops all workers at that one.
        """
        self.model.stop_training = False
        listeners = keras.callbacks.CallbackList(
            list(callbacks), model=self.model, epochs=self._config.epochs, steps=self._loop.steps, verbose=0
        )
        if self.history:
            record.write_history(self.history)  # a process killed between state and history left it one row short
        self._is_consistent = True
        try:
            listeners.on_train_begin()
            while not self.is_done and not self.model.stop_training:
                self._call(listeners.on_epoch_begin, len(self.history))  # callbacks count from 0
                self._train_steps(listeners, record)
                row = self._measure_epoch()
                logs = {name: row[name] for name in row if name != "epoch"}
                self._call(listeners.on_epoch_end, len(self.history), logs)
                self.model.stop_training = self._workers.any(self.model.stop_training)
                self._close_epoch(row)
                self._save(record)
                record.write_history(self.history)
            self._call(listeners.on_train_end)
        except KeyboardInterrupt:
            if self._is_consistent and self._progress.step:
                self._check_weights()
                self._save(record)
            raise
        if self._best:
            restore(self.model.variables, self._best)

    def _train_steps(self, listeners: keras.callbacks.CallbackList, record: Record) -> None:
        order = self._loop.order(self._config.seed, len(self.history))
        every = self._config.checkpoint_steps or self._loop.steps
        while (start := self._progress.step) < self._loop.steps:
            stop = min(start - start % every + every, self._loop.steps)
            self._is_consistent = False
            self._progress = self._loop.advance(order, self._progress, stop)
            if not np.isfinite(self._progress.loss_sum):
                raise self._diverged(f"the loss became {self._progress.loss_sum}")
            self._is_consistent = True
            listeners.on_train_batch_begin(start)
            logs = self._loop.means(self._progress)
            self._call(listeners.on_train_batch_end, self._progress.step - 1, logs)
            if self._progress.step == stop:
                self._check_weights()
                if stop < self._loop.steps:
                    self._save(record)

    def _call(self, listener: Callable[..., None], *arguments: Any) -> None:
        """Call the callbacks. What interrupts one worker interrupts all, here, where none waits for another."""
        is_interrupted = False
        try:
            listener(*arguments)
        except KeyboardInterrupt:
            is_interrupted = True
        if self._workers.any(is_interrupted):
            raise KeyboardInterrupt

    def _measure_epoch(self) -> dict[str, float]:
        means, seconds = self._loop.means(self._progress), self._progress.seconds
        row = {"epoch": len(self.history) + 1, "loss": means["loss"], "accuracy": means["accuracy"]}
        if len(self._validation):
            measured = loss_and_accuracy(self._predict(self._validation.images), self._validation.labels)
            if not np.isfinite(measured["loss"]):
                raise self._diverged(f"the validation loss became {measured['loss']}")
            row |= {"val_loss": measured["loss"], "val_accuracy": measured["accuracy"]}
        row["learning_rate"] = float(np.asarray(self.model.optimizer.learning_rate))
        images = self._loop.steps * self._loop.batch_size
        row |= {"seconds": seconds, "images_per_second": images / seconds}
        # The chief's, bit for bit: on it depends when all of them stop.
        agreed: dict[str, float] = json.loads(self._workers.from_chief(json.dumps(row).encode()))
        return agreed

    def _close_epoch(self, row: dict[str, float]) -> None:
        self._is_consistent = False
        self.history.append(row)
        self._progress = EpochProgress()
        if self.best_epoch == len(self.history):
            self._best = capture(self.model.variables)
        self._is_consistent = True

    def _save(self, record: Record) -> None:
        record.save(TrainingState(capture(self._variables), self.history, self._progress, self._best))

    def _check_weights(self) -> None:
        # The step that made a weight infinite had a finite loss still.
        for variable in self._variables:
            value = np.asarray(variable)
            if np.issubdtype(value.dtype, np.floating) and not np.isfinite(value).all():
                raise self._diverged(f"{variable.path} became infinite or NaN")

    def _diverged(self, what: str) -> LenetKerasError:
        return LenetKerasError(
            f"{what} in epoch {len(self.history) + 1}, step {self._progress.step}. The last good state is kept. "
            "Begin anew with a smaller --learning-rate."
        )
