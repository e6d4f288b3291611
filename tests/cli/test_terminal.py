"""What is on the screen while a command works: live bars, with all lines intact above them."""

import contextlib
import logging
import os
import re
import subprocess

import pytest
from click.testing import CliRunner

from lenet_keras.comparison.compare import Progress
from lenet_keras.comparison.plan import PlannedRun
from lenet_keras.config import TrainConfig
from lenet_keras_cli import compare
from lenet_keras_cli.console import console, notices_on_stderr
from lenet_keras_cli.main import main
from lenet_keras_cli.progress import epoch_progress

from .terminal import Terminal

LOGS = {"loss": 0.65432, "accuracy": 0.7654, "val_loss": 0.54321, "val_accuracy": 0.8012, "images_per_second": 9876.5}
METRICS = " loss 0.6543, accuracy 76.54 %"
LINE = "epoch 1/50: loss 0.6543, accuracy 76.54 %, validation 0.5432, 80.12 %, 9,876 images/s"
log = logging.getLogger("lenet_keras.data")


@pytest.fixture
def stderr_is(monkeypatch):
    """Make stderr a terminal of so many columns."""

    @contextlib.contextmanager
    def shown_on(columns):
        terminal = Terminal(columns)
        monkeypatch.setenv("TERM", "xterm")
        monkeypatch.setenv("COLUMNS", str(columns))  # Rich looks at the process's own terminal otherwise
        console.cache_clear()
        with os.fdopen(terminal.inner, "w", 1) as file, monkeypatch.context() as patch, notices_on_stderr():
            patch.setattr("sys.stderr", file)
            yield terminal
        console.cache_clear()

    return shown_on


@pytest.mark.parametrize(("columns", "metrics"), [(40, ""), (80, METRICS), (120, METRICS)])
def test_the_bars_of_training_fit_and_lines_stay_above_them(stderr_is, columns, metrics):
    with stderr_is(columns) as terminal:
        log.info("fashion_mnist: found in /sets")
        with epoch_progress(epochs=50, has_bars=True) as callback:
            callback.set_params({"steps": 859})
            callback.on_epoch_begin(0)
            for batch in range(49, 250, 50):
                callback.on_train_batch_end(batch, {"loss": LOGS["loss"], "accuracy": LOGS["accuracy"]})
            log.warning("within an epoch")
            terminal.wait_for(
                "fashion_mnist: found in /sets",
                "within an epoch",
                r"all epochs +[━╸╺]+ +0/50 +\d+:\d\d:\d\d",
                rf"epoch 1/50 +[━╸╺]+ +250/859 +\d+:\d\d:\d\d{metrics}",
            )
            callback.on_epoch_end(0, LOGS)
            callback.on_epoch_begin(1)
        log.info("exporting")
    end = terminal.close()

    lines = ["fashion_mnist: found in /sets", "within an epoch", LINE, "exporting"]
    assert "".join(end).replace(" ", "") == "".join(lines).replace(" ", "")  # the terminal breaks long ones


@pytest.mark.parametrize("columns", [40, 80, 120])
def test_the_bars_of_a_comparison_fit_and_a_line_per_run_stays(stderr_is, tmp_path, columns):
    run = PlannedRun("dropout+weight_decay", TrainConfig(reg="dropout+weight_decay", epochs=20), tmp_path)
    with stderr_is(columns) as terminal, compare._progress() as listener:
        listener(Progress(run, 12.5, False, 27.5, 90.0, 2))
        log.info("in the middle")
        terminal.wait_for(
            "in the middle",
            r"all runs +[━╸╺]* +2 min left",  # without a bar in the narrowest
            rf"{re.escape(run.name)} +[━╸╺]* +12/20",
        )
        listener(Progress(run, 20, True, 20, 60.0, 2))
    end = terminal.close()

    assert "".join(end) == f"in the middle1/2: {run.name}, 1 min left"


def test_a_training_in_a_terminal_leaves_its_lines_and_no_bars(lenet_keras, tmp_path):
    terminal = Terminal(80)
    process = subprocess.Popen(
        [lenet_keras, "train", "--dataset", "fashion_mnist_sample", "--epochs", "2", "--no-export", "--json"],
        cwd=tmp_path, stderr=terminal.inner, stdout=subprocess.DEVNULL,
        env={name: value for name, value in os.environ.items() if name != "COLUMNS"} | {"TERM": "xterm"},
    )  # fmt: skip
    os.close(terminal.inner)
    assert process.wait() == 0
    end = terminal.close()
    assert any("━" in line for screen in terminal.screens for line in screen)
    text = "".join(end)
    assert text.startswith("strategy: ")
    for beginning in ("fashion_mnist_sample: sample shipped", "epoch 1/2: loss ", "epoch 2/2: loss "):
        assert text.count(beginning) == 1
        assert any(line.startswith(beginning) for line in end)
    assert "━" not in text


def test_quiet_shows_warnings_and_nothing_else(stderr_is, monkeypatch):
    def report(**_):
        log.info("a notice")
        log.warning("a warning")
        with epoch_progress(epochs=1, has_bars=True) as callback:
            callback.on_epoch_end(0, LOGS)

    monkeypatch.setattr("lenet_keras_cli.evaluate.command.callback", report)
    result = CliRunner().invoke(main, ["evaluate", "--quiet", "."])
    assert (result.stderr, result.exit_code) == ("a warning\n", 0)
    assert CliRunner().invoke(main, ["evaluate", "."]).stderr.startswith("a notice\na warning\nepoch 1/1: loss")
