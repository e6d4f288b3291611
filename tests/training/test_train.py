"""A run from settings to a finished folder: its content, repeating it, resuming it."""

import csv
import shutil
import zipfile
from dataclasses import replace
from pathlib import Path

import keras
import numpy as np
import pytest

from lenet_keras import TrainConfig, train
from lenet_keras.checkpoint import StateStore
from lenet_keras.data.arrays import hold_out
from lenet_keras.data.load import load
from lenet_keras.errors import (
    InvalidArgument,
    LenetKerasError,
    NotARunFolder,
    RunDamaged,
    RunExists,
    RunNotFound,
    SettingsDiffer,
)
from lenet_keras.inference.measure import Predictor, softmax
from lenet_keras.inference.run_model import load_run_model
from lenet_keras.records import HISTORY_COLUMNS
from lenet_keras.runs import RunFolder, event_files
from lenet_keras.training.replicas import plain_model

from .comparison import assert_same_run, config, variables, without_times

VARIANTS = ["none", "dropout", "batch_norm", "weight_decay"]


class StopAfter(keras.callbacks.Callback):
    """Interrupts like Ctrl-C: in an epoch, after some of its steps."""

    def __init__(self, epoch):
        super().__init__()
        self.last = epoch

    def on_epoch_begin(self, epoch, logs=None):
        self.epoch = epoch

    def on_train_batch_end(self, batch, logs=None):
        if self.epoch == self.last:
            raise KeyboardInterrupt


def test_a_training_is_the_same_whatever_keras_was_told_globally(sample_run, tmp_path, foreign_globals):
    train(TrainConfig(**RunFolder(sample_run).read_record()["settings"]), tmp_path / "run")
    assert_same_run(sample_run, tmp_path / "run")
    found, expected = (zipfile.ZipFile(folder / "model.keras") for folder in (tmp_path / "run", sample_run))
    assert found.read("config.json") == expected.read("config.json")
    images = load("fashion_mnist_sample").test.images[:9]
    logits = [Predictor(load_run_model(RunFolder(folder)))(images) for folder in (tmp_path / "run", sample_run)]
    np.testing.assert_array_equal(*logits)


def test_the_run_folder_holds_the_record(sample_run):
    folder = RunFolder(sample_run)
    events = event_files(sample_run)
    assert len(events) == 1
    assert sorted(path.name for path in sample_run.iterdir() if path not in events) == [
        ".lock", "config.json", "history.csv", "metrics.json", "model.keras", "state.npz", "state.previous.npz",
        "test", "test_predictions.npz", "train", "validation",
    ]  # fmt: skip
    record = folder.read_record()
    assert record["settings"]["seed"] == 7
    assert {"python", "tensorflow", "keras", "numpy", "lenet-keras"} <= record["versions"].keys()
    assert record["device"]
    assert record["data_source"].startswith("sample shipped")
    with folder.history_csv.open() as file:
        rows = list(csv.DictReader(file))
    assert tuple(rows[0]) == HISTORY_COLUMNS
    assert [row["epoch"] for row in rows] == ["1", "2", "3"]
    assert float(rows[2]["loss"]) < float(rows[0]["loss"])
    assert all(float(row["images_per_second"]) > 0 for row in rows)


def test_final_metrics_equal_keras_own_evaluation_of_every_image(sample_run):
    metrics = RunFolder(sample_run).read_metrics()
    model = keras.saving.load_model(sample_run / "model.keras")
    dataset = load("fashion_mnist_sample")
    training, validation = hold_out(dataset.train, 100, seed=7)
    for name, split in (("train", training), ("validation", validation), ("test", dataset.test)):
        loss, accuracy = model.evaluate(split.images.astype("float32"), split.labels, verbose=0)
        assert metrics[name]["loss"] == pytest.approx(loss, rel=1e-4)
        assert metrics[name]["accuracy"] == pytest.approx(accuracy, abs=1e-6)
    assert metrics["parameters"] == 61_706
    assert metrics["epochs"] == 3


def test_the_saved_model_has_the_trained_values_and_the_trained_optimizer(sample_run):
    model = keras.saving.load_model(sample_run / "model.keras")
    trained = variables(sample_run)
    assert len(trained) == len(model.variables) + len(model.optimizer.variables)
    for ours, theirs in zip([*model.variables, *model.optimizer.variables], trained.values(), strict=True):
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize("reg", VARIANTS)
def test_an_interrupted_run_is_bit_identical_to_an_uninterrupted_one(tmp_path, reg):
    settings = config(reg=reg)
    train(settings, tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        train(settings, tmp_path / "broken", callbacks=[StopAfter(epoch=2)])
    assert len(without_times(tmp_path / "broken" / "history.csv")) == 2
    assert not RunFolder(tmp_path / "broken").is_finished
    train(settings, tmp_path / "broken", resume=True)
    assert_same_run(tmp_path / "whole", tmp_path / "broken")


def test_a_result_has_the_history_and_the_trained_model(sample_run):
    """A finished run gives them as well as one that was just trained."""
    result = train(config(batch_size=32, seed=7), str(sample_run), resume=True)
    rows = without_times(sample_run / "history.csv")
    assert result.history["val_accuracy"] == [float(row["val_accuracy"]) for row in rows]
    assert len(result.history["images_per_second"]) == 3
    assert "test_loss" not in result.history  # not recorded
    test = load("fashion_mnist_sample").test
    loss, accuracy = result.model.evaluate(test.images.astype("float32"), test.labels, verbose=0)
    assert loss == pytest.approx(result.metrics["test"]["loss"], rel=1e-4)
    assert accuracy == pytest.approx(result.metrics["test"]["accuracy"], abs=1e-6)


def test_progress_is_shown_as_keras_does_when_asked_and_a_second_training_warns_of_nothing(tmp_path, capsys, caplog):
    for number in range(2):
        train(config(epochs=1, batch_size=200), tmp_path / str(number))
        assert capsys.readouterr().out == ""
    train(config(epochs=2, batch_size=200), str(tmp_path / "shown"), verbose=1)
    shown = capsys.readouterr().out
    assert "Epoch 2/2" in shown
    assert "2/2" in shown
    assert "val_accuracy" in shown
    assert [record.getMessage() for record in caplog.records if record.levelname == "WARNING"] == []


def test_seeds_give_different_runs(tmp_path, sample_run):
    train(config(epochs=1, seed=1), tmp_path / "1")
    train(config(epochs=1, seed=2), tmp_path / "2")
    assert any(
        not np.array_equal(a, b)
        for a, b in zip(variables(tmp_path / "1").values(), variables(tmp_path / "2").values(), strict=True)
    )


def test_without_validation_images_there_are_no_validation_metrics(tmp_path):
    result = train(config(epochs=1, validation=0), tmp_path / "run")
    assert result.metrics["validation"] is None
    assert without_times(tmp_path / "run" / "history.csv")[0]["val_loss"] == ""
    assert not (tmp_path / "run" / "validation").exists()


def test_early_stopping_keeps_the_best_epoch_across_a_resume_as_well(tmp_path):
    # A learning rate this high makes the validation loss rise soon.
    settings = config(epochs=30, learning_rate=0.02, early_stopping=2)
    result = train(settings, tmp_path / "whole")
    rows = without_times(tmp_path / "whole" / "history.csv")
    losses = [float(row["val_loss"]) for row in rows]
    best = 1 + int(np.argmin(losses))
    assert len(losses) < 30
    assert len(losses) == best + 2
    assert result.metrics["best_epoch"] == best
    assert result.metrics["validation"]["loss"] == pytest.approx(min(losses))

    with pytest.raises(KeyboardInterrupt):
        train(settings, tmp_path / "broken", callbacks=[StopAfter(epoch=len(losses) - 1)])
    train(settings, tmp_path / "broken", resume=True)
    assert_same_run(tmp_path / "whole", tmp_path / "broken")

    before = times(tmp_path / "whole")
    more = TrainConfig(**{**settings.to_json(), "epochs": 60})
    assert train(more, tmp_path / "whole", resume=True).metrics == result.metrics
    assert times(tmp_path / "whole") == before


def test_a_run_that_a_callback_stopped_is_finished_until_more_epochs_are_requested(tmp_path):
    class Stop(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            self.model.stop_training = epoch == 1

    result = train(config(epochs=4), tmp_path / "run", callbacks=[Stop()])
    assert result.metrics["epochs"] == 2
    before = times(tmp_path / "run")
    assert train(config(epochs=4), tmp_path / "run", resume=True) == result
    assert times(tmp_path / "run") == before
    (tmp_path / "run" / "metrics.json").unlink()  # as a kill before the end leaves it
    assert train(config(epochs=4), tmp_path / "run", resume=True) == result
    assert train(config(epochs=5), tmp_path / "run", resume=True).metrics["epochs"] == 5


def test_more_epochs_continue_a_finished_run(tmp_path):
    train(config(epochs=2), tmp_path / "run")
    train(config(epochs=3), tmp_path / "run", resume=True)
    train(config(epochs=3), tmp_path / "whole")
    assert_same_run(tmp_path / "run", tmp_path / "whole")


def times(run_dir):
    """When each file and folder was last changed, the lock and the folder itself included."""
    return {path: path.stat().st_mtime_ns for path in (run_dir, *run_dir.rglob("*"))}


def resumed(run_dir, **changed):
    return train(TrainConfig(**{**RunFolder(run_dir).read_config().to_json(), **changed}), run_dir, resume=True)


def test_resuming_a_finished_run_says_so_and_does_nothing(tmp_path, sample_run, caplog):
    run_dir = shutil.copytree(sample_run, tmp_path / "run")
    (run_dir / ".lock").unlink()
    before = times(run_dir)
    caplog.set_level("INFO", "lenet_keras")
    for changed in ({}, {"epochs": 1}, {"histograms": True, "checkpoint_steps": 2}, {"strategy": "one_device"}):
        caplog.clear()
        assert resumed(run_dir, **changed).metrics == RunFolder(sample_run).read_metrics()
        assert caplog.messages == [f"{run_dir} is finished; more than 3 epochs would continue it"]
        assert times(run_dir) == before


def test_test_images_are_recorded_on_request_and_change_nothing(tmp_path, sample_run):
    train(replace(RunFolder(sample_run).read_config(), record_test=True), tmp_path)
    ours, theirs = RunFolder(tmp_path), RunFolder(sample_run)
    recorded = [(row["test_loss"], row["test_accuracy"]) for row in ours.read_history()]
    assert recorded[-1] == tuple(ours.read_metrics()["test"].values())
    assert [row["test_accuracy"] for row in theirs.read_history()] == [None] * 3
    assert [row["val_loss"] for row in ours.read_history()] == [row["val_loss"] for row in theirs.read_history()]


def test_the_predictions_for_the_test_images_are_kept(sample_run):
    folder = RunFolder(sample_run)
    labels, probabilities = folder.read_predictions()
    dataset = load("fashion_mnist_sample")
    np.testing.assert_array_equal(labels, dataset.test.labels)
    assert np.mean(probabilities.argmax(axis=1) == labels) == folder.read_metrics()["test"]["accuracy"]
    logits = Predictor(load_run_model(folder))(dataset.test.images)
    np.testing.assert_allclose(probabilities, softmax(logits), atol=1e-6)


def cut(path):
    path.write_bytes(path.read_bytes()[:-100])


def of_another_run(path):
    if path.name == "model.keras":
        plain_model(config(seed=8)).save(path)
    else:
        path.write_text(path.read_text().replace("0.", "1."))


@pytest.mark.parametrize("name", ["model.keras", "history.csv"])
@pytest.mark.parametrize("damage", [Path.unlink, lambda path: path.write_bytes(b""), cut, of_another_run])
def test_a_finished_run_is_restored_from_its_state(tmp_path, sample_run, caplog, name, damage):
    run_dir = shutil.copytree(sample_run, tmp_path / "run")
    others = {path: time for path, time in times(run_dir).items() if path not in (run_dir, run_dir / ".lock")}
    del others[run_dir / name]
    damage(run_dir / name)
    resumed(run_dir)
    assert caplog.messages == [f"{run_dir / name} is missing, damaged or another run's: restoring it from state.npz"]
    assert_same_run(run_dir, sample_run)
    ours, theirs = (keras.saving.load_model(folder / "model.keras") for folder in (run_dir, sample_run))
    for one, other in zip(
        [*ours.variables, *ours.optimizer.variables], [*theirs.variables, *theirs.optimizer.variables], strict=True
    ):
        np.testing.assert_array_equal(one, other)
    assert {path: path.stat().st_mtime_ns for path in others} == others


@pytest.mark.parametrize(
    ("name", "damage"),
    [
        ("metrics.json", cut),
        ("metrics.json", lambda path: path.write_text(path.read_text().replace(': "none"', ': "x"'))),
        ("test_predictions.npz", cut),
    ],
)
def test_damaged_metrics_are_measured_again(tmp_path, sample_run, caplog, name, damage):
    run_dir = shutil.copytree(sample_run, tmp_path / "run")
    damage(run_dir / name)
    resumed(run_dir)
    assert sum(name in line and "measured again" in line for line in caplog.messages) == 1
    assert_same_run(run_dir, sample_run)


@pytest.mark.parametrize(
    ("damage", "message"), [(cut, "cannot be read"), (Path.unlink, "cannot be read"), (None, "is another run's")]
)
def test_a_finished_run_without_its_state_is_left_alone_but_not_continued(
    tmp_path, sample_run, caplog, damage, message
):
    run_dir = shutil.copytree(sample_run, tmp_path / "run")
    if damage is None:
        state = StateStore(run_dir).read()
        StateStore(run_dir).write(
            replace(
                state,
                history=state.history[:1],
                variables={name: value + 1 for name, value in state.variables.items()},
            )
        )
    else:
        damage(run_dir / "state.npz")
    before = times(run_dir)
    assert resumed(run_dir).metrics == RunFolder(sample_run).read_metrics()
    assert f"{run_dir / 'state.npz'} {message}" in caplog.messages[0]
    assert times(run_dir) == before
    for path in run_dir.glob("state*.npz"):
        path.unlink()
    with pytest.raises(RunDamaged, match=r"state\.npz is missing"):
        resumed(run_dir, epochs=4)
    assert RunFolder(run_dir).read_metrics() == RunFolder(sample_run).read_metrics()
    (run_dir / "metrics.json").unlink()
    with pytest.raises(RunDamaged, match=r"state\.npz is missing"):  # and not trained from the start again
        resumed(run_dir)


def test_keras_callbacks_work(tmp_path):
    class HalveThenStop(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            assert {"loss", "accuracy", "val_loss", "val_accuracy", "learning_rate"} <= logs.keys()
            self.model.optimizer.learning_rate.assign(self.model.optimizer.learning_rate / 2)
            self.model.stop_training = epoch == 1

    train(config(epochs=5), tmp_path / "run", callbacks=[HalveThenStop(), keras.callbacks.TerminateOnNaN()])
    rates = [float(row["learning_rate"]) for row in without_times(tmp_path / "run" / "history.csv")]
    assert rates == pytest.approx([1e-3, 5e-4])


def test_a_run_is_not_replaced_unless_requested(tmp_path, sample_run):
    run_dir = shutil.copytree(sample_run, tmp_path / "run")
    settings = RunFolder(run_dir).read_config()
    with pytest.raises(RunExists, match="already holds a finished run"):
        train(settings, run_dir)
    train(config(epochs=1), run_dir, overwrite=True)
    assert RunFolder(run_dir).read_config().epochs == 1


def test_a_folder_that_is_not_a_run_is_never_replaced(tmp_path):
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(NotARunFolder, match="exists but is not a run folder"):
        train(config(), tmp_path, overwrite=True)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_a_file_is_not_a_run_folder(tmp_path):
    path = tmp_path / "run"
    path.write_text("years of work")
    for options in ({}, {"overwrite": True}, {"resume": "auto"}, {"resume": True}):
        with pytest.raises(InvalidArgument, match=f"^{path} (exists but is not a run folder|holds no run to resume)"):
            train(config(), path, **options)
    assert path.read_text() == "years of work"


def test_resuming_needs_a_run_with_the_same_settings(tmp_path, sample_run):
    with pytest.raises(RunNotFound, match="no run to resume"):
        train(config(), tmp_path / "nothing", resume=True)
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(SettingsDiffer, match="seed: 7, now 8"):
        train(TrainConfig(**{**RunFolder(sample_run).read_config().to_json(), "seed": 8}), sample_run, resume=True)


def test_damaged_files_are_named(tmp_path, sample_run):
    run_dir = shutil.copytree(sample_run, tmp_path / "run")
    folder = RunFolder(run_dir)
    settings = TrainConfig(**{**folder.read_config().to_json(), "epochs": 4})
    for name in ("state.npz", "state.previous.npz"):
        (run_dir / name).write_bytes((run_dir / name).read_bytes()[:1000])
    with pytest.raises(RunDamaged, match=r"state\.npz cannot be read.*state\.previous\.npz cannot be read"):
        train(settings, run_dir, resume=True)
    assert folder.is_finished  # what was there is still there
    folder.config_json.write_text('{"program": "lenet-keras", "format": 2}')
    with pytest.raises(LenetKerasError, match=r"config\.json was written by another version .* has format 2"):
        folder.read_config()
    folder.config_json.write_text('{"format"')
    with pytest.raises(RunNotFound, match=r"config\.json cannot be read"):
        folder.read_config()
