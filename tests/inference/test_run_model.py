"""A run's model.keras that is damaged, or was written by another program: one line says which."""

import shutil

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lenet_keras.errors import RunDamaged
from lenet_keras.inference.run_model import load_run_model
from lenet_keras.models import ACTIVATIONS, POOLINGS, REGULARISATIONS, build_lenet5
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
def test_the_model_of_every_variant_loads(folder, reg, activation, pooling):
    model = build_lenet5(reg, activation=activation, pooling=pooling)
    model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True), ["accuracy"])
    model.save(folder.model_keras)
    assert load_run_model(folder).get_config()["name"] == "lenet5"


def dense(shape=(28, 28, 1), units=(10,), batch_size=None, scale=1.0):
    """Return another model, of layers that this program uses too."""
    images = keras.Input(shape, batch_size=batch_size)
    flat = keras.layers.Flatten()(keras.layers.Rescaling(scale)(images))
    outputs = [keras.layers.Dense(number)(flat) for number in units]
    return keras.Model(images, outputs if len(outputs) > 1 else outputs[0])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"units": [3]}, r"it takes \(None, 28, 28, 1\) and returns \(None, 3\)"),
        ({"units": [10, 10]}, r"returns \[\(None, 10\), \(None, 10\)\]"),
        ({"shape": (5,)}, r"it takes \(None, 5\) and"),
        ({"shape": (28, 28, 3)}, r"it takes \(None, 28, 28, 3\) and"),
        ({"batch_size": 1}, r"it takes \(1, 28, 28, 1\) and"),
    ],
)
def test_a_model_of_another_program_is_distinguished_from_a_damaged_one(folder, options, message):
    dense(**options).save(folder.model_keras)
    assert_refused(folder, f"is not one of this program's models: .*{message}")


def test_a_model_that_loads_but_cannot_run_is_damaged(folder):
    dense(scale=[1.0, 2.0, 3.0]).save(folder.model_keras)
    assert_refused(folder, "is damaged")
