"""The README: its commands exist, and its figures are those of the files that they were read from."""

import csv
import json
import re
from pathlib import Path

import click
import pytest

from lenet_keras.config import TrainConfig
from lenet_keras_cli.main import COMMANDS, main

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
RUNS = sorted(path.parent for path in (ROOT / "docs" / "results").glob("*/metrics.json"))


def row(run):
    metrics = json.loads((run / "metrics.json").read_text())
    figures = [f"{100 * metrics[split]['accuracy']:.2f}" for split in ("train", "validation", "test")]
    return f"| {metrics['reg']} | {metrics['seed']} | {' | '.join(figures)} |"


def test_every_command_is_in_the_table():
    for name in COMMANDS:
        assert f"| `lenet-keras {name}" in README


def test_commands_and_options_that_are_named_exist():
    for name, rest in re.findall(r"lenet-keras (\w+)([^`\n]*)", README):
        command = main.get_command(click.Context(main), name)
        assert command, name
        known = {option for parameter in command.params for option in parameter.opts}
        assert set(re.findall(r"--[a-z-]+", rest)) <= known, rest


def test_every_variant_has_results():
    assert {run.name.partition("-")[0] for run in RUNS} == {"none", "dropout", "batch_norm", "weight_decay"}


@pytest.mark.parametrize("run", RUNS, ids=lambda run: run.name)
def test_figures_are_those_of_the_files(run):
    assert row(run) in README
    settings = TrainConfig.from_json(json.loads((run / "config.json").read_text())["settings"])
    assert settings == TrainConfig(reg=settings.reg, seed=settings.seed)  # all else at its default
    with (run / "history.csv").open() as file:
        assert len(list(csv.DictReader(file))) == settings.epochs


def test_no_row_is_without_files():
    rows = re.findall(r"^\| (?:none|dropout|batch_norm|weight_decay) \| \d+ .*\|", README, re.MULTILINE)
    assert len(rows) == len(RUNS)


def test_the_figures_of_the_load_test_are_those_of_its_file():
    page = (ROOT / "docs" / "serving.md").read_text()
    for row in json.loads((ROOT / "docs" / "serving_load.json").read_text())["rows"]:
        assert f"| {row['way']} | {row['batch']} | {row['images_per_second']:,.0f} | {row['ratio']:.2f} |" in page


def test_the_figures_of_the_quantised_model_are_those_of_its_file():
    page = " ".join((ROOT / "docs" / "serving.md").read_text().split())
    plain, int8 = json.loads((ROOT / "docs" / "litert.json").read_text())
    assert f"in float32 {plain['bytes']:,} bytes and {100 * plain['accuracy']:.2f} % of the test images" in page
    assert f"in eight bits {int8['bytes']:,} bytes and {100 * int8['accuracy']:.2f} %" in page
