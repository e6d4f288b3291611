"""Settings of every kind, and config.json and metrics.json with anything in them."""

import functools
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lenet_keras.config import PRECISIONS, STRATEGIES, TrainConfig
from lenet_keras.data.catalogue import DATASETS
from lenet_keras.errors import LARGEST_INTEGER, LenetKerasError
from lenet_keras.models import ACTIVATIONS, PLACEMENTS, POOLINGS, REGULARISATIONS
from lenet_keras.records import METRICS
from lenet_keras.runs import RunFolder
from lenet_keras_cli.tables import metric_rows

NAMES = tuple(TrainConfig().to_json())
LARGEST_SET = max(spec.train_size for spec in DATASETS.values())
COMBINABLE = [name for name in REGULARISATIONS if name != "none"]

ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.sampled_from([10**400, -(10**400)]) | st.floats()
    | st.text(max_size=9)
    | st.sampled_from([*DATASETS, *REGULARISATIONS, *ACTIVATIONS, *POOLINGS, *STRATEGIES]),
    lambda values: st.lists(values, max_size=3) | st.dictionaries(st.text(max_size=5), values, max_size=3),
    max_leaves=5,
)  # fmt: skip

# What Python itself cannot show: an integer of too many digits, and lists too deep.
HUGE = 10**5000
DEEP = functools.reduce(lambda inner, _: [inner], range(100_000), None)

VALID = st.fixed_dictionaries(
    {
        "dataset": st.sampled_from(sorted(DATASETS)),
        "reg": st.just("none") | st.sets(st.sampled_from(COMBINABLE), min_size=1).map("+".join),
        "activation": st.sampled_from(ACTIVATIONS),
        "pooling": st.sampled_from(POOLINGS),
        "dropout_rate": st.floats(0, 1, exclude_max=True),
        "dropout_layers": st.sampled_from(sorted(PLACEMENTS)),
        "batch_norm_layers": st.sampled_from(sorted(PLACEMENTS)),
        "weight_decay": st.floats(0, 1e30) | st.integers(0, 5),
        "learning_rate": st.floats(0, 1e30, exclude_min=True),
        "batch_size": st.integers(1, 100),
        "epochs": st.integers(1, LARGEST_INTEGER),
        "validation": st.none() | st.integers(1, 400),
        "early_stopping": st.none() | st.integers(1, LARGEST_INTEGER),
        "seed": st.integers(0, 2**32 - 1),
        "strategy": st.sampled_from(STRATEGIES),
        "devices": st.none()
        | st.tuples(st.sampled_from(["CPU", "GPU"]), st.sets(st.integers(0, 255), min_size=1)).map(
            lambda kind_and_numbers: ",".join(f"{kind_and_numbers[0]}:{number}" for number in kind_and_numbers[1])
        ),
        "precision": st.sampled_from(PRECISIONS),
        "xla": st.booleans(),
        "checkpoint_steps": st.none() | st.integers(1, LARGEST_INTEGER),
        "histograms": st.booleans(),
        "record_test": st.booleans(),
    }
)

WRONG = {
    "dataset": st.text(max_size=8).filter(lambda name: name not in DATASETS),
    "reg": st.text(max_size=8).filter(lambda name: not set(name.split("+")) <= set(REGULARISATIONS)),
    "activation": st.text(max_size=8).filter(lambda name: name not in ACTIVATIONS),
    "pooling": st.text(max_size=8).filter(lambda name: name not in POOLINGS),
    "dropout_rate": st.floats(max_value=0, exclude_max=True) | st.floats(1) | st.just(float("nan")),
    "dropout_layers": st.text(max_size=8).filter(lambda name: name not in PLACEMENTS) | st.just(["conv"]),
    "batch_norm_layers": st.text(max_size=8).filter(lambda name: name not in PLACEMENTS) | st.integers(),
    "weight_decay": st.floats(max_value=0, exclude_max=True) | st.sampled_from([float("nan"), float("inf"), 10**400]),
    "learning_rate": st.floats(max_value=0) | st.sampled_from([float("nan"), float("inf"), 10**400, True]),
    "batch_size": st.integers(max_value=0) | st.integers(LARGEST_SET, 10**40) | st.just(1.0),
    "epochs": st.integers(max_value=0) | st.integers(LARGEST_INTEGER + 1) | st.just(True),
    "validation": st.integers(max_value=-1) | st.integers(LARGEST_SET, 10**40),
    "early_stopping": st.integers(max_value=0) | st.integers(LARGEST_INTEGER + 1),
    "seed": st.integers(max_value=-1) | st.integers(2**32, 10**40),
    "strategy": st.text(max_size=8).filter(lambda name: name not in STRATEGIES),
    "devices": st.text(max_size=8).filter(lambda text: ":" not in text) | st.integers() | st.just("CPU:0,CPU:0"),
    "precision": st.text(max_size=8).filter(lambda name: name not in PRECISIONS),
    "xla": st.integers() | st.text(max_size=3),
    "checkpoint_steps": st.integers(max_value=0) | st.integers(LARGEST_INTEGER + 1),
    "histograms": st.integers() | st.text(max_size=3),
    "record_test": st.integers() | st.text(max_size=3),
}


def result_or_refusal(call, *arguments, **settings):
    """What `call` returns, or the message of its error, which is one line and not endless."""
    try:
        return call(*arguments, **settings), None
    except LenetKerasError as error:
        message = str(error)
        assert len(message.splitlines()) == 1
        assert len(message) < 600
        return None, message


def from_file(values):
    return json.loads(json.dumps(values))


def test_every_setting_has_invalid_values():
    assert set(WRONG) == set(NAMES)


@settings(deadline=None)
@given(VALID)
def test_settings_within_their_ranges_are_accepted_and_read_back_from_json(values):
    config = TrainConfig(**values)
    again = TrainConfig.from_json(from_file(config.to_json()))
    assert again == config
    assert config.differences(again) == []


@settings(deadline=None)
@given(VALID, st.data())
def test_a_setting_out_of_its_range_is_named(values, data):
    name = data.draw(st.sampled_from(NAMES))
    config, message = result_or_refusal(TrainConfig, **{**values, name: data.draw(WRONG[name])})
    assert config is None
    assert name in message


@settings(max_examples=400, deadline=None)
@given(st.dictionaries(st.sampled_from(NAMES) | st.text(max_size=5), ANYTHING, max_size=6) | ANYTHING)
def test_any_mapping_makes_a_config_or_one_line(values):
    config, refusal = result_or_refusal(TrainConfig.from_json, values)
    if refusal is None:
        assert TrainConfig.from_json(from_file(config.to_json())) == config


@settings(deadline=None)
@given(st.dictionaries(st.sampled_from(NAMES), ANYTHING, max_size=3))
def test_any_arguments_make_a_config_or_one_line(values):
    config, refusal = result_or_refusal(TrainConfig, **values)
    if refusal is None:
        assert TrainConfig.from_json(from_file(config.to_json())) == config


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("value", [HUGE, -HUGE, [HUGE], DEEP], ids=["huge", "negative", "in a list", "deep"])
def test_a_value_that_cannot_be_displayed_is_rejected_all_the_same(name, value):
    assert result_or_refusal(TrainConfig, **{name: value})[1].startswith(name)


@pytest.mark.parametrize("values", [{1: 2, "a": 3, None: 4}, {"x" * 10_000: 1}, {"\n\u2028": 1}, {HUGE: 1}, DEEP])
def test_unknown_names_are_rejected_in_one_line(values):
    assert result_or_refusal(TrainConfig.from_json, values)[0] is None


OWN = b'{"program": "lenet-keras", "format": 1, "settings": '


def damaged(content):
    """What may have become of a file."""
    positions = st.integers(0, len(content) - 1)
    return (
        st.binary(max_size=50)
        | ANYTHING.map(lambda value: json.dumps(value).encode())
        | st.just(b"[" * 100_000)
        | st.just(OWN + b'{"a":' * 50_000)
        | st.integers(1, 2000).map(lambda depth: OWN + b"[" * depth + b"]" * depth + b"}")
        | positions.map(lambda end: content[:end])
        | st.tuples(positions, st.integers(0, 255)).map(
            lambda change: content[: change[0]] + bytes([change[1]]) + content[change[0] + 1 :]
        )
    )


CONFIG = json.dumps(
    {"program": "lenet-keras", "format": 1, "settings": TrainConfig().to_json(), "device": "CPU"}
).encode()
METRICS_FILE = {
    "dataset": "fashion_mnist", "reg": "none", "seed": 0, "train": {"loss": 0.5, "accuracy": 0.9}, "validation": None,
    "test": {"loss": 0.5, "accuracy": 0.9}, "epochs": 5, "best_epoch": None, "parameters": 61_706, "export": None,
}  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return RunFolder(tmp_path_factory.mktemp("run"))


@settings(max_examples=400, deadline=None)
@given(content=damaged(CONFIG))
def test_a_damaged_config_json_is_named_in_one_line(folder, content):
    folder.config_json.write_bytes(content)
    config, refusal = result_or_refusal(folder.read_config)
    if refusal is not None:
        assert refusal.startswith(str(folder.path))
        assert "config.json" in refusal
    else:
        assert isinstance(config, TrainConfig)


@settings(max_examples=400, deadline=None)
@given(
    content=damaged(json.dumps(METRICS_FILE).encode())
    | st.dictionaries(st.sampled_from(list(METRICS)), ANYTHING).map(
        lambda values: json.dumps({**METRICS_FILE, **values}).encode()
    )
    | st.dictionaries(st.sampled_from(["loss", "accuracy"]), ANYTHING).map(
        lambda split: json.dumps({**METRICS_FILE, "train": split}).encode()
    )
)
def test_a_damaged_metrics_json_is_named_in_one_line(folder, content):
    folder.metrics_json.write_bytes(content)
    metrics, refusal = result_or_refusal(folder.read_metrics)
    if refusal is not None:
        assert refusal.startswith(str(folder.metrics_json))
    else:
        assert metric_rows(metrics)[-1][0] == "test"  # what is accepted can be displayed


@pytest.mark.parametrize("name", METRICS)
def test_metrics_that_are_missing_or_of_another_type_are_named(folder, name):
    for content in ({**METRICS_FILE, name: [1]}, {key: METRICS_FILE[key] for key in METRICS_FILE if key != name}):
        folder.metrics_json.write_text(json.dumps(content))
        assert f"damaged: {name} is missing or of the wrong type" in result_or_refusal(folder.read_metrics)[1]


def test_a_newer_format_says_so(folder):
    folder.config_json.write_bytes(CONFIG.replace(b'"format": 1', b'"format": 2'))
    with pytest.raises(
        LenetKerasError, match=r"written by another version.* has format 2, this version reads 1\. Use the"
    ):
        folder.read_config()
