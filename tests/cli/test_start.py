"""Help, version and completion: quick, and without TensorFlow."""

import os
import resource
import subprocess
import sys

import click
import pytest

from lenet_keras_cli.main import COMMANDS, main

HEAVY = {"tensorflow", "keras", "numpy", "rich", "tensorflow_datasets", "PIL", "matplotlib"}


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], *([name, "--help"] for name in COMMANDS)])
def test_help_and_version_import_nothing_heavy(arguments):
    program = f"""
import sys
from lenet_keras_cli.main import main
try:
    main({arguments!r})
finally:
    print(*{{name.split(".")[0] for name in sys.modules}} & {HEAVY!r}, file=sys.stderr)
"""
    answer = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert answer.stderr.split() == []
    assert answer.stdout


def test_the_help_imports_no_command_and_describes_each_in_a_line():
    program = """
import sys
from lenet_keras_cli.main import COMMANDS, main
try:
    main(["--help"])
finally:
    print(*{f"lenet_keras_cli.{name}" for name in COMMANDS} & sys.modules.keys(), file=sys.stderr)
"""
    environment = {**os.environ, "COLUMNS": "80"}
    answer = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True
    )
    assert answer.stderr.split() == []
    _, _, listed = answer.stdout.partition("Commands:\n")
    described = dict(line.split(maxsplit=1) for line in listed.splitlines())
    assert described == COMMANDS


@pytest.mark.parametrize("complete", [False, True])
def test_help_and_completion_take_half_a_second_of_processor_time(lenet_keras, complete):
    environment = dict(os.environ)
    if complete:
        environment |= {
            "_LENET_KERAS_COMPLETE": "bash_complete",
            "COMP_WORDS": "lenet-keras train --reg w",
            "COMP_CWORD": "3",
        }
    seconds = []
    for _ in range(3):
        start = resource.getrusage(resource.RUSAGE_CHILDREN)
        answer = subprocess.run([lenet_keras, "--help"], env=environment, capture_output=True, text=True, check=True)
        end = resource.getrusage(resource.RUSAGE_CHILDREN)
        seconds.append(end.ru_utime + end.ru_stime - start.ru_utime - start.ru_stime)
    assert min(seconds) < 0.5
    assert ("weight_decay" if complete else "Usage") in answer.stdout


def test_keras_is_what_this_program_needs_whatever_is_set_for_others(lenet_keras, run, tmp_path):
    # A process of its own, because Keras reads all of this once, when it is imported.
    (tmp_path / "keras.json").write_text('{"backend": "torch", "floatx": "half", "epsilon": 1, "nnx_enabled": true}')
    foreign = {"KERAS_BACKEND": "jax", "KERAS_HOME": str(tmp_path), "KERAS_NNX_ENABLED": "1", "KERAS_MAX_EPOCHS": "x"}
    environment = {**os.environ, **foreign, "TF_USE_LEGACY_KERAS": "1", "COLUMNS": "100"}
    command = [lenet_keras, "models", "dropout"]
    answer = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert (answer.returncode, answer.stderr) == (0, "")
    assert answer.stdout == run("models", "dropout", cwd=tmp_path).stdout
    assert "61,706" in answer.stdout


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_and_option_has_help(name):
    command = main.get_command(click.Context(main), name)
    assert command.help
    for parameter in command.params:
        if isinstance(parameter, click.Option):
            assert parameter.help, parameter.name


def test_every_default_of_train_stands_in_its_help(run, tmp_path):
    text = " ".join(run("train", "--help", cwd=tmp_path).stdout.split())
    for default in (
        "none",
        "fashion_mnist",
        "50",
        "64",
        "0.0001",
        "0.001",
        "0.25",
        "relu",
        "max",
        "auto",
        "5000",
        "runs/DATASET/REG/SEED",
    ):
        assert f"[default: {default}" in text


def test_the_package_can_be_run_as_a_module(lenet_keras):
    commands = ([lenet_keras], [sys.executable, "-m", "lenet_keras"])
    installed, module = (
        subprocess.run([*command, "data", "--help"], capture_output=True, text=True, check=True) for command in commands
    )
    assert module.stdout == installed.stdout
    assert module.stdout.startswith("Usage: lenet-keras data ")
