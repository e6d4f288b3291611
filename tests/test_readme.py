"""The README: its commands exist, and its figures are those of the files that they were read from."""

import dataclasses
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import click
import pytest

from lenet_keras.comparison.compare import compare
from lenet_keras.comparison.plan import read_plan
from lenet_keras.comparison.results import read_result, write_epochs, write_results
from lenet_keras.comparison.statistics import Difference, Spread
from lenet_keras.comparison.wording import REPORTED, interval, mean_and_deviation
from lenet_keras_cli.main import COMMANDS, main

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
RESULTS = ROOT / "docs" / "results"
REPORT = RESULTS / "report"
SUMMARY = json.loads((REPORT / "summary.json").read_text())
FULL_DATASET = Path("/usr/share/datasets/fashion-mnist")


def row(variant):
    """The row of the README's table for a variant in summary.json."""
    reported_train, reported_test = REPORTED[variant["settings"]["reg"]]
    versus = variant["versus"]
    cells = [
        variant["name"],
        f"{reported_train:.2f}",
        mean_and_deviation(Spread(**variant["train"])),
        f"{reported_test:.2f}",
        mean_and_deviation(Spread(**variant["test"])),
        interval(Difference(**versus["test"])) if versus else "",
    ]
    return f"| {' | '.join(cells)} |"


def test_every_command_is_in_the_table():
    for name in COMMANDS:
        assert f"| `lenet-keras {name}" in README


def test_commands_and_options_that_are_named_exist():
    for name, rest in re.findall(r"lenet-keras (\w+)([^`\n]*)", README):
        command = main.get_command(click.Context(main), name)
        assert command, name
        known = {option for parameter in command.params for option in parameter.opts}
        assert set(re.findall(r"--[a-z-]+", rest)) <= known, rest


def test_the_table_is_that_of_the_results():
    for page in (README, (RESULTS / "README.md").read_text()):
        rows = re.findall(r"^\| (?:none|dropout|batch_norm|weight_decay)\b.*\|$", page, re.MULTILINE)
        assert rows[: len(SUMMARY["variants"])] == [row(variant) for variant in SUMMARY["variants"]]


def test_the_results_are_those_of_the_recorded_runs(tmp_path):
    """Nothing is trained: tables, statistics and curves follow from the records of the runs."""
    shutil.copytree(REPORT / "runs", tmp_path / "runs")
    plan = read_plan(RESULTS / "report.toml", {})

    compare(plan, tmp_path, listener=pytest.fail)

    for name in ("results.csv", "epochs.csv", "table.md"):
        assert (tmp_path / name).read_text() == (REPORT / name).read_text(), name
    assert json.loads((tmp_path / "summary.json").read_text())["conclusions"] == SUMMARY["conclusions"]


def test_the_choices_are_those_of_the_recorded_runs(tmp_path):
    runs = read_plan(RESULTS / "sensitivity.toml", {}).runs(RESULTS / "sensitivity" / "runs")
    assert all(run.is_finished() for run in runs)  # with the settings of the plan

    results = [read_result(run.run_dir, run.variant) for run in runs]
    # A run is named as seen from the file, as if both were in docs/results/sensitivity.
    results = [
        dataclasses.replace(one, path=tmp_path / one.path.relative_to(RESULTS / "sensitivity")) for one in results
    ]
    for name, write in (("results.csv", write_results), ("epochs.csv", write_epochs)):
        write(tmp_path / name, results)
        assert (tmp_path / name).read_text() == (RESULTS / "sensitivity" / name).read_text(), name


def test_the_plot_of_the_choices_is_that_of_their_results(tmp_path):
    shutil.copytree(RESULTS, tmp_path / "results", ignore=shutil.ignore_patterns("runs"))
    (tmp_path / "results/sensitivity.svg").unlink()

    subprocess.run([sys.executable, tmp_path / "results/draw_sensitivity.py"], check=True)

    assert (tmp_path / "results/sensitivity.svg").read_text() == (RESULTS / "sensitivity.svg").read_text()


def test_what_a_newcomer_types_works(tmp_path):
    """The first commands, from a clone on; a training on the full dataset is cut to an epoch."""
    typed = re.search(r"^## Start$.*?^```\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)[1].splitlines()
    used = [line for line in typed if line.startswith("lenet-keras") and line != "lenet-keras tensorboard"]
    assert [line.split()[1] for line in used] == ["predict", "train", "train"]
    shutil.copytree(ROOT / "exported_models", tmp_path / "exported_models")
    shutil.copytree(ROOT / "docs", tmp_path / "docs", ignore=shutil.ignore_patterns("results"))
    if not FULL_DATASET.is_dir():
        used.pop()
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    for line in used:
        is_long = line.startswith("lenet-keras train") and "--quick" not in line
        process = subprocess.run(
            ["bash", "-c", f"{line} --epochs 1" if is_long else line],
            cwd=tmp_path, env=environment, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert process.returncode == 0, process.stderr
        if "predict" in line:
            assert re.search(r"docs/ankle_boot\.png +Ankle boot", process.stdout)
        else:
            accuracy = float(re.search(r"^ test .* ([\d.]+) %", process.stdout, re.MULTILINE)[1])
            assert accuracy > 65
            assert (tmp_path / re.search(r"^export: +(\S+)$", process.stdout, re.MULTILINE)[1]).is_dir()


def test_what_the_training_printed_is_in_its_file():
    shown = re.search(r"^strategy: .*?(?=^```$)", README, re.MULTILINE | re.DOTALL)[0].splitlines()
    printed = (ROOT / "docs" / "first_training.txt").read_text().splitlines()
    assert len(shown) > 10
    assert [line for line in shown if line not in printed] == ["…"]


def test_the_figures_of_the_costs_of_a_training_are_those_of_its_file():
    page = " ".join((ROOT / "docs" / "speed.md").read_text().split())
    found = json.loads((ROOT / "docs" / "training_cost.json").read_text())["figures"]
    none, norm = found["batch_size"]["none, default"], found["batch_size"]["batch_norm, default"]
    assert f"from {none['64']:,.0f} to {none['512']:,.0f} images/s for none" in page
    assert f"from {norm['64']:,.0f} to {norm['512']:,.0f} with batch normalisation" in page
    images = found["images"]["none"]
    assert f"{images['8192']:.2f} s for 8,192 and {images['38400']:.2f} s for 38,400" in page
    none, norm = found["epochs"]["none"], found["epochs"]["batch_norm"]
    assert f"one epoch takes {none['1']:.1f} s for none, and {norm['1']:.1f} s with batch normalisation" in page
    assert f"adds {(none['4'] - none['1']) / 3:.1f} and {(norm['4'] - norm['1']) / 3:.1f} s" in page
    none, norm = (
        {count: speed / by_count["1"] for count, speed in by_count.items()} for by_count in found["processes"].values()
    )
    assert f"reach {none['2']:.2f} (none) and {norm['2']:.2f} times" in page
    assert f"three {none['3']:.2f} and {norm['3']:.2f}, four less" in page


def test_the_figures_of_the_load_test_are_those_of_its_file():
    page = (ROOT / "docs" / "serving.md").read_text()
    rows = json.loads((ROOT / "docs" / "serving_load.json").read_text())["rows"]
    tables = re.split(r"^(\d+) images? per request", page, flags=re.MULTILINE)
    by_batch = dict(zip(map(int, tables[1::2]), tables[2::2], strict=True))
    assert by_batch.keys() == {row["batch"] for row in rows}
    for row in rows:
        table = by_batch[row["batch"]]
        if row["way"] == "in process":
            assert f"{row['server']} {row['images_per_second']:,.0f}" in table.splitlines()[0]
        else:
            (line,) = re.findall(rf"^\| {row['server']} \| {row['way']} \| .*$", table, re.MULTILINE)
            cell = f"{row['images_per_second']:,.0f} ({row['p50_ms']:.1f}, {row['p99_ms']:.1f})"
            assert line.split(" | ")[2 + [1, 4, 32].index(row["clients"])].removesuffix(" |") == cell


def test_the_figures_of_the_soak_are_those_of_its_file():
    page = (ROOT / "docs" / "serving.md").read_text()
    soak = json.loads((ROOT / "docs" / "serving_soak.json").read_text())
    for name, phase in soak["phases"].items():
        waits = f"{phase['p99_ms']:.0f} | {phase['longest_ms']:.0f}"
        assert f"| {name} | {phase['requests']:,} | {phase['lost']} | {waits} |" in page
    assert f"held {soak['first_mib']:,.0f} MiB, at the end {soak['last_mib']:,.0f} MiB" in page


def test_the_figures_of_the_quantised_model_are_those_of_its_file():
    page = " ".join((ROOT / "docs" / "serving.md").read_text().split())
    plain, int8 = json.loads((ROOT / "docs" / "litert.json").read_text())
    assert f"in float32 {plain['bytes']:,} bytes and {100 * plain['accuracy']:.2f} % of the test images" in page
    assert f"in eight bits {int8['bytes']:,} bytes and {100 * int8['accuracy']:.2f} %" in page
