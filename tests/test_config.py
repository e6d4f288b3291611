"""Settings: what is accepted, what is rejected and how, and the way through JSON and back."""

import json
import math

import pytest

from lenet_keras.config import TrainConfig
from lenet_keras.errors import InvalidArgument


def test_defaults_are_those_of_the_report():
    config = TrainConfig()
    assert (config.dataset, config.reg, config.learning_rate) == ("fashion_mnist", "none", 1e-4)
    assert (config.batch_size, config.epochs, config.held_out, config.dropout_rate) == (64, 50, 5_000, 0.25)


def test_the_sample_holds_out_fewer_images():
    assert TrainConfig(dataset="fashion_mnist_sample").held_out == 100
    assert TrainConfig(dataset="fashion_mnist_sample", validation=0).held_out == 0


def test_reg_has_one_spelling():
    assert TrainConfig(reg="weight_decay+dropout").reg == "dropout+weight_decay"


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("dataset", "cifar10"),
        ("reg", "l1"),
        ("activation", "gelu"),
        ("pooling", "min"),
        ("strategy", "parameter_server"),
        ("precision", "float8"),
        ("devices", "TPU:0"),
        ("devices", "GPU:0,GPU:0"),
        ("devices", "GPU:0,CPU:0"),
        ("devices", "CPU:256"),
        ("xla", 1),
        ("dropout_rate", 1.0),
        ("dropout_rate", -0.1),
        ("weight_decay", -1e-9),
        ("weight_decay", math.inf),
        ("learning_rate", 0.0),
        ("learning_rate", math.nan),
        ("learning_rate", True),
        ("learning_rate", "0.1"),
        ("epochs", 0),
        ("epochs", 1.5),
        ("epochs", True),
        ("epochs", 2**63),
        ("checkpoint_steps", 0),
        ("batch_size", 0),
        ("batch_size", 55_001),
        ("validation", -1),
        ("validation", 60_000),
        ("early_stopping", 0),
        ("seed", -1),
        ("seed", 2**32),
    ],
)
def test_an_invalid_setting_is_named_with_its_value(setting, value):
    with pytest.raises(InvalidArgument) as rejected:
        TrainConfig(**{setting: value})
    message = str(rejected.value)
    assert str(value) in message
    assert "\n" not in message
    if setting != "dataset":
        assert setting in message


def test_a_batch_may_hold_all_training_images():
    assert TrainConfig(batch_size=55_000).batch_size == 55_000


def test_early_stopping_needs_validation_images():
    with pytest.raises(InvalidArgument, match="validation=0"):
        TrainConfig(early_stopping=3, validation=0)


def test_settings_are_read_back_from_json():
    config = TrainConfig(reg="dropout", learning_rate=3e-4, early_stopping=4, seed=9)
    assert TrainConfig.from_json(json.loads(json.dumps(config.to_json()))) == config


def test_an_unknown_setting_is_rejected():
    with pytest.raises(InvalidArgument, match="'warm_up'"):
        TrainConfig.from_json({**TrainConfig().to_json(), "warm_up": 5})


def test_differences_name_both_values_and_ignore_what_may_change():
    before, now = TrainConfig(epochs=10), TrainConfig(epochs=20, histograms=True, learning_rate=0.001)
    assert before.differences(now) == ["learning_rate: 0.0001, now 0.001"]
