"""The epochs of training: loop, validation, callbacks, state, and when to stop."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from lenet_keras.backend import keras
from lenet_keras.checkpoint import Arrays, EpochProgress, TrainingState, capture, restore
from lenet_keras.config import TrainConfig
from lenet_keras.data.arrays import Split
from lenet_keras.distribution.strategy import Placement
from lenet_keras.errors import Diverged
from lenet_keras.inference.measure import Predictor, loss_and_accuracy
from lenet_keras.training.interruption import CtrlC
from lenet_keras.training.loop import TrainingLoop

Save = Callable[[TrainingState], None]


class Epochs:
    """The training of `model`, whose state can be captured between any two steps."""

    def __init__(
        self,
        model: keras.Model,
        training: Split,
        validation: Split,
        config: TrainConfig,
        placement: Placement,
        recorded: Split | None = None,
    ) -> None:
        """Prepare to train.

        Args:
            model: compiled and its optimizer built, in the placement's scope.
            training: the images to train on.
            validation: those that select; there may be none.
            config: the settings.
            placement: where to train.
            recorded: images to measure after every epoch, for the record only.
        """
        self.model = model
        self.history: list[dict[str, float]] = []
        self._config = config
        self._validation = validation
        self._recorded = recorded
        self._best: Arrays = {}
        self._stopped_of: int | None = None  # as in the state
        self._unsaved: TrainingState | None = None  # what an interruption at the end of an epoch saves
        self._variables = [*model.variables, *model.optimizer.variables]
        self._workers = placement.workers
        self._loop = TrainingLoop(
            model, training, config.batch_size, placement.strategy, cores=placement.cores, xla=config.xla
        )
        self._progress = EpochProgress()
        self._is_consistent = False  # whether variables, progress and history belong to the same step
        self._is_saved = False  # whether there is a state to go back to
        self._predict = Predictor(model, placement.workers)
        self._ctrl_c = CtrlC()

    @property
    def place(self) -> str | None:
        """What was trained last, for people: "epoch 3", "step 200 of epoch 4"; None if nothing was."""
        epoch, step = len(self.history), self._progress.step
        if step:
            return f"step {step} of epoch {epoch + 1}"
        return f"epoch {epoch}" if epoch else None

    @property
    def best_epoch(self) -> int | None:
        """The epoch, counted from 1, with the lowest validation loss; None without early stopping."""
        if self._config.early_stopping is None or not self.history:
            return None
        return 1 + int(np.argmin([row["val_loss"] for row in self.history]))

    @property
    def is_done(self) -> bool:
        """Whether all epochs are trained, or early stopping or a callback has ended the training."""
        done = len(self.history)
        return (
            done >= self._config.epochs
            or self._config.has_stopped_early(done, self.best_epoch)
            or (self._stopped_of is not None and self._config.epochs <= self._stopped_of)
        )

    def restore(self, state: TrainingState) -> None:
        """Resume from `state`.

        Raises:
            LenetKerasError: it belongs to another model or optimizer.
        """
        restore(self._variables, state.variables)
        self.history = list(state.history)
        self._progress = state.progress
        self._best = state.best
        self._stopped_of = state.stopped_of
        self._is_saved = True

    def run(self, callbacks: Sequence[keras.callbacks.Callback], save: Save, verbose: int = 0) -> None:
        """Train the remaining epochs, calling `save` with the state at the end of each; end with the best weights.

        Keras's own progress bar is shown if `verbose` says so.

        A first Ctrl-C waits until the loop is between two calls, if Python's own handler would have raised
        `KeyboardInterrupt` anywhere.

        Raises:
            Diverged: the loss or a weight became infinite or NaN; none of it was saved.
            KeyboardInterrupt: passed on, after the state has been saved. Only one that comes within a call of the loop
                loses the steps since the last state. A callback that raises it in `on_train_batch_end` loses none, and
                stops all workers at the same step; one that raises it in `on_epoch_end` is called again for the epoch.
        """

        def keep(state: TrainingState) -> None:
            save(state)
            self._is_saved = True

        self.model.stop_training = False
        listeners = keras.callbacks.CallbackList(
            list(callbacks),
            add_progbar=verbose != 0,
            model=self.model,
            epochs=self._config.epochs,
            steps=self._loop.steps,
            verbose=verbose,
        )
        self._is_consistent = True
        with self._ctrl_c.held_back():
            try:
                self._run(listeners, keep)
            except KeyboardInterrupt:
                if self._unsaved is not None:
                    save(self._unsaved)
                elif self._is_consistent and self._progress.step:
                    self._check_weights()
                    save(self._state())
                raise
        if self._best:
            restore(self.model.variables, self._best)

    def _run(self, listeners: keras.callbacks.CallbackList, save: Save) -> None:
        listeners.on_train_begin()
        while not self.is_done and not self.model.stop_training:
            self._call(listeners.on_epoch_begin, len(self.history))  # callbacks count from 0
            self._train_steps(listeners, save)
            row = self._measure_epoch()
            # From here to the end of the epoch, an interruption saves one of two states: callbacks may change the
            # model, so if they are not done, the one before them, with which the resumed run calls them again.
            self._unsaved = self._state()
            self._call(listeners.on_epoch_end, len(self.history), {name: row[name] for name in row if name != "epoch"})
            self._unsaved = closed = self._closed(row, self._workers.any(self.model.stop_training))
            save(closed)
            self.history, self._progress, self._best = closed.history, closed.progress, closed.best
            self._stopped_of = closed.stopped_of
            self._unsaved = None
        self._call(listeners.on_train_end)

    def _train_steps(self, listeners: keras.callbacks.CallbackList, save: Save) -> None:
        order = self._loop.order(self._config.seed, len(self.history))
        every = self._config.checkpoint_steps or self._loop.steps
        while (start := self._progress.step) < self._loop.steps:
            stop = min(start - start % every + every, self._loop.steps)
            self._call(listeners.on_train_batch_begin, start)
            self._is_consistent = False
            self._progress = self._loop.advance(order, self._progress, stop)
            if not np.isfinite(self._progress.loss_sum):
                raise self._diverged(f"the loss became {self._progress.loss_sum}")
            self._is_consistent = True
            logs = self._loop.means(self._progress)
            self._call(listeners.on_train_batch_end, self._progress.step - 1, logs)
            if self._progress.step == stop:
                self._check_weights()
                if stop < self._loop.steps:
                    save(self._state())

    def _call(self, listener: Callable[..., None], *arguments: Any) -> None:
        # Whatever interrupts one worker interrupts all of them here, where none is waiting for another.
        is_interrupted = False
        try:
            listener(*arguments)
            is_interrupted = self._ctrl_c.is_waiting
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
        if self._recorded is not None:
            measured = loss_and_accuracy(self._predict(self._recorded.images), self._recorded.labels)
            row |= {"test_loss": measured["loss"], "test_accuracy": measured["accuracy"]}
        row["learning_rate"] = float(np.asarray(self.model.optimizer.learning_rate))
        images = self._loop.steps * self._loop.batch_size
        row |= {"seconds": seconds, "images_per_second": images / seconds}
        # Bit for bit the chief's, since these values decide when all of them stop.
        agreed = self._workers.from_chief(np.array(list(row.values()), np.float64))
        return {**dict(zip(row, agreed.tolist(), strict=True)), "epoch": row["epoch"]}

    def _closed(self, row: dict[str, float], is_stopped: bool) -> TrainingState:
        history = [*self.history, row]
        is_best = self._config.early_stopping is not None and row["val_loss"] < min(
            (earlier["val_loss"] for earlier in self.history), default=np.inf
        )
        return TrainingState(
            capture(self._variables),
            history,
            EpochProgress(),
            capture(self.model.variables) if is_best else self._best,
            self._config.epochs if is_stopped else None,
        )

    def _state(self) -> TrainingState:
        return TrainingState(capture(self._variables), self.history, self._progress, self._best, self._stopped_of)

    def _check_weights(self) -> None:
        # In the step that makes a weight infinite the loss is still finite.
        for variable in self._variables:
            value = np.asarray(variable)
            if np.issubdtype(value.dtype, np.floating) and not np.isfinite(value).all():
                raise self._diverged(f"{variable.path} became infinite or NaN")

    def _diverged(self, what: str) -> Diverged:
        kept = "The last good state is kept" if self._is_saved else "No state was saved before"
        return Diverged(f"{what} in epoch {len(self.history) + 1}, step {self._progress.step}. {kept}.")
