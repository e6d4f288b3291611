"""A run's model.keras that is damaged, or comes from a stranger: one line, and nothing of it is run."""

import json
import shutil
import zipfile

import keras
import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from lenet_keras.errors import LenetKerasError
from lenet_keras.run_folder import RunFolder
from lenet_keras.run_model import load_run_model
from lenet_keras_cli.main import main


@pytest.fixture(scope="module")
def folder(tmp_path_factory, sample_run):
    """A copy of a finished run, whose model.keras the tests replace."""
    return RunFolder(shutil.copytree(sample_run, tmp_path_factory.mktemp("stranger") / "run"))


@pytest.fixture(scope="module")
def original(sample_run):
    return (sample_run / "model.keras").read_bytes()


def assert_refused(folder, message=None):
    with pytest.raises(LenetKerasError, match=message) as refused:
        load_run_model(folder)
    assert str(refused.value).startswith(str(folder.model_keras))
    assert len(str(refused.value).splitlines()) == 1


@pytest.mark.parametrize("content", [b"", b"not a model", b"PK\x03\x04"])
def test_what_is_no_model_is_refused(folder, content):
    folder.model_keras.write_bytes(content)
    assert_refused(folder)


def test_a_model_that_is_missing_is_named(folder):
    folder.model_keras.unlink(missing_ok=True)
    assert_refused(folder)


def test_a_model_cut_off_anywhere_is_refused(folder, original):
    for length in range(0, len(original), len(original) // 25):
        folder.model_keras.write_bytes(original[:length])
        assert_refused(folder)


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_a_model_with_changed_bytes_is_refused_or_unchanged(folder, original, data):
    content = bytearray(original)
    # The archive's own directory and headers are at its ends; the weights between have a checksum.
    ends = st.integers(0, 3000) | st.integers(len(content) - 600, len(content) - 1)
    for _ in range(data.draw(st.integers(1, 3))):
        content[data.draw(ends | st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    folder.model_keras.write_bytes(content)
    try:
        model = load_run_model(folder)
    except LenetKerasError as error:
        message = str(error)
        assert message.startswith(str(folder.model_keras))
        assert len(message.splitlines()) == 1
        return
    folder.model_keras.write_bytes(original)
    for found, expected in zip(model.get_weights(), load_run_model(folder).get_weights(), strict=True):
        np.testing.assert_array_equal(found, expected)


def save_lambda(path, marker):
    images = keras.Input((28, 28, 1))
    outputs = keras.layers.Lambda(lambda x: (open(marker, "w"), x)[1])(images)  # noqa: PTH123, SIM115
    keras.Model(images, outputs).save(path)


def rewrite_config(path, original, change):
    """The original model with `change` made to the configuration of its first convolution."""
    path.write_bytes(original)
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    config = json.loads(members["config.json"])
    change(next(layer for layer in config["config"]["layers"] if layer["class_name"] == "Conv2D"))
    members["config.json"] = json.dumps(config).encode()
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)


def test_a_model_that_brings_code_is_refused_and_the_code_is_not_run(folder, tmp_path):
    marker = tmp_path / "it ran"
    save_lambda(folder.model_keras, str(marker))
    marker.unlink(missing_ok=True)  # building the model ran it
    assert_refused(folder, "Lambda")
    assert not marker.exists()


@pytest.mark.parametrize(
    "foreign",
    [
        {"module": "os", "class_name": "system", "config": {"command": "touch MARKER"}, "registered_name": None},
        {"module": "builtins", "class_name": "eval", "config": "open('MARKER', 'w')", "registered_name": "function"},
        {"module": "subprocess", "class_name": "Popen", "config": {"args": ["touch", "MARKER"]},
         "registered_name": None},
    ],
)  # fmt: skip
@pytest.mark.parametrize("place", ["layer", "initializer", "activation"])
def test_a_model_that_names_other_programs_is_refused_and_they_are_not_run(folder, original, tmp_path, foreign, place):
    marker = tmp_path / "it-ran"
    foreign = json.loads(json.dumps(foreign).replace("MARKER", str(marker)))

    def change(layer):
        if place == "layer":
            layer.update(foreign)
        elif place == "initializer":
            layer["config"]["kernel_initializer"] = foreign
        else:
            layer["config"]["activation"] = foreign

    rewrite_config(folder.model_keras, original, change)
    assert_refused(folder)
    assert not marker.exists()


@pytest.mark.parametrize("command", [["evaluate"], ["export"], ["predict", "IMAGE", "--model"]])
def test_every_command_refuses_a_model_that_brings_code(folder, tmp_path, command):
    marker = tmp_path / "it ran"
    save_lambda(folder.model_keras, str(marker))
    marker.unlink(missing_ok=True)
    Image.fromarray(np.zeros((28, 28), np.uint8)).save(tmp_path / "a.png")
    arguments = [word.replace("IMAGE", str(tmp_path / "a.png")) for word in command]
    result = CliRunner().invoke(main, [*arguments, str(folder.path)])
    assert result.exit_code == 1
    assert "Lambda" in result.stderr.splitlines()[-1]
    assert not marker.exists()


def test_without_a_change_the_rewritten_model_loads(folder, original):
    """The refusals above are not for the rewriting."""
    rewrite_config(folder.model_keras, original, lambda layer: None)
    assert load_run_model(folder).count_params() == 61_706
