"""A run's model.keras that is damaged, or was written by another program: one line says which."""

import io
import json
import os
import shutil
import zipfile
from dataclasses import replace

import h5py
import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lenet_keras.errors import LenetKerasError, RunDamaged
from lenet_keras.inference.run_model import build_run_model, load_run_model
from lenet_keras.models import ACTIVATIONS, POOLINGS, REGULARISATIONS
from lenet_keras.runs import RunFolder


@pytest.fixture(scope="module")
def folder(tmp_path_factory, sample_run):
    """Return a copy of a finished run, whose model.keras the tests replace."""
    return RunFolder(shutil.copytree(sample_run, tmp_path_factory.mktemp("damaged") / "run"))


@pytest.fixture(scope="module")
def original(sample_run):
    return (sample_run / "model.keras").read_bytes()


def assert_refused(folder, message):
    with pytest.raises(RunDamaged, match=message) as refused:
        load_run_model(folder)
    assert str(refused.value).startswith(f"{folder.model_keras} is ")
    assert len(str(refused.value).splitlines()) == 1


@pytest.mark.parametrize("content", [b"", b"not a model", b"PK\x03\x04"])
def test_a_file_that_is_not_a_model_is_damaged(folder, content):
    folder.model_keras.write_bytes(content)
    assert_refused(folder, "is damaged")


def test_a_model_that_is_missing_or_a_folder_is_named(folder):
    folder.model_keras.unlink(missing_ok=True)
    assert_refused(folder, "No such file")
    folder.model_keras.mkdir()
    (folder.model_keras / "config.json").write_text("{}")  # Keras itself would read such a folder
    assert_refused(folder, "Is a directory")
    shutil.rmtree(folder.model_keras)


def test_a_model_truncated_anywhere_is_damaged(folder, original):
    for length in range(0, len(original), len(original) // 25):
        folder.model_keras.write_bytes(original[:length])
        assert_refused(folder, "is damaged")


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
    except RunDamaged as error:
        message = str(error)
        assert message.startswith(str(folder.model_keras))
        assert len(message.splitlines()) == 1
        return
    folder.model_keras.write_bytes(original)
    for found, expected in zip(model.get_weights(), load_run_model(folder).get_weights(), strict=True):
        np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("pooling", POOLINGS)
@pytest.mark.parametrize(("reg", "activation"), [*zip(REGULARISATIONS, ACTIVATIONS, strict=True)])
def test_the_model_of_every_variant_loads(folder, tmp_path, reg, activation, pooling):
    other = RunFolder(shutil.copytree(folder.path, tmp_path / "run"))
    config = replace(folder.read_config(), reg=reg, activation=activation, pooling=pooling)
    other.write_config(config, {})
    model = build_run_model(config)
    model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True), ["accuracy"])
    model.save(other.model_keras)
    for found, expected in zip(load_run_model(other).get_weights(), model.get_weights(), strict=True):
        np.testing.assert_array_equal(found, expected)
    other.write_config(replace(config, pooling="max" if pooling == "average" else "average"), {})
    assert_refused(other, r"is not one of this program's models: the run's settings have the layer \w+ (c1_|s2)\w*, it")


def dense(shape=(28, 28, 1), units=(10,), batch_size=None):
    """Return another model, of layers that this program uses too."""
    images = keras.Input(shape, batch_size=batch_size)
    flat = keras.layers.Flatten()(keras.layers.Rescaling(1.0)(images))
    outputs = [keras.layers.Dense(number)(flat) for number in units]
    return keras.Model(images, outputs if len(outputs) > 1 else outputs[0])


@pytest.mark.parametrize("options", [{}, {"shape": (28, 28, 3)}, {"units": [10, 10]}, {"batch_size": 1}])
def test_a_model_of_another_program_is_distinguished_from_a_damaged_one(folder, options):
    dense(**options).save(folder.model_keras)
    assert_refused(
        folder, "is not one of this program's models: the run's settings have the layer InputLayer images, it"
    )


def pack(path, original, compression=zipfile.ZIP_STORED, **members):
    """Write the archive `original` to `path`, with `members` instead of those of these names without their suffix."""
    with zipfile.ZipFile(io.BytesIO(original)) as old, zipfile.ZipFile(path, "w", compression) as new:
        for name in old.namelist():
            new.writestr(name, members.pop(name.split(".")[0], old.read(name)))
        for name, content in members.items():
            new.writestr(name, content)


def test_a_packed_model_loads(folder, original):
    """Somebody may have packed it anew."""
    pack(folder.model_keras, original, zipfile.ZIP_DEFLATED)
    assert load_run_model(folder).count_params() == 61_706


@pytest.mark.parametrize("member", ["config", "model", "other"])
def test_a_model_that_unpacks_to_much_more_is_refused_unread(folder, original, member):
    pack(folder.model_keras, original, zipfile.ZIP_DEFLATED, **{member: bytes(2**24)})
    assert_refused(folder, rf"is damaged \(it unpacks to \d+ bytes; the limit is {2**24}\)")


def test_a_model_of_enormous_layers_is_refused_unbuilt(folder, original):
    """Building it would take 480 GB."""
    with zipfile.ZipFile(io.BytesIO(original)) as archive:
        config = json.loads(archive.read("config.json"))
    layers = config["config"]["layers"]
    layer = next(layer for layer in layers if layer["config"]["name"] == "f6")
    layer["config"]["units"] = 10**9
    pack(folder.model_keras, original, config=json.dumps(config))
    assert load_run_model(folder).count_params() == 61_706  # what the settings say, and the weights agree with
    layers.insert(layers.index(layer), {**layer, "config": {**layer["config"], "name": "more"}})
    pack(folder.model_keras, original, config=json.dumps(config))
    assert_refused(folder, "the run's settings have the layer Dense f6, it has 'Dense more'")


@pytest.mark.parametrize("options", [{}, {"compression": "gzip", "chunks": (2**20,)}])
def test_a_model_of_enormous_arrays_is_refused_unread(folder, original, options):
    content = io.BytesIO()
    with h5py.File(content, "w") as file:
        file.create_dataset("layers/dense/vars/0", (2**31,), "float32", **options)
    pack(folder.model_keras, original, model=content.getvalue())
    assert_refused(folder, f"its arrays have {2**33} bytes")


@pytest.mark.parametrize("change", ["missing", "shape", "link"])
def test_weights_of_another_model_are_refused(folder, original, change):
    with zipfile.ZipFile(io.BytesIO(original)) as archive:
        content = io.BytesIO(archive.read("model.weights.h5"))
    with h5py.File(content, "r+") as file:
        layer = file["layers/dense/vars"]
        del layer["0"]
        if change == "shape":
            layer["0"] = np.zeros((400, 119), np.float32)
        elif change == "link":
            layer["0"] = h5py.ExternalLink("/etc/passwd", "0")
    pack(folder.model_keras, original, model=content.getvalue())
    assert_refused(folder, "is damaged")


@pytest.mark.parametrize("kind", ["pipe", "/dev/zero", "large"])
@pytest.mark.parametrize("name", ["model.keras", "config.json", "metrics.json"])
def test_a_file_of_a_run_that_is_not_one_is_neither_waited_for_nor_read_to_its_end(folder, tmp_path, name, kind):
    other = RunFolder(shutil.copytree(folder.path, tmp_path / "run"))
    path = other.path / name
    path.unlink(missing_ok=True)
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "large":
        path.touch()
        os.truncate(path, 2**30)  # takes no space
    else:
        path.symlink_to(kind)
    with pytest.raises(LenetKerasError) as refused:
        load_run_model(other)
    assert name in str(refused.value)
