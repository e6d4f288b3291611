"""Whole comparisons on the sample, in real processes."""

import csv
import json
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from lenet_keras import runtime, train
from lenet_keras.comparison import jobs
from lenet_keras.comparison.compare import compare, compare_runs
from lenet_keras.comparison.plan import plan_of
from lenet_keras.errors import InvalidArgument, LenetKerasError, RunDamaged, RunUnfinished, SettingsDiffer
from lenet_keras.files import is_temporary
from lenet_keras.runs import RunFolder

FILES = {
    "results.csv", "epochs.csv", "table.md", "summary.json", "report.html",
    "convergence.png", "convergence.svg", "overlay.png", "overlay.svg", "runs",
}  # fmt: skip
SETTINGS = {"dataset": "fashion_mnist_sample", "epochs": 3, "learning_rate": 1e-3}  # those of --quick
VARIANTS = ["none", "dropout", "batch_norm", "weight_decay"]
PLAN = plan_of(VARIANTS, [0, 1], SETTINGS)
ALONE = plan_of(["none"], [0, 1], SETTINGS)
# Without times, which no two runs share, and paths.
SAME = ("variant", "seed", "train_accuracy_during", "train_loss", "test_loss", "test_accuracy")


@pytest.fixture(scope="module")
def quick(tmp_path_factory):
    """The folder of `lenet-keras compare --quick`, and the process."""
    out = tmp_path_factory.mktemp("comparison")
    command = [sys.executable, "-m", "lenet_keras_cli", "compare", "--quick", "--out", out]
    return out, subprocess.run(command, capture_output=True, text=True, check=True)


@pytest.fixture(scope="module")
def finished(quick):
    return compare(PLAN, quick[0], listener=pytest.fail)


def rows(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def measured(out):
    return [{name: row[name] for name in SAME} for row in rows(out / "results.csv")]


def test_it_leaves_every_file(finished):
    assert {path.name for path in finished.path.iterdir()} == FILES


def test_results_are_those_of_the_runs(finished):
    out = finished.path
    found = rows(out / "results.csv")

    assert [(row["variant"], row["seed"]) for row in found] == [(name, seed) for seed in "01" for name in VARIANTS]
    for row in found:
        run = RunFolder(out / row["run"])
        assert not Path(row["run"]).is_absolute()
        metrics = run.read_metrics()
        assert float(row["test_accuracy"]) == metrics["test"]["accuracy"]
        assert float(row["train_accuracy"]) == metrics["train"]["accuracy"]
        assert float(row["train_accuracy_during"]) == run.read_history()[-1]["accuracy"]
        assert run.read_record()["command"].endswith(f"compare --quick --out {out}")
    epochs = rows(out / "epochs.csv")
    assert len(epochs) == 24
    assert [row["test_accuracy"] for row in epochs[2::3]] == [row["test_accuracy"] for row in found]


def test_a_run_is_the_same_as_one_trained_alone(finished, tmp_path):
    """Though other runs were trained before it in the same process."""
    last = finished.results[-1]

    alone = train(last.config, tmp_path)

    assert alone.metrics["test"] == RunFolder(last.path).read_metrics()["test"]
    assert alone.metrics["train"] == RunFolder(last.path).read_metrics()["train"]


def test_the_command_shows_progress_the_table_and_the_conclusions(quick):
    out, process = quick
    lines = process.stderr.splitlines()

    assert [line.partition(":")[0] for line in lines[:8]] == [f"{number}/8" for number in range(1, 9)]
    assert {line.split(": ")[1].rpartition(",")[0].partition(",")[0] for line in lines[:7]} <= set(VARIANTS)
    assert re.search(r"^ none +2 +\d+\.\d\d ± ", process.stdout, re.MULTILINE)
    assert "No difference in test accuracy" in process.stdout or "test accuracy than none" in process.stdout
    assert process.stdout.endswith(f"report:  {out / 'report.html'}\n")


def test_the_summary_is_json_with_the_conclusions(finished):
    summary = json.loads((finished.path / "summary.json").read_text(), parse_constant=pytest.fail)

    assert [variant["name"] for variant in summary["variants"]] == VARIANTS
    assert summary["variants"][1]["versus"]["seeds"] == [0, 1]
    assert summary["variants"][1]["test"]["mean"] == finished.variants[1].test.mean
    assert any("weight_decay" in sentence for sentence in summary["conclusions"])


def test_the_report_needs_nothing_else(finished):
    page = (finished.path / "report.html").read_text()

    assert len(page) < 1_000_000
    assert "<script" not in page
    loaded = re.findall(r"(?:src|href)=\"([^\"]*)\"|url\(([^)]*)\)", page)
    assert all(first.startswith(("#", "data:image/png;base64,")) or second.startswith("#") for first, second in loaded)


def test_the_report_shows_the_settings_that_each_variant_uses(finished):
    page = (finished.path / "report.html").read_text()

    shown = {
        name: re.findall("<td>(.*?)</td>", cells)
        for name, cells in re.findall(r'<tr><th scope="row">(\w+)</th>(.*)</tr>', page.partition(">Settings<")[2])
    }

    assert shown["reg"] == VARIANTS
    assert shown["dropout_rate"] == ["", "0.25", "", ""]
    assert shown["early_stopping"] == ["off"] * 4
    assert "strategy" not in shown


def test_the_same_comparison_again_trains_nothing_and_says_the_same(finished):
    out = finished.path
    before = {path: path.read_bytes() for path in out.iterdir() if path.is_file()}

    compare(PLAN, out, listener=pytest.fail)

    assert {path: path.read_bytes() for path in before} == before


def test_other_settings_are_refused_before_anything_is_trained(finished):
    plan = plan_of(VARIANTS, [0, 1, 2], {**SETTINGS, "epochs": 4})

    with pytest.raises(SettingsDiffer, match="epochs: 3, now 4"):
        compare(plan, finished.path, listener=pytest.fail)

    assert not (finished.path / "runs/none/2").exists()


def test_a_killed_comparison_goes_on_and_ends_alike(finished, tmp_path, monkeypatch):
    command = ["compare", "--reg", "none", "--seeds", "2", "--dataset", SETTINGS["dataset"], "--epochs", "3"]
    command += ["--learning-rate", "1e-3", "--jobs", "2", "--out", str(tmp_path)]
    process = subprocess.Popen([sys.executable, "-m", "lenet_keras_cli", *command], stderr=subprocess.DEVNULL)
    state = tmp_path / "runs/none/0/state.npz"
    while not state.exists():  # the instant to kill it
        assert process.poll() is None
        time.sleep(0.01)
    process.kill()
    process.wait()

    lock = RunFolder(tmp_path / "runs/none/0")
    while True:  # its children end by themselves
        try:
            with lock.locked():
                break
        except LenetKerasError:
            time.sleep(0.01)
    monkeypatch.setattr(jobs, "_RUNS_OF_A_CHILD", 1)  # the next run is trained by a new one
    compare(ALONE, tmp_path, jobs=1)

    assert measured(tmp_path) == measured(finished.path)[::4]
    alone = compare_runs([result.path for result in finished.results[::4]], tmp_path / "undisturbed")
    assert (tmp_path / "table.md").read_text() == (alone.path / "table.md").read_text()


def test_sigterm_ends_every_training(tmp_path):
    command = ["compare", "--seeds", "1", "--dataset", SETTINGS["dataset"], "--epochs", "5000", "--jobs", "2"]
    with subprocess.Popen(
        [sys.executable, "-m", "lenet_keras_cli", *command, "--out", str(tmp_path)],
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        states = [tmp_path / "runs" / reg / "0/state.npz" for reg in ("none", "dropout")]
        while not all(state.exists() for state in states):
            assert process.poll() is None
            time.sleep(0.01)
        process.send_signal(signal.SIGTERM)
        errors = process.communicate()[1]

    assert process.returncode == 143
    assert "Traceback" not in errors
    for state in states:
        with RunFolder(state.parent).locked():  # nobody trains there any more
            pass


def test_tasks_share_the_runs(finished, tmp_path):
    assert compare(ALONE, tmp_path, task=(1, 2)) is None
    assert sorted(path.name for path in tmp_path.glob("runs/none/*")) == ["0"]

    heard = []
    compare(ALONE, tmp_path, task=(2, 2), listener=heard.append)

    assert [one.is_finished for one in heard] == [False] * (len(heard) - 1) + [True]
    assert heard[0].epochs_left >= 2
    assert (heard[-1].epochs_left, heard[-1].seconds_left) == (0, 0)
    assert measured(tmp_path) == measured(finished.path)[::4]


def test_without_a_gpu_that_tensorflow_can_use_each_core_trains(tmp_path, monkeypatch):
    (tmp_path / "0000:01:00.0").mkdir()  # a driver lists one
    monkeypatch.setattr(jobs, "_DRIVER", tmp_path)

    assert jobs.places_for() == [{"CUDA_VISIBLE_DEVICES": "-1"}] * runtime.cores()


def test_runs_without_curves_in_common_have_a_report(finished, tmp_path):
    """A run that recorded no test accuracy by epoch, as `train` leaves it, beside one that did."""
    first, second = tmp_path / "first", tmp_path / "second"
    for source, copied in zip((result.path for result in finished.results), (first, second), strict=False):
        shutil.copytree(source, copied)
    rows = [line.split(",") for line in (second / "history.csv").read_text().splitlines()]
    unknown = [index for index, name in enumerate(rows[0]) if name.startswith(("test_", "val_"))]
    for row in rows[1:]:
        for index in unknown:
            row[index] = ""
    (second / "history.csv").write_text("".join(",".join(row) + "\n" for row in rows))

    compare_runs([first, second], tmp_path / "out")

    assert "accuracy: train, during the epoch" in (tmp_path / "out/overlay.svg").read_text()
    assert (tmp_path / "out/report.html").exists()


def test_a_training_that_fails_is_named(tmp_path):
    plan = plan_of(["none"], [0], {**SETTINGS, "learning_rate": 1e30})

    with pytest.raises(LenetKerasError, match=r"none, seed 0: .* became .* in epoch 1"):
        compare(plan, tmp_path)

    assert not (tmp_path / "results.csv").exists()


def test_a_full_disk_is_named_and_costs_no_run(finished, small_disk):
    disk = small_disk("size=300k")
    plan = plan_of(["none"], [0], SETTINGS)
    with pytest.raises(LenetKerasError, match=r"none, seed 0: .*/none/0/state\.npz: No space left on device"):
        compare(plan, disk)

    small_disk("remount", "size=8m")

    def fill(progress):
        if progress.is_finished:
            (disk / "filler").write_bytes(bytes(shutil.disk_usage(disk).free - 40_000))

    with pytest.raises(OSError, match="No space left on device") as failed:
        compare(plan, disk, listener=fill)
    assert Path(failed.value.filename).parent == disk
    assert not [path for path in disk.iterdir() if is_temporary(path)]

    (disk / "filler").unlink()
    compare(plan, disk, listener=pytest.fail)
    assert measured(disk) == measured(finished.path)[:1]


def test_finished_runs_are_compared_wherever_they_are(finished, tmp_path):
    paths = [result.path for result in finished.results]

    found = compare_runs(paths, tmp_path / "again")

    assert [variant.test for variant in found.variants] == [variant.test for variant in finished.variants]


def test_an_unfinished_run_is_refused(finished, tmp_path):
    folder = RunFolder(tmp_path / "unfinished")
    folder.path.mkdir()
    folder.write_config(finished.results[0].config, {})

    with pytest.raises(RunUnfinished, match="is not finished"):
        compare_runs([folder.path], tmp_path / "out")

    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", ["history.csv", "test_predictions.npz"])
def test_a_damaged_run_is_refused(finished, tmp_path, name):
    copied = tmp_path / "run"
    subprocess.run(["cp", "-r", finished.results[0].path, copied], check=True)
    content = (copied / name).read_bytes()
    (copied / name).write_bytes(content[: len(content) // 2])

    with pytest.raises(RunDamaged, match=name):
        compare_runs([copied], tmp_path / "out")


def test_the_same_run_twice_is_refused(finished, tmp_path):
    with pytest.raises(InvalidArgument, match="are both none with seed 0"):
        compare_runs([finished.results[0].path] * 2, tmp_path / "out")
