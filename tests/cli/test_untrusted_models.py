"""An untrusted model.keras that would run code: it is refused, distinguished from damage, and nothing is run."""

import json
import shutil
import zipfile

import keras
import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from lenet_keras.errors import RunDamaged
from lenet_keras.inference import run_model
from lenet_keras.inference.run_model import load_run_model
from lenet_keras.runs import RunFolder
from lenet_keras_cli.main import main


@pytest.fixture(scope="module")
def folder(tmp_path_factory, sample_run):
    """Return a copy of a finished run, whose model.keras the tests replace."""
    return RunFolder(shutil.copytree(sample_run, tmp_path_factory.mktemp("untrusted") / "run"))


@pytest.fixture(scope="module")
def original(sample_run):
    return sample_run / "model.keras"


@pytest.fixture
def marker(tmp_path):
    """Return the file that the untrusted code would create."""
    return tmp_path / "it-ran"


def save_lambda(path, marker):
    """Save a model that creates the file `marker` when it is built or called."""
    name = str(marker)
    images = keras.Input((28, 28, 1))
    flat = keras.layers.Flatten()(keras.layers.Lambda(lambda x: (open(name, "w").close(), x)[1])(images))  # noqa: PTH123
    keras.Model(images, keras.layers.Dense(10)(flat)).save(path)
    assert marker.exists()  # building the model ran it
    marker.unlink()


def rewrite(path, original, change):
    """Write the original model with `change` applied to the configuration of the whole and of its first convolution."""
    with zipfile.ZipFile(original) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    config = json.loads(members["config.json"])
    change(config, next(layer for layer in config["config"]["layers"] if layer["class_name"] == "Conv2D"))
    members["config.json"] = json.dumps(config).encode()
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)


def assert_refused(folder, message):
    with pytest.raises(RunDamaged, match=message) as refused:
        load_run_model(folder)
    assert str(refused.value).startswith(str(folder.model_keras))
    assert len(str(refused.value).splitlines()) == 1


def test_without_a_change_the_rewritten_model_loads(folder, original):
    """So the rewriting is not what the refusals below are for."""
    rewrite(folder.model_keras, original, lambda config, layer: None)
    assert load_run_model(folder).count_params() == 61_706


FOREIGN = {
    "os.system": {"module": "os", "class_name": "system", "config": {"command": "touch MARKER"}},
    "subprocess.Popen": {"module": "subprocess", "class_name": "Popen", "config": {"args": ["touch", "MARKER"]}},
    "builtins.eval": {"module": "builtins", "class_name": "eval", "config": "open('MARKER', 'w')"},
    "os.Dense": {"module": "os", "class_name": "Dense", "config": {"units": 10}},
    "function": {"module": "keras.utils", "class_name": "function", "config": "get_file"},
    "TFSMLayer": {"module": "keras.layers", "class_name": "TFSMLayer", "config": {"filepath": "MARKER"}},
}


@pytest.mark.parametrize("named", FOREIGN)
@pytest.mark.parametrize("place", ["model", "layer", "initializer", "activation"])
def test_a_model_that_names_other_code_is_refused_and_the_code_is_not_run(folder, original, marker, named, place):
    foreign = json.loads(json.dumps({**FOREIGN[named], "registered_name": None}).replace("MARKER", str(marker)))

    def change(config, layer):
        if place == "model":
            config.update(foreign)
        elif place == "layer":
            layer.update(foreign)
        elif place == "initializer":
            layer["config"]["kernel_initializer"] = foreign
        else:
            layer["config"]["activation"] = foreign

    rewrite(folder.model_keras, original, change)
    assert_refused(folder, f"is not one of this program's models: it holds '{named}', so it was not loaded")
    assert not marker.exists()


def test_a_layer_is_not_a_model(folder, original):
    part = {"module": "keras.layers", "class_name": "Dense", "config": {"units": 10}}
    rewrite(folder.model_keras, original, lambda config, layer: (config.clear(), config.update(part)))
    assert_refused(folder, "is damaged")


def test_a_deeply_nested_configuration_is_damaged(folder):
    with zipfile.ZipFile(folder.model_keras, "w") as archive:
        archive.writestr("config.json", "[" * 100_000)
    assert_refused(folder, "is damaged")


def test_that_nothing_in_the_file_is_built_is_a_second_barrier(folder, original, marker, monkeypatch):
    names = {"Lambda", "__lambda__", *FOREIGN}
    monkeypatch.setattr(run_model, "KERAS_CLASSES", run_model.KERAS_CLASSES | names)
    save_lambda(folder.model_keras, marker)
    assert_refused(folder, "is not one of this program's models")
    for foreign in FOREIGN.values():
        named = json.loads(json.dumps({**foreign, "registered_name": None}).replace("MARKER", str(marker)))
        rewrite(
            folder.model_keras, original, lambda _, layer, named=named: layer["config"].update(kernel_initializer=named)
        )
        load_run_model(folder)
        assert not marker.exists()


@pytest.mark.parametrize("command", [["evaluate"], ["export"], ["predict", "IMAGE", "--model"]])
def test_every_command_refuses_a_model_that_brings_code(folder, marker, tmp_path, command):
    save_lambda(folder.model_keras, marker)
    Image.fromarray(np.zeros((28, 28), np.uint8)).save(tmp_path / "a.png")
    arguments = [word.replace("IMAGE", str(tmp_path / "a.png")) for word in command]
    result = CliRunner().invoke(main, [*arguments, str(folder.path)])
    assert result.exit_code == 1
    assert result.stderr.splitlines()[-1].startswith("Error: ")
    assert "is not one of this program's models: it holds 'Lambda'" in result.stderr.splitlines()[-1]
    assert not marker.exists()
