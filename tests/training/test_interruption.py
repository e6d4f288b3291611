"""What interrupts a training in this process: Ctrl-C, NaN and infinity, and a second training of the same run."""

import dataclasses
import os
import shutil
from pathlib import Path

import keras
import numpy as np
import pytest

from lenet_keras import train
from lenet_keras.checkpoint import StateStore
from lenet_keras.errors import Diverged, InvalidArgument, RunInUse
from lenet_keras.runs import RunFolder

from .comparison import assert_same_run, config


class At(keras.callbacks.Callback):
    """Does something in the given epoch (counted from 0), once that many of its steps are done."""

    def __init__(self, epoch, step, action):
        super().__init__()
        self.when = (epoch, step)
        self.action = action

    def on_epoch_begin(self, epoch, logs=None):
        self.epoch = epoch

    def on_train_batch_end(self, batch, logs=None):
        if (self.epoch, batch + 1) == self.when:
            self.action(self.model)


def interrupt(model):
    raise KeyboardInterrupt


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """An uninterrupted run: three epochs of 25 steps."""
    run_dir = tmp_path_factory.mktemp("whole") / "run"
    train(config(reg="dropout", batch_size=16), run_dir)
    return run_dir


@pytest.mark.parametrize(("every", "step"), [(None, 25), (10, 10), (10, 20), (1, 7)])
def test_ctrl_c_between_two_calls_of_the_loop_loses_no_step(tmp_path, whole, every, step):
    settings = config(reg="dropout", batch_size=16, checkpoint_steps=every)
    with pytest.raises(KeyboardInterrupt):
        train(settings, tmp_path / "run", callbacks=[At(1, step, interrupt)])
    state = StateStore(tmp_path / "run").read()
    assert (len(state.history), state.progress.step) == (1, step)

    with pytest.raises(InvalidArgument, match=r"epochs must be 2 or more to resume .* Received: 1"):
        train(dataclasses.replace(settings, epochs=1), tmp_path / "run", resume=True)

    seen = []
    count = keras.callbacks.LambdaCallback(on_train_batch_begin=lambda batch, logs: seen.append(batch))
    train(settings, tmp_path / "run", resume=True, callbacks=[count])
    assert seen[0] == (step if step < 25 else 0)
    assert_same_run(tmp_path / "run", whole)


def test_batches_begin_before_they_are_trained(tmp_path):
    unchanged = []

    class Rate(keras.callbacks.Callback):
        def on_train_batch_begin(self, batch, logs=None):
            if batch == 0:
                self.before = [variable.numpy() for variable in self.model.trainable_variables]
                self.model.optimizer.learning_rate.assign(0.0)

        def on_train_batch_end(self, batch, logs=None):
            after = [variable.numpy() for variable in self.model.trainable_variables]
            unchanged.append(all(np.array_equal(one, other) for one, other in zip(self.before, after, strict=True)))

    train(config(epochs=1), tmp_path / "run", callbacks=[Rate()])
    assert unchanged
    assert all(unchanged)


def test_a_resumed_run_may_be_saved_more_or_less_often(tmp_path, whole):
    with pytest.raises(KeyboardInterrupt):
        train(config(reg="dropout", batch_size=16, checkpoint_steps=4), tmp_path / "run",
              callbacks=[At(2, 8, interrupt)])  # fmt: skip
    train(config(reg="dropout", batch_size=16, checkpoint_steps=7), tmp_path / "run", resume=True)
    assert_same_run(tmp_path / "run", whole)


def test_within_an_epoch_the_state_is_saved_as_often_as_requested(tmp_path, monkeypatch):
    written = []
    write = StateStore.write
    monkeypatch.setattr(
        StateStore, "write", lambda self, state: (written.append(state.progress.step), write(self, state))
    )
    train(config(epochs=2, batch_size=16, checkpoint_steps=10), tmp_path / "run")
    assert written == [10, 20, 0, 10, 20, 0]  # 0: the epoch is closed


def test_ctrl_c_where_the_state_is_unknown_falls_back_to_the_last_saved_one(tmp_path, whole, monkeypatch):
    """It may come between the graph's return and the assignment of what it returned."""
    from lenet_keras.training.loop import TrainingLoop

    advance, calls = TrainingLoop.advance, []

    def interrupted_after(self, order, progress, stop):
        calls.append(advance(self, order, progress, stop))
        if len(calls) == 3:
            raise KeyboardInterrupt
        return calls[-1]

    monkeypatch.setattr(TrainingLoop, "advance", interrupted_after)
    with pytest.raises(KeyboardInterrupt):
        train(config(reg="dropout", batch_size=16, checkpoint_steps=10), tmp_path / "run")
    monkeypatch.undo()
    assert StateStore(tmp_path / "run").read().progress.step == 20
    train(config(reg="dropout", batch_size=16), tmp_path / "run", resume=True)
    assert_same_run(tmp_path / "run", whole)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"batch_size": 16}, r"the loss became nan in epoch 1, step 2\."),
        ({"batch_size": 400}, r"the validation loss became nan in epoch 1, step 1\."),
    ],
)
def test_a_training_that_diverges_names_epoch_and_step(tmp_path, settings, message):
    with pytest.raises(Diverged, match=message + " No state was saved before"):
        train(config(learning_rate=1e38, **settings), tmp_path / "run")
    assert StateStore(tmp_path / "run").read() is None  # nothing was good
    assert not RunFolder(tmp_path / "run").is_finished


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_weights_that_are_not_finite_are_not_saved(tmp_path, value):
    def spoil(model):
        model.get_layer("logits").bias.assign(np.full(10, value, np.float32))

    with pytest.raises(Diverged, match=r"logits/bias became infinite or NaN in epoch 2, step 20\. The last good"):
        train(config(batch_size=16, checkpoint_steps=10), tmp_path / "run", callbacks=[At(1, 20, spoil)])
    state = StateStore(tmp_path / "run").read()
    assert (len(state.history), state.progress.step) == (1, 10)
    assert all(np.isfinite(array).all() for array in state.variables.values())


def test_a_second_training_of_a_run_is_rejected_with_the_name_of_the_first(tmp_path, whole):
    refused = []

    def train_too(model):
        for settings in ({"resume": True}, {"overwrite": True}):
            with pytest.raises(RunInUse, match=rf"run is in use by process {os.getpid()} on ") as error:
                train(config(reg="dropout", batch_size=16), tmp_path / "run", **settings)
            refused.append(error)

    train(config(reg="dropout", batch_size=16), tmp_path / "run", callbacks=[At(1, 25, train_too)])
    assert len(refused) == 2
    assert_same_run(tmp_path / "run", whole)


def test_auto_starts_a_run_resumes_a_started_one_and_leaves_a_finished_one_alone(tmp_path, whole, caplog):
    settings = config(reg="dropout", batch_size=16)
    with pytest.raises(KeyboardInterrupt):
        train(settings, tmp_path / "run", resume="auto", callbacks=[At(1, 25, interrupt)])
    caplog.set_level("INFO", "lenet_keras")
    train(settings, tmp_path / "run", resume="auto")
    assert "resuming after step 25 of epoch 2" in caplog.messages
    assert_same_run(tmp_path / "run", whole)
    before = (tmp_path / "run" / "metrics.json").stat().st_mtime_ns
    train(settings, tmp_path / "run", resume="auto")
    assert "is finished" in caplog.messages[-1]
    assert (tmp_path / "run" / "metrics.json").stat().st_mtime_ns == before


def test_a_damaged_newest_state_costs_one_epoch_and_changes_no_bit(tmp_path, whole, caplog):
    settings = config(reg="dropout", batch_size=16)
    with pytest.raises(KeyboardInterrupt):
        train(settings, tmp_path / "run", callbacks=[At(2, 25, interrupt)])
    with (tmp_path / "run" / "state.npz").open("r+b") as file:
        file.seek(1000)
        file.write(b"damage")
    train(settings, tmp_path / "run", resume=True)
    assert any("state.npz" in line and "Resuming from the state before it" in line for line in caplog.messages)
    assert_same_run(tmp_path / "run", whole)


def test_a_history_that_is_one_row_short_is_completed(tmp_path, whole):
    """A kill between the last state and history.csv leaves it like this."""
    run_dir = shutil.copytree(whole, tmp_path / "run")
    (run_dir / "metrics.json").unlink()
    lines = (run_dir / "history.csv").read_text().splitlines(keepends=True)
    (run_dir / "history.csv").write_text("".join(lines[:-1]))
    train(config(reg="dropout", batch_size=16), run_dir, resume=True)
    assert_same_run(run_dir, whole)


def test_what_a_killed_process_was_writing_is_removed(tmp_path, whole):
    run_dir = shutil.copytree(whole, tmp_path / "run")
    (run_dir / "metrics.json").unlink()
    (run_dir / ".0123abcd.state.npz").touch()
    train(config(reg="dropout", batch_size=16), run_dir, resume=True)
    assert not (run_dir / ".0123abcd.state.npz").exists()


@pytest.mark.parametrize("left", [[".lock"], [".lock", ".0123abcd.config.json"]])
def test_a_run_may_start_where_one_was_killed_before_it_had_started(tmp_path, left):
    for name in left:
        (tmp_path / name).touch()
    train(config(epochs=1), tmp_path)
    assert RunFolder(tmp_path).is_finished
    assert not (tmp_path / ".0123abcd.config.json").exists()


def test_a_folder_killed_while_a_run_is_replaced_is_still_a_run(tmp_path, whole, monkeypatch):
    """Otherwise it could neither be resumed nor overwritten."""
    unlink = Path.unlink
    for kept in range(1, 20):  # metrics.json comes first
        run_dir = shutil.copytree(whole, tmp_path / str(kept))
        calls = []

        def killed(path, missing_ok=False, calls=calls, kept=kept):
            calls.append(path)
            if len(calls) > kept:
                raise KeyboardInterrupt
            unlink(path, missing_ok=missing_ok)

        monkeypatch.setattr(Path, "unlink", killed)
        folder = RunFolder(run_dir)
        try:
            folder.start(config(epochs=1), {})
        except KeyboardInterrupt:
            assert folder.is_run
            assert not folder.is_finished
            folder.check_vacant(overwrite=True)
        else:
            assert {path.name for path in run_dir.iterdir()} == {".lock", "config.json"}
            assert folder.read_config().epochs == 1
            break
    assert 5 < kept < 19
