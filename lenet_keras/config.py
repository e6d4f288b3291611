"""The settings of a training: validated when made, written to and read from a run's config.json."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from lenet_keras.data.catalogue import DEFAULT_DATASET, dataset_spec
from lenet_keras.distribution.devices import parse_devices
from lenet_keras.errors import InvalidArgument
from lenet_keras.models.variants import (
    ACTIVATIONS,
    DEFAULT_DROPOUT_RATE,
    DEFAULT_WEIGHT_DECAY,
    POOLINGS,
    check_choice,
    check_dropout_rate,
    check_weight_decay,
    is_number,
    parse_reg,
    reg_name,
    shown,
)

STRATEGIES = ("auto", "one_device", "mirrored", "multi_worker", "tpu")
PRECISIONS = ("float32", "mixed_bfloat16", "mixed_float16")
LARGEST_SEED = 2**32 - 1
LARGEST_COUNT = 2**63 - 1  # TensorFlow's and TensorBoard's integers

# What a resumed run may change: how long it goes on, how often it is saved, what it shows of itself, and on how many
# devices it is trained. All else would make it another run.
CHANGEABLE = frozenset({"epochs", "checkpoint_steps", "histograms", "strategy", "devices"})


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """Everything that a training's result depends on.

    Attributes:
        dataset: a name of `lenet_keras.data.catalogue.DATASETS`.
        reg: the variant, as `lenet_keras.models.build_lenet5` takes it; kept as one string, "dropout+weight_decay".
        activation, pooling, dropout_rate, weight_decay: as `build_lenet5` takes them.
        learning_rate: Adam's, above 0. The default is the report's.
        batch_size: images a step, over all devices and workers together, 1 or more. The last, smaller batch of an
            epoch is left out; which images that concerns changes with every epoch.
        epochs: 1 or more.
        validation: training images held out, 0 or more; None takes the data set's own number (5,000 of a full set).
        early_stopping: stop when the validation loss has not fallen for this many epochs, and keep the weights of the
            best one. None: train all epochs and keep the last weights.
        seed: of initial weights, held-out images, order and dropout masks; 0 to 2**32 - 1.
        strategy: a name of `STRATEGIES`, for tf.distribute; see `lenet_keras.distribution.placement.place`.
        devices: this process's, as "GPU:0,GPU:1" or "CPU:0,CPU:1"; None: those that `strategy` finds.
        precision: a name of `PRECISIONS`, Keras's dtype policies. Weights, logits and loss are float32 with each;
            "mixed_float16" scales the loss, so that small gradients do not vanish.
        xla: whether XLA compiles the computation of a step's gradients.
        checkpoint_steps: write the state after every so many steps of an epoch too; None: at its end only.
        histograms: whether TensorBoard gets histograms of the weights, every epoch.

    Raises:
        InvalidArgument: (a ValueError) a setting is out of its range; it names the value received.
    """

    dataset: str = DEFAULT_DATASET
    reg: str = "none"
    activation: str = "relu"
    pooling: str = "max"
    dropout_rate: float = DEFAULT_DROPOUT_RATE
    weight_decay: float = DEFAULT_WEIGHT_DECAY
    learning_rate: float = 1e-4
    batch_size: int = 64
    epochs: int = 50
    validation: int | None = None
    early_stopping: int | None = None
    seed: int = 0
    strategy: str = "auto"
    devices: str | None = None
    precision: str = "float32"
    xla: bool = False
    checkpoint_steps: int | None = None
    histograms: bool = False

    def __post_init__(self) -> None:
        for name in ("dataset", "reg", "activation", "pooling", "strategy", "precision"):
            _check_type(name, getattr(self, name), str, "a string")
        for name in ("histograms", "xla"):
            _check_type(name, getattr(self, name), bool, "true or false")
        spec = dataset_spec(self.dataset)
        object.__setattr__(self, "reg", reg_name(parse_reg(self.reg)))
        if self.validation is None:
            object.__setattr__(self, "validation", spec.default_validation)
        check_choice("activation", self.activation, ACTIVATIONS)
        check_choice("pooling", self.pooling, POOLINGS)
        check_choice("strategy", self.strategy, STRATEGIES)
        check_choice("precision", self.precision, PRECISIONS)
        if self.devices is not None:
            _check_type("devices", self.devices, str, "a string")
            object.__setattr__(self, "devices", ",".join(parse_devices(self.devices)))
        check_dropout_rate(self.dropout_rate)
        check_weight_decay(self.weight_decay)
        if not (is_number(self.learning_rate) and self.learning_rate > 0):
            raise InvalidArgument(
                f"learning_rate must be a finite number above 0. Received: {shown(self.learning_rate)}"
            )
        _check_whole("epochs", self.epochs, 1)
        _check_whole("seed", self.seed, 0, LARGEST_SEED)
        _check_whole("validation", self.validation, 0, spec.train_size - 1)
        _check_whole("batch_size", self.batch_size, 1, spec.train_size - self.held_out)
        if self.checkpoint_steps is not None:
            _check_whole("checkpoint_steps", self.checkpoint_steps, 1)
        if self.early_stopping is not None:
            _check_whole("early_stopping", self.early_stopping, 1)
            if not self.held_out:
                raise InvalidArgument("early_stopping needs validation images to judge by. Received: validation=0")

    @property
    def held_out(self) -> int:
        """The number of validation images: `validation`, resolved."""
        assert self.validation is not None  # __post_init__ filled it in
        return self.validation

    def to_json(self) -> dict[str, Any]:
        """Every setting by name, as JSON values."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, settings: Mapping[str, Any]) -> TrainConfig:
        """The inverse of `to_json`.

        Raises:
            InvalidArgument: no mapping, a setting that this version does not know, or one of a wrong type or range.
        """
        if not isinstance(settings, Mapping):
            raise InvalidArgument(f"settings must be a mapping of names to values. Received: {shown(settings)}")
        known = {field.name for field in dataclasses.fields(cls)}
        for name in settings:
            if name not in known:
                raise InvalidArgument(f"unknown setting {shown(name)}: written by another version of lenet-keras?")
        return cls(**settings)

    def differences(self, other: TrainConfig) -> list[str]:
        """What keeps `other` from continuing this run: "learning_rate: 0.0001 there, 0.001 here" for each setting."""
        here, there = other.to_json(), self.to_json()
        return [
            f"{name}: {there[name]} there, {here[name]} here"
            for name in here
            if name not in CHANGEABLE and here[name] != there[name]
        ]


def _check_type(name: str, value: object, expected: type, described: str) -> None:
    if not isinstance(value, expected):
        raise InvalidArgument(f"{name} must be {described}. Received: {shown(value)}")


def _check_whole(name: str, value: object, smallest: int, largest: int | None = None) -> None:
    allowed = f"{smallest} or more" if largest is None else f"{smallest} to {largest}"
    if not isinstance(value, int) or isinstance(value, bool):
        raise InvalidArgument(f"{name} must be a whole number, {allowed}. Received: {shown(value)}")
    if value < smallest or (largest is not None and value > largest):
        raise InvalidArgument(f"{name} must be {allowed}. Received: {shown(value)}")
    if value > LARGEST_COUNT:
        raise InvalidArgument(f"{name} must be {LARGEST_COUNT} or less. Received: {shown(value)}")
