"""The state of a training: what is written is what is read, and what is damaged is named."""

import keras
import numpy as np
import pytest

from lenet_keras.checkpoint import TrainingState, capture, read_state, restore, write_state
from lenet_keras.errors import LenetKerasError
from lenet_keras.models import build_lenet5


@pytest.fixture(scope="module")
def state():
    variables = {"000:kernel": np.arange(6, dtype=np.float32).reshape(2, 3), "001:seed": np.array([1, 2], np.uint32)}
    return TrainingState(variables, [{"epoch": 1, "loss": 0.1 + 0.2}], {"000:kernel": np.zeros((2, 3), np.float32)})


def assert_equal(found, expected):
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_array_equal(found[name], value)
        assert found[name].dtype == value.dtype


def test_what_is_written_is_read(state, tmp_path):
    write_state(tmp_path / "state.npz", state)
    found = read_state(tmp_path / "state.npz")
    assert_equal(found.variables, state.variables)
    assert_equal(found.best, state.best)
    assert found.history == state.history  # the loss to its last bit


def test_variables_are_restored_across_models_of_one_process(tmp_path):
    first, second = build_lenet5("dropout+batch_norm", seed=1), build_lenet5("dropout+batch_norm", seed=2)
    for model in (first, second):
        model.compile(optimizer=keras.optimizers.Adam())
        model.optimizer.build(model.trainable_variables)
    first(np.zeros((1, 28, 28, 1), np.float32), training=True)  # moves dropout's seeds
    values = capture([*first.variables, *first.optimizer.variables])
    restore([*second.variables, *second.optimizer.variables], values)
    assert_equal(capture([*second.variables, *second.optimizer.variables]), values)
    assert any("seed" in name for name in values)


def test_captured_values_do_not_change_with_the_model():
    model = build_lenet5(seed=1)
    values = capture(model.variables)
    before = {name: value.copy() for name, value in values.items()}
    for variable in model.variables:
        variable.assign_add(np.ones(variable.shape))
    assert_equal(values, before)


def test_the_state_of_another_model_is_refused():
    with pytest.raises(LenetKerasError, match="another model"):
        restore(build_lenet5("batch_norm").variables, capture(build_lenet5("none").variables))


@pytest.mark.parametrize("damage", ["missing", "empty", "truncated", "flipped", "newer"])
def test_damage_is_one_line_that_names_the_file(state, tmp_path, damage, monkeypatch):
    path = tmp_path / "state.npz"
    if damage == "newer":
        monkeypatch.setattr("lenet_keras.checkpoint.STATE_FORMAT", 99)
    write_state(path, state)
    monkeypatch.undo()
    content = bytearray(path.read_bytes())
    if damage == "missing":
        path.unlink()
    elif damage == "empty":
        path.write_bytes(b"")
    elif damage == "truncated":
        path.write_bytes(content[:-40])
    elif damage == "flipped":
        content[content.index(np.float32(5).tobytes())] ^= 1
        path.write_bytes(content)
    with pytest.raises(LenetKerasError, match=r"state\.npz") as refused:
        read_state(path)
    assert "\n" not in str(refused.value)
