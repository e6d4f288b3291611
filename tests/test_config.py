"""Settings: what is accepted, what is rejected and how, and the way through JSON and back."""

import json
import math
from itertools import combinations
from typing import get_args

import numpy as np
import pytest

from lenet_keras.config import TrainConfig
from lenet_keras.data.catalogue import DATASETS, DatasetName
from lenet_keras.errors import InvalidArgument
from lenet_keras.models import REGULARISATIONS, VARIANTS


def test_defaults_are_those_of_the_report():
    config = TrainConfig()
    assert (config.dataset, config.reg, config.learning_rate) == ("fashion_mnist", "none", 1e-4)
    assert (config.batch_size, config.epochs, config.held_out, config.dropout_rate) == (64, 50, 5_000, 0.25)


def test_the_sample_holds_out_fewer_images():
    assert TrainConfig(dataset="fashion_mnist_sample").held_out == 100
    assert TrainConfig(dataset="fashion_mnist_sample", validation=0).held_out == 0


def test_reg_has_one_spelling():
    assert TrainConfig(reg="weight_decay+dropout").reg == "dropout+weight_decay"


@pytest.mark.parametrize("reg", [["weight_decay", "dropout"], ("dropout+weight_decay",), "weight_decay+dropout"])
def test_reg_may_be_a_list(reg):
    config = TrainConfig(reg=reg)
    assert config.reg == "dropout+weight_decay"
    assert config == TrainConfig(reg="dropout+weight_decay")
    assert TrainConfig.from_json(json.loads(json.dumps(config.to_json()))) == config


@pytest.mark.parametrize("reg", [[], ["none", "dropout"], [["dropout"]], None, 1, "droput", ["droput"]])
def test_any_other_reg_is_rejected(reg):
    with pytest.raises(InvalidArgument, match=r"^reg "):
        TrainConfig(reg=reg)


def test_a_mistyped_name_gets_a_guess():
    with pytest.raises(InvalidArgument, match="Did you mean 'dropout'"):
        TrainConfig(reg=["weight_decay", "droput"])
    with pytest.raises(InvalidArgument, match="Did you mean 'tanh'"):
        TrainConfig(activation="tahn")


def test_numbers_and_truth_values_of_numpy_become_pythons():
    config = TrainConfig(epochs=np.int32(3), seed=np.uint8(7), learning_rate=np.float32(0.5), xla=np.bool_(True))
    assert config == TrainConfig(epochs=3, seed=7, learning_rate=0.5, xla=True)
    assert [type(value) for value in (config.epochs, config.seed, config.learning_rate, config.xla)] == [
        int, int, float, bool,
    ]  # fmt: skip
    json.dumps(config.to_json())
    for setting, value in {"epochs": np.float64(3), "learning_rate": np.float32("nan"), "seed": np.bool_(True)}.items():
        with pytest.raises(InvalidArgument, match=setting):
            TrainConfig(**{setting: value})


def test_the_types_name_what_exists():
    assert set(get_args(DatasetName)) == set(DATASETS)
    single = [name for name in REGULARISATIONS if name != "none"]
    assert set(VARIANTS) == {"none", *("+".join(names) for n in (1, 2, 3) for names in combinations(single, n))}


def test_settings_of_another_variant_have_no_effect():
    assert {"dropout_rate", "dropout_layers"} <= TrainConfig(reg="dropout+weight_decay").with_effect().keys()
    assert "dropout_rate" in TrainConfig().without_effect()
    shown = TrainConfig(reg="weight_decay", checkpoint_steps=5).with_effect()
    assert not {"dropout_rate", "batch_norm_layers", "checkpoint_steps", "devices", "early_stopping"} & shown.keys()
    assert (shown["reg"], shown["weight_decay"], shown["seed"]) == ("weight_decay", 1e-3, 0)


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


def test_differences_name_both_values_and_ignore_what_has_no_effect():
    before = TrainConfig(reg="dropout", epochs=10)
    now = TrainConfig(reg="dropout", epochs=20, histograms=True, learning_rate=0.001, weight_decay=0.5)
    assert before.differences(now, ignored={"epochs"}) == ["learning_rate: 0.0001, now 0.001"]
    assert before.differences(TrainConfig(epochs=10, dropout_rate=0.1)) == [
        "reg: dropout, now none",
        "dropout_rate: 0.25, now 0.1",
    ]
