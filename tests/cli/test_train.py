"""`lenet-keras train` as a user sees it."""

import json
import re
import shutil
import signal
import subprocess
import time
from pathlib import Path

import numpy as np
import pytest

from lenet_keras.checkpoint import StateStore

SAMPLE = ("--dataset", "fashion_mnist_sample")


def test_training_ends_with_table_folder_export_and_next_commands(trained):
    work, process = trained
    assert process.returncode == 0, process.stderr
    run_dir, export = (
        "runs/fashion_mnist_sample/weight_decay/0",
        "exported_models/lenet5_weight_decay_fashion_mnist_sample/1",
    )
    assert (work / run_dir / "metrics.json").is_file()
    assert (work / export / "saved_model.pb").is_file()
    metrics = json.loads((work / run_dir / "metrics.json").read_text())
    for split in ("train", "validation", "test"):
        assert re.search(
            rf"{split} +{metrics[split]['loss']:.4f} +{100 * metrics[split]['accuracy']:.2f} %", process.stdout
        )
    for line in (
        f"run:     {run_dir}",
        f"export:  {export}",
        "lenet-keras tensorboard",
        f"lenet-keras predict --model {export} IMAGE.png",
    ):
        assert line in process.stdout
    assert "not comparable with the full dataset" in process.stdout


def test_without_a_terminal_there_is_one_line_per_epoch_and_no_noise(trained):
    _, process = trained
    lines = process.stderr.splitlines()
    assert lines[0].startswith("strategy: ")
    assert lines[1].startswith("fashion_mnist_sample: sample shipped with lenet-keras")
    assert [line[:10] for line in lines[2:4]] == ["epoch 1/2:", "epoch 2/2:"]
    assert lines[4].startswith("exporting: ")
    assert len(lines) == 5
    assert "\x1b" not in process.stderr + process.stdout


def test_json_is_the_only_output_on_stdout(run, tmp_path):
    process = run("train", *SAMPLE, "--epochs", "1", "--json", "--no-export", cwd=tmp_path)
    metrics = json.loads(process.stdout)
    assert set(metrics["test"]) == {"loss", "accuracy"}
    assert 0 <= metrics["test"]["accuracy"] <= 1
    assert metrics["dataset"] == "fashion_mnist_sample"
    assert metrics["export"] is None
    assert not (tmp_path / "exported_models").exists()


def test_the_same_seed_gives_the_same_weights_in_another_process(run, trained, tmp_path):
    again = run("train", *SAMPLE, "--epochs", "2", "--reg", "weight_decay", "--no-export", cwd=tmp_path)
    assert again.returncode == 0
    first, second = (
        StateStore(folder / "runs/fashion_mnist_sample/weight_decay/0").read() for folder in (trained[0], tmp_path)
    )
    assert first.variables.keys() == second.variables.keys()
    for name, value in first.variables.items():
        np.testing.assert_array_equal(second.variables[name], value)


def test_an_earlier_run_is_kept_and_the_message_says_how_to_continue(run, trained):
    work, _ = trained
    process = run("train", *SAMPLE, "--epochs", "2", "--reg", "weight_decay", cwd=work)
    assert process.returncode == 2
    assert "--resume" in process.stderr
    assert "--overwrite" in process.stderr
    assert process.stdout == ""


def test_a_finished_run_is_exported_to_another_folder_but_nowhere_twice(run, trained, tmp_path):
    work = shutil.copytree(trained[0], tmp_path / "work")
    again = ("train", *SAMPLE, "--epochs", "2", "--reg", "weight_decay", "--resume", "--json")
    name = "lenet5_weight_decay_fashion_mnist_sample"
    process = run(*again, "--export-dir", "B", cwd=work)
    assert json.loads(process.stdout)["export"] == f"B/{name}/1"
    assert "is finished; more than 2 epochs would continue it" in process.stderr
    kept = {path: path.stat().st_mtime_ns for path in work.rglob("*")}
    for export_dir in ("B", work / "exported_models"):
        process = run(*again, "--export-dir", export_dir, cwd=work)
        assert process.returncode == 0
        assert json.loads(process.stdout)["export"] == f"{export_dir}/{name}/1"
        assert len(process.stderr.splitlines()) == 1
    assert {path: path.stat().st_mtime_ns for path in work.rglob("*")} == kept


def start_long_training(lenet_keras, folder, *arguments):
    return subprocess.Popen(
        [lenet_keras, "train", *SAMPLE, "--no-export", "--epochs", "2000", *arguments],
        cwd=folder, stderr=subprocess.PIPE,
    )  # fmt: skip


def read_until(process, beginning):
    for line in process.stderr:
        if line.startswith(beginning):
            return


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGHUP, 129)])
def test_a_signal_keeps_what_was_trained_and_says_how_to_continue(lenet_keras, run, tmp_path, number, code):
    process = start_long_training(lenet_keras, tmp_path, "--batch-size", "1")
    read_until(process, b"epoch 1/")
    sent = time.monotonic()
    process.send_signal(number)
    rest = process.communicate()[1].decode()
    assert process.returncode == code
    assert time.monotonic() - sent < 5
    assert "Traceback" not in rest
    command = "lenet-keras train --dataset fashion_mnist_sample --no-export --epochs 2000 --batch-size 1 --resume"
    assert rest.splitlines()[-1].endswith(f"Continue with: {command}")

    run_dir = tmp_path / "runs/fashion_mnist_sample/none/0"
    state = StateStore(run_dir).read()
    finished = len(state.history)
    assert finished >= 1
    resumed = run(
        "train", *SAMPLE, "--no-export", "--batch-size", "1", "--epochs", str(finished + 1), "--resume=auto",
        cwd=tmp_path,
    )  # fmt: skip
    assert resumed.returncode == 0
    place = f"step {state.progress.step} of epoch {finished + 1}" if state.progress.step else f"epoch {finished}"
    assert f"resuming after {place}\n" in resumed.stderr
    assert f"epoch {finished + 1}/{finished + 1}:" in resumed.stderr
    assert len((run_dir / "history.csv").read_text().splitlines()) == finished + 2


def test_a_signal_before_the_first_epoch_is_over_keeps_its_steps(lenet_keras, tmp_path):
    process = start_long_training(lenet_keras, tmp_path, "--batch-size", "1", "--checkpoint-steps", "50")
    states = StateStore(tmp_path / "runs/fashion_mnist_sample/none/0")
    while not states.newest.exists():
        assert process.poll() is None
    process.send_signal(signal.SIGTERM)
    process.communicate()
    assert process.returncode == 143
    state = states.read()
    assert state.progress.step or state.history
    assert state.progress.step % 50 == 0


def test_a_signal_while_tensorflow_is_imported_is_no_traceback(lenet_keras, tmp_path):
    # /proc shows when the import has started: the library is mapped.
    process = start_long_training(lenet_keras, tmp_path)
    while "_pywrap_tensorflow" not in Path(f"/proc/{process.pid}/maps").read_text():
        assert process.poll() is None
    process.send_signal(signal.SIGTERM)
    rest = process.communicate()[1].decode()
    assert process.returncode == 143
    assert "Traceback" not in rest


def test_a_second_training_in_the_folder_is_rejected_with_the_name_of_the_first(lenet_keras, run, tmp_path):
    first = start_long_training(lenet_keras, tmp_path)
    read_until(first, b"epoch 1/")
    for option in ("--resume", "--overwrite"):
        second = run("train", *SAMPLE, "--epochs", "2000", option, cwd=tmp_path)
        assert second.returncode == 1
        assert f"is in use by process {first.pid} on " in second.stderr.splitlines()[-1]
        assert "Traceback" not in second.stderr
    first.kill()
    first.communicate()
    assert run("train", *SAMPLE, "--epochs", "1", "--no-export", "--overwrite", cwd=tmp_path).returncode == 0


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--reg", "l1"], 2, "'l1' is not one of"),
        (["--reg", "none", "--reg", "dropout"], 2, "'none' cannot be combined"),
        (["--dataset", "cifar10"], 2, "'cifar10' is not one of"),
        (["--epochs", "0"], 2, "epochs must be 1 or more. Received: 0"),
        (["--batch-size", "401"], 2, "batch_size must be 1 to 400. Received: 401"),
        (["--learning-rate", "nan"], 2, "learning_rate must be a finite number above 0. Received: nan"),
        (["--validation", "500"], 2, "validation must be 0 to 499. Received: 500"),
        (["--reg", "dropout", "--dropout-rate", "1"], 2, "dropout_rate must be in [0, 1)"),
        (["--reg", "dropout", "--weight-decay", "0.1"], 2, "--weight-decay does nothing without --reg weight_decay"),
        (["--resume", "--overwrite"], 2, "--resume and --overwrite are mutually exclusive"),
        (["--resume"], 2, "holds no run to resume"),
        (["--no-export", "--export-dir", "B"], 2, "--export-dir does nothing with --no-export"),
        (["--resume", "always"], 2, "'always' is not one of 'run', 'auto'"),
        (["--checkpoint-steps", "0"], 2, "checkpoint_steps must be 1 or more. Received: 0"),
        (["--data-dir", "nowhere"], 1, "nowhere"),
        (
            ["--run-dir", "."],
            2,
            ". exists but is not a run folder: it holds notes.txt. Choose another folder with --run-dir.",
        ),
        (["--run-dir", "notes.txt"], 2, "Directory 'notes.txt' is a file"),
        (["--run-dir", "notes.txt/run"], 1, "notes.txt"),
        (["--run-dir=gs://bucket/run"], 2, "Invalid value for '--run-dir': gs://bucket/run is a URL"),
        (["--export-dir", "a[1]"], 2, "cannot load a SavedModel from a[1]/lenet5_none_fashion_mnist_sample"),
        (["--resume", "--run-dir", "."], 2, ". exists but is not a run folder: it holds notes.txt."),
    ],
)
def test_bad_input_gets_one_line_and_leaves_nothing(run, tmp_path, arguments, code, message):
    (tmp_path / "notes.txt").touch()
    process = run("train", *SAMPLE, *arguments, cwd=tmp_path)
    assert process.returncode == code
    assert message in process.stderr.splitlines()[-1]
    assert process.stderr.splitlines()[-1].startswith("Error: ")
    assert "Traceback" not in process.stderr
    assert process.stdout == ""
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_a_folder_that_cannot_be_written_to_is_named(run, tmp_path):
    (tmp_path / "runs").write_text("a file, not a folder")
    process = run("train", *SAMPLE, "--epochs", "1", cwd=tmp_path)
    assert process.returncode == 1
    assert "runs" in process.stderr.splitlines()[-1]
    assert "Traceback" not in process.stderr
