"""How errors and progress are shown, whatever the command."""

import errno
import logging
import os
from pathlib import Path

import pytest
from click.testing import CliRunner

from lenet_keras import checkpoint, errors
from lenet_keras.errors import InvalidArgument, LenetKerasError
from lenet_keras_cli.main import main
from lenet_keras_cli.models import command


@pytest.mark.parametrize(
    ("error", "code", "last_line"),
    [
        (InvalidArgument("epochs must be 1 or more. Received: 0"), 2, "Error: epochs must be 1 or more. Received: 0"),
        (LenetKerasError("no dataset"), 1, "Error: no dataset"),
        (OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "runs/a"), 1, "Error: runs/a: No space left on device"),
        (InvalidArgument("a\nb \x1b[2J\udcff"), 2, "Error: a\\nb \\x1b[2J\\udcff"),
        (LenetKerasError("a\r"), 1, "Error: a\\r"),
        (OSError(errno.EIO, "bad", "a\u2028b"), 1, "Error: a\\u2028b: bad"),
        (KeyboardInterrupt(), 130, "Interrupted."),
    ],
)
def test_an_error_is_one_line_and_a_code(error, code, last_line, monkeypatch):
    def fail(**_):
        raise error

    monkeypatch.setattr(command, "callback", fail)
    result = CliRunner().invoke(main, ["models"])
    assert result.exit_code == code
    assert result.stderr.splitlines()[-1] == last_line
    assert result.stdout == ""


def test_a_bug_is_not_hidden(monkeypatch):
    def fail(**_):
        raise ValueError("a bug")

    monkeypatch.setattr(command, "callback", fail)
    assert isinstance(CliRunner().invoke(main, ["models"]).exception, ValueError)


@pytest.mark.parametrize(
    ("error", "code", "last_line"),
    [
        (
            errors.RunExists("runs/a already holds a finished run."), 2,
            "Error: runs/a already holds a finished run. Continue it with --resume, replace it with --overwrite, "
            "or choose another folder with --run-dir.",
        ),
        (errors.Diverged("the loss became nan."), 1, "Error: the loss became nan. "
         "Restart with a smaller --learning-rate."),
        (checkpoint.StateDamaged("no state is left."), 1, "Error: no state is left. "
         "Train the run again with --overwrite."),
        (errors.WorkerLost("worker 1 was lost."), 1, "Error: worker 1 was lost. "
         "Start all workers again with --resume."),
        (
            errors.DatasetNotFound("MNIST was not found.", "mnist", None, ["TFDS download: no answer"]), 1,
            "On a machine with internet access, run `lenet-keras data prepare mnist --data-dir FOLDER`, "
            "copy FOLDER here, and add --data-dir FOLDER.",
        ),
        (
            errors.DatasetNotFound("MNIST was not found.", "mnist", Path("sets")), 1,
            "Error: MNIST was not found. Check --data-dir, or fetch the dataset with "
            "`lenet-keras data prepare mnist --data-dir sets`.",
        ),
        (
            errors.DatasetNotFound("it was not found.", "fashion_mnist_sample", Path("sets")), 1,
            "Error: it was not found. Leave out --data-dir: the sample ships with lenet-keras.",
        ),
    ],
)  # fmt: skip
def test_the_option_that_helps_is_named(error, code, last_line, monkeypatch):
    def fail(**_):
        raise error

    monkeypatch.setattr(command, "callback", fail)
    result = CliRunner().invoke(main, ["models"])
    assert (result.exit_code, result.stderr.splitlines()[-1]) == (code, last_line)


def test_what_was_tried_for_a_dataset_is_a_list_of_lines_and_names_stay_on_theirs(monkeypatch):
    tried = ["IDX files: none in a\nb", "TFDS download: \x1b[2J"]

    def fail(**_):
        raise errors.DatasetNotFound("MNIST was not found. Tried:", "mnist", None, tried)

    monkeypatch.setattr(command, "callback", fail)
    lines = CliRunner().invoke(main, ["models"]).stderr.splitlines()
    assert lines[:3] == [
        "Error: MNIST was not found. Tried:", "  IDX files: none in a\\nb", "  TFDS download: \\x1b[2J",
    ]  # fmt: skip
    assert len(lines) == 4


def test_a_message_of_several_lines_keeps_them_wherever_it_comes_from(monkeypatch):
    missing = errors.DatasetNotFound("MNIST was not found. Tried:", "mnist", None, ["TFDS: no answer\nb", "IDX: none"])

    def fail(**_):
        raise LenetKerasError(f"none/0: {missing}")  # as of a training in another process

    monkeypatch.setattr(command, "callback", fail)
    assert CliRunner().invoke(main, ["models"]).stderr.splitlines() == [
        "Error: none/0: MNIST was not found. Tried:", "  TFDS: no answer\\nb", "  IDX: none",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["trian"], "No such command 'trian'. Did you mean 'train'?"),
        (["xyzzy"], "No such command 'xyzzy'."),
        (["train", "--reg", "droput"], "'weight_decay'. Did you mean 'dropout'?"),
        (["train", "--reg", "dropout+weight_dcay"], "'weight_decay'. Did you mean 'weight_decay'?"),
        (["compare", "--reg", "droput"], "'weight_decay'. Did you mean 'dropout'?"),
        (["models", "droput"], "'weight_decay'. Did you mean 'dropout'?"),
        (["train", "--dataset", "fashon_mnist"], "Did you mean 'fashion_mnist'?"),
        (["export", "--format", "onxx", "."], "Did you mean 'onnx'?"),
    ],
)
def test_a_mistyped_command_or_value_gets_a_guess(arguments, message):
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 2
    assert result.stderr.splitlines()[-1].endswith(message)


def test_a_combination_is_accepted_by_its_name():
    result = CliRunner().invoke(main, ["models", "weight_decay+dropout"])
    assert result.stdout.startswith("LeNet-5, dropout+weight_decay: 61,706 parameters")


def test_progress_of_the_library_is_shown_on_stderr_once(monkeypatch):
    def report(**_):
        logging.getLogger("lenet_keras.data.load").info("mnist: found in %s", "/sets")
        logging.getLogger("lenet_keras.data.load").debug("not shown")
        logging.getLogger("another.library").info("not shown either")

    monkeypatch.setattr(command, "callback", report)
    for _ in range(2):
        result = CliRunner().invoke(main, ["models"])
        assert (result.stderr, result.stdout) == ("mnist: found in /sets\n", "")
