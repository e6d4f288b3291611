"""Variables are captured whole, and given back to the same variables only."""

import keras
import numpy as np
import pytest

from lenet_keras.checkpoint import capture, restore
from lenet_keras.errors import LenetKerasError
from lenet_keras.models import build_lenet5


def assert_equal(found, expected):
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_array_equal(found[name], value)
        assert found[name].dtype == value.dtype


def test_variables_are_restored_across_models_of_one_process():
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


def test_the_state_of_another_model_is_rejected():
    with pytest.raises(LenetKerasError, match="another model"):
        restore(build_lenet5("batch_norm").variables, capture(build_lenet5("none").variables))
