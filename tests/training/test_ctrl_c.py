"""Ctrl-C in a program that calls the library, with Python's own handler: at every line of an epoch's end."""

import os
import signal
import sys
import threading
from pathlib import Path

import keras
import pytest

import lenet_keras
from lenet_keras.checkpoint import StateStore, encode
from lenet_keras.data.arrays import Split, hold_out
from lenet_keras.data.load import load
from lenet_keras.distribution.strategy import place
from lenet_keras.runs import RunFolder
from lenet_keras.training.epochs import Epochs
from lenet_keras.training.interruption import CtrlC
from lenet_keras.training.replicas import training_model

from .comparison import config

PACKAGE = str(Path(lenet_keras.__file__).parent)


class Halve(keras.callbacks.Callback):
    """Changes the model at the end of an epoch, which must happen once, and stops after the first of two."""

    def on_epoch_end(self, epoch, logs=None):
        rate = self.model.optimizer.learning_rate
        rate.assign(rate / 2)
        self.model.stop_training = epoch == 0


class Training:
    """A training of tiny epochs, of two steps each, that can start again from any state."""

    def __init__(self):
        settings = config(reg="dropout", epochs=2, batch_size=8, early_stopping=3)
        placement = place(settings)
        training, validation = hold_out(load("fashion_mnist_sample").train, 100, 0)
        self._epochs = Epochs(
            training_model(settings, placement),
            Split(training.images[:16], training.labels[:16]),
            Split(validation.images[:8], validation.labels[:8]),
            settings,
            placement,
        )
        self._epochs._loop.steps_per_call = 1
        self._start = self._epochs._state()

    def run(self, folder, *, resume=False, callbacks=()):
        """Train in `folder` as `train` does."""
        states = StateStore(folder)
        self._epochs.restore((states.read() if resume else None) or self._start)

        def save(state):
            states.write(state)
            if state.progress.step == 0:
                RunFolder(folder).write_history(state.history)

        self._epochs.run([Halve(), *callbacks], save)


def content(folder):
    """What must be bit-identical: the state without times, and the number of rows of history.csv."""
    state = StateStore(folder).read()
    for row in state.history:
        del row["seconds"], row["images_per_second"]
    return encode(state), len((folder / "history.csv").read_text().splitlines())


@pytest.fixture(scope="module")
def training():
    return Training()


@pytest.fixture(scope="module")
def whole(training, tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    training.run(folder)
    assert len(StateStore(folder).read().history) == 1
    return content(folder)


@pytest.fixture
def default_handler():
    """Python's own handler, also where a shell has started the suite with Ctrl-C ignored."""
    earlier = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    assert signal.signal(signal.SIGINT, earlier) is signal.default_int_handler


class At:
    """Raises KeyboardInterrupt before a line of this package, as Python's handler may.

    Lines are counted when they are first reached after the steps of an epoch.
    """

    def __init__(self, count):
        self.left = count
        self.where = None
        self._seen = set()
        self._is_counting = False

    def __call__(self, frame, event, _argument):
        name = frame.f_code.co_name
        if not frame.f_code.co_filename.startswith(PACKAGE) or "tensorboard" in frame.f_code.co_filename:
            return None
        if event == "call" and name == "_measure_epoch":
            self._is_counting = True
        elif event == "call" and name == "_train_steps":
            self._is_counting = False
        elif event == "line" and self._is_counting and (line := (frame.f_code, frame.f_lineno)) not in self._seen:
            self._seen.add(line)
            self.left -= 1
            if self.left == 0:
                self.where = name
                raise KeyboardInterrupt
        return self


def test_an_interruption_at_any_line_of_an_epochs_end_loses_nothing(training, whole, tmp_path):
    count = 0
    while True:
        count += 1
        folder = tmp_path / str(count)
        folder.mkdir()
        trace = At(count)
        sys.settrace(trace)
        try:
            training.run(folder)
        except KeyboardInterrupt:
            pass
        finally:
            sys.settrace(None)
        if trace.left > 0:  # the epoch's end has no more lines
            break
        state = StateStore(folder).read()
        is_closed = (len(state.history), state.progress.step) == (1, 0)
        assert is_closed or (len(state.history), state.progress.step) == (0, 2), count
        assert is_closed or trace.where not in ("write", "replacing", "write_history"), count  # callbacks were done
        training.run(folder, resume=True)
        assert content(folder) == whole, count
    assert count > 100


@pytest.mark.parametrize("where", ["advance", "write", "write_history"])
def test_a_first_ctrl_c_waits_and_loses_no_step(training, whole, tmp_path, monkeypatch, default_handler, where):
    from lenet_keras.training.loop import TrainingLoop

    owner = {"advance": TrainingLoop, "write": StateStore, "write_history": RunFolder}[where]
    original, calls = getattr(owner, where), []

    def interrupted(*arguments):
        calls.append(where)
        if len(calls) == 1:
            os.kill(os.getpid(), signal.SIGINT)
        return original(*arguments)

    monkeypatch.setattr(owner, where, interrupted)
    with pytest.raises(KeyboardInterrupt):
        training.run(tmp_path)
    monkeypatch.undo()
    state = StateStore(tmp_path).read()
    assert (len(state.history), state.progress.step) == ((0, 1) if where == "advance" else (1, 0))
    training.run(tmp_path, resume=True)
    assert content(tmp_path) == whole


def test_a_second_ctrl_c_does_not_wait(default_handler):
    reached = []
    with pytest.raises(KeyboardInterrupt), CtrlC().held_back():
        signal.raise_signal(signal.SIGINT)
        reached.append(1)
        signal.raise_signal(signal.SIGINT)
        reached.append(2)
    assert reached == [1]


def test_one_that_nothing_has_raised_is_raised_at_the_end(default_handler):
    with pytest.raises(KeyboardInterrupt), CtrlC().held_back():
        signal.raise_signal(signal.SIGINT)


@pytest.mark.usefixtures("default_handler")
def test_a_program_that_handles_ctrl_c_keeps_its_handler():
    received = []
    signal.signal(signal.SIGINT, lambda *_: received.append("own"))
    with CtrlC().held_back():
        signal.raise_signal(signal.SIGINT)
    assert received == ["own"]
    signal.signal(signal.SIGINT, signal.default_int_handler)
    with CtrlC().held_back():
        own = signal.signal(signal.SIGINT, signal.SIG_IGN)  # a callback that installs one
    assert own is not signal.default_int_handler
    assert signal.signal(signal.SIGINT, signal.default_int_handler) is signal.SIG_IGN


def test_another_thread_than_the_main_one_trains_without_a_handler(default_handler):
    outcomes = []

    def body():
        with CtrlC().held_back():
            outcomes.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=body)
    thread.start()
    thread.join()
    assert outcomes == [signal.default_int_handler]
