"""Requests to `lenet-keras compare` and `runs` that train nothing; tests/comparison has whole comparisons."""

import json
import shutil

import pytest
from click.testing import CliRunner

from lenet_keras.config import TrainConfig
from lenet_keras.runs import RunFolder
from lenet_keras_cli.main import main

SAMPLE = "fashion_mnist_sample"


@pytest.fixture
def call(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    return lambda *arguments: CliRunner().invoke(main, [*map(str, arguments)])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--reg", "droput"], "'droput' is not one of 'none', 'dropout', 'batch_norm', 'weight_decay'"),
        (["--reg", "none", "--reg", "none"], "regularisations must differ from each other"),
        (["--task", "3/2"], "expected I/N with I from 1 to N, such as 1/4. Received: 3/2"),
        (["--task", "one"], "expected I/N"),
        (["--seeds", "0"], "'--seeds'"),
        (["--first-seed", "-1"], "seeds must be 0 to 4294967295. Received: -1"),
        (["--reg", "none", "--weight-decay", "0.1"], "--weight-decay does nothing without --reg weight_decay."),
        (
            ["--reg", "none", "--batch-norm-layers", "conv"],
            "--batch-norm-layers does nothing without --reg batch_norm.",
        ),
        (["--epochs", "0"], "epochs must be 1 or more"),
        (["--config", "none.toml"], "none.toml cannot be read"),
        (["--config", "none.toml", "--reg", "none"], "--reg and --config are mutually exclusive"),
        (["--from"], "--from needs the folders of finished runs"),
        (["some-run"], "--from needs the folders of finished runs"),
        (["--from", "some-run", "--epochs", "3"], "--epochs does nothing with --from: nothing is trained."),
        (["--from", "some-run"], "some-run is not a run folder"),
        (["--out", "s3://bucket"], "is a URL"),
    ],
)
def test_a_wrong_request_is_one_line_and_writes_nothing(call, tmp_path, arguments, message):
    result = call("compare", *arguments)

    assert result.exit_code == 2
    assert message in result.stderr.splitlines()[-1]
    assert list(tmp_path.iterdir()) == []


def test_a_dry_run_of_finished_runs_shows_them_and_takes_no_time(call, tmp_path):
    folder = RunFolder(tmp_path / "comparisons" / SAMPLE / "runs/none/0")
    folder.path.mkdir(parents=True)
    folder.write_config(TrainConfig(dataset=SAMPLE, record_test=True), {})
    folder.metrics_json.touch()

    result = call("compare", "--reg", "none", "--seeds", 1, "--dataset", SAMPLE, "--dry-run", "--json")

    found = json.loads(result.stdout)
    assert found["seconds"] == 0
    assert [(run["run"], run["finished"]) for run in found["runs"]] == [(f"comparisons/{SAMPLE}/runs/none/0", True)]


def test_a_dry_run_tells_the_time_from_runs_that_have_begun(call, tmp_path):
    folder = RunFolder(tmp_path / "comparisons" / SAMPLE / "runs/none/0")
    folder.path.mkdir(parents=True)
    folder.write_config(TrainConfig(dataset=SAMPLE, epochs=10, record_test=True), {})
    row = dict.fromkeys(("loss", "accuracy", "val_loss", "val_accuracy", "test_loss", "test_accuracy"), 0.5)
    folder.write_history([{"epoch": epoch, **row, "seconds": 3.0} for epoch in (1, 2)])

    options = ["--reg", "none", "--epochs", 10, "--dataset", SAMPLE, "--dry-run", "--json"]
    result = call("compare", *options, "--seeds", 1)
    part = json.loads(call("compare", *options, "--seeds", 2, "--task", "2/2").stdout)

    assert json.loads(result.stdout)["seconds"] == 24
    assert ([run["settings"]["seed"] for run in part["runs"]], part["seconds"]) == ([1], 30)


def test_the_advice_is_on_options_of_compare(call, tmp_path):
    folder = RunFolder(tmp_path / "comparisons" / SAMPLE / "runs/none/0")
    folder.path.mkdir(parents=True)
    folder.write_config(TrainConfig(dataset=SAMPLE, record_test=True, epochs=3), {})

    result = call("compare", "--reg", "none", "--seeds", 1, "--dataset", SAMPLE, "--epochs", 4)

    assert result.exit_code == 2
    assert "epochs: 3, now 4). Choose another folder with --out." in result.stderr


@pytest.fixture
def run_folders(tmp_path):
    split = {"loss": 0.3, "accuracy": 0.9}
    for reg, seed, accuracy in (("none", 0, 0.88), ("none", 1, 0.9), ("dropout", 0, 0.87)):
        folder = RunFolder(tmp_path / "runs" / reg / str(seed))
        folder.path.mkdir(parents=True)
        folder.write_config(TrainConfig(reg=reg, seed=seed, epochs=2), {})
        folder.write_history([{"epoch": epoch, "loss": 0.5, "accuracy": 0.8, "seconds": 1.0} for epoch in (1, 2)])
        metrics = {"dataset": "fashion_mnist", "reg": reg, "seed": seed, "train": split, "validation": None}
        metrics |= {"test": {**split, "accuracy": accuracy}, "epochs": 2, "best_epoch": None}
        folder.write_metrics({**metrics, "parameters": 61_706, "export": None})
    RunFolder(tmp_path / "runs/dropout/0").metrics_json.unlink()


@pytest.mark.usefixtures("run_folders")
def test_runs_lists_them_with_the_mean_of_each_variant(call):
    lines = [line.split() for line in call("runs").stdout.splitlines()]

    assert ["runs/dropout/0", "fashion_mnist", "dropout", "0", "2", "of", "2"] in lines
    assert ["runs/none/1", "fashion_mnist", "none", "1", "2", "90.00", "90.00"] in lines
    assert ["none", "fashion_mnist", "2", "90.00", "±", "0.00", "89.00", "±", "1.41"] in lines


@pytest.mark.usefixtures("run_folders")
def test_runs_gives_programs_the_same(call):
    found = json.loads(call("runs", "--json").stdout)

    assert [run["epochs"] for run in found["runs"]] == [2, 2, 2]
    assert [(one["variant"], one["seeds"], one["test"]["mean"]) for one in found["variants"]] == [
        ("none", [0, 1], 0.89)
    ]


def test_variants_that_differ_in_a_setting_are_told_apart(call, run_folders, tmp_path):
    folder = RunFolder(tmp_path / "runs/none/1")
    folder.write_config(TrainConfig(seed=1, epochs=2, batch_size=128), {})

    found = json.loads(call("runs", "--json").stdout)

    assert [one["variant"] for one in found["variants"]] == ["none, batch_size=64", "none, batch_size=128"]


def test_a_seed_counts_once_and_settings_without_effect_do_not_count(call, run_folders, tmp_path):
    shutil.copytree(tmp_path / "runs/none/1", tmp_path / "runs/none/again")
    RunFolder(tmp_path / "runs/none/1").write_config(TrainConfig(seed=1, epochs=2, dropout_rate=0.5), {})

    found = json.loads(call("runs", "--json").stdout)

    assert [(one["variant"], one["seeds"]) for one in found["variants"]] == [("none", [0, 1])]


def test_a_damaged_run_is_named_and_the_others_are_listed(call, run_folders, tmp_path):
    (tmp_path / "runs/none/0/metrics.json").write_text("{}")

    result = call("runs")

    assert "runs/none/0/metrics.json is damaged" in result.stderr
    assert "runs/none/1" in result.stdout
