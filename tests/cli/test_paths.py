"""Paths as people write them: `~`, URLs, and other people's files, by every option and argument that takes a path."""

import click
import pytest
from click.testing import CliRunner

from lenet_keras_cli.main import COMMANDS, main
from lenet_keras_cli.options import LocalPath


def path_parameters():
    """Yield the words before every path that a command takes."""
    context = click.Context(main)
    groups = [([name], main.get_command(context, name)) for name in COMMANDS]
    for words, command in groups:
        groups += [([*words, name], sub) for name, sub in getattr(command, "commands", {}).items()]
        for parameter in command.params:
            if isinstance(parameter.type, click.Path):
                yield words, parameter


PARAMETERS = list(path_parameters())
# What else these commands need.
NEEDED = {"predict": ["boot.png"], "evaluate": ["."], "export": ["."], "data prepare": ["mnist"]}


def test_every_path_is_one_of_this_machine():
    assert len(PARAMETERS) > 12
    assert all(isinstance(parameter.type, LocalPath) for _, parameter in PARAMETERS)


@pytest.mark.parametrize(
    ("words", "parameter"), PARAMETERS, ids=[f"{' '.join(words)} {one.name}" for words, one in PARAMETERS]
)
def test_a_url_is_refused_and_makes_no_folder(tmp_path, monkeypatch, words, parameter):
    monkeypatch.chdir(tmp_path)
    is_option = isinstance(parameter, click.Option)
    path = [f"{parameter.opts[0]}=gs://bucket/x", *NEEDED.get(" ".join(words), [])] if is_option else ["gs://bucket/x"]
    result = CliRunner().invoke(main, [*words, *path])
    assert result.exit_code == 2
    assert "gs://bucket/x is a URL, and only files and folders of this machine will do" in result.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_home_directory_in_an_option_is_expanded(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(main, ["predict", "--model=~/models", "~/boot.png"])
    assert result.stderr.splitlines()[-1] == f"Error: {tmp_path}/models is not a SavedModel: No such file or directory"
    (tmp_path / "notes.txt").touch()
    result = CliRunner().invoke(main, ["train", "--run-dir=~"])
    assert result.stderr.splitlines()[-1].startswith(f"Error: {tmp_path} exists but is not a run folder")
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_a_url_in_a_variable_is_refused(monkeypatch):
    monkeypatch.setenv("TFDS_DATA_DIR", "gs://bucket/x")
    result = CliRunner().invoke(main, ["data"])
    assert result.exit_code == 2
    assert result.stderr.splitlines()[-1].startswith("Error: TFDS_DATA_DIR: gs://bucket/x is a URL")


@pytest.mark.parametrize(
    ("path", "arguments", "message"),
    [
        ("exports/models.config", ["--export-dir", "exports"], "exports/models.config was not written by lenet-keras"),
        ("exports/lenet5_none/README.md", ["--export-dir", "exports"], "README.md was not written by lenet-keras"),
        ("run/config.json", ["--run-dir", "run", "--overwrite"], "lenet-keras did not write its config.json"),
        ("run/config.json", ["--run-dir", "run"], "lenet-keras did not write its config.json"),
    ],
)
def test_other_peoples_files_are_refused_before_training(tmp_path, monkeypatch, path, arguments, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / path).parent.mkdir(parents=True)
    (tmp_path / path).write_text('{"model_type": "bert"}')
    before = sorted(tmp_path.rglob("*"))
    result = CliRunner().invoke(main, ["train", *arguments])
    assert result.exit_code == 2
    assert message in result.stderr.splitlines()[-1]
    assert sorted(tmp_path.rglob("*")) == before
    assert (tmp_path / path).read_text() == '{"model_type": "bert"}'
