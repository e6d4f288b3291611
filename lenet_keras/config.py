"""The settings of a training run: validated on creation, written to and read from the run's config.json."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, cast, get_args

from lenet_keras.data.catalogue import DEFAULT_DATASET, DatasetName, dataset_spec
from lenet_keras.errors import (
    InvalidArgument,
    check_choice,
    check_integer,
    check_type,
    did_you_mean,
    excerpt,
    is_number,
    python_value,
)
from lenet_keras.models import (
    ACTIVATIONS,
    DEFAULT_DROPOUT_RATE,
    DEFAULT_WEIGHT_DECAY,
    POOLINGS,
    Activation,
    Placement,
    Pooling,
    Regularisation,
    Variant,
    check_dropout_rate,
    check_weight_decay,
    parse_reg,
    reg_name,
)

Strategy = Literal["auto", "one_device", "cores", "mirrored", "multi_worker", "tpu"]
Precision = Literal["float32", "mixed_bfloat16", "mixed_float16"]
STRATEGIES: tuple[Strategy, ...] = get_args(Strategy)
PRECISIONS: tuple[Precision, ...] = get_args(Precision)
LARGEST_SEED = 2**32 - 1

_DEVICE = re.compile(r"(CPU|GPU):(\d{1,3})", re.IGNORECASE)
_LARGEST_DEVICE = 255

# How often a run is saved, what TensorBoard shows, and the devices that train it: apart from round-off, no result
# depends on them.
_WITHOUT_EFFECT = frozenset({"checkpoint_steps", "histograms", "strategy", "devices"})
# The regularisation without which a setting does nothing.
NEEDED = {
    "weight_decay": "weight_decay",
    "dropout_rate": "dropout",
    "dropout_layers": "dropout",
    "batch_norm_layers": "batch_norm",
}


class _Reg:
    """The field `reg`: set as `build_lenet5` takes it, and read as the name of the variant."""

    def __get__(self, config: TrainConfig | None, owner: type[TrainConfig]) -> Variant:
        return "none" if config is None else cast(Variant, vars(config)["reg"])

    def __set__(self, config: TrainConfig, reg: Variant | Sequence[Regularisation]) -> None:
        vars(config)["reg"] = reg_name(parse_reg(reg))


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """Everything that the result of training depends on. NumPy's scalars will do for numbers and truth values.

    >>> TrainConfig(reg=["weight_decay", "dropout"], epochs=10).reg
    'dropout+weight_decay'

    Attributes:
        dataset: a name in `lenet_keras.data.catalogue.DATASETS`.
        reg: the variant, as `lenet_keras.models.build_lenet5` takes it: a name or a list of names. It is read as one
            name, such as "dropout+weight_decay".
        activation, pooling, dropout_rate, dropout_layers, batch_norm_layers, weight_decay: as in `build_lenet5`.
        learning_rate: Adam's, above 0. The default is the report's.
        batch_size: images per step, across all devices and workers, 1 or more. The last, smaller batch of an
            epoch is dropped; the images that it would hold differ from epoch to epoch.
        epochs: 1 or more.
        validation: training images held out, 0 or more; None takes the dataset's default (5,000 of a full dataset).
        early_stopping: stop when the validation loss has not decreased for this many epochs, and keep the weights of
            the best epoch. None: train all epochs and keep the last weights.
        seed: of initial weights, held-out images, order and dropout masks; 0 to 2**32 - 1.
        strategy: a name in `STRATEGIES`; see `lenet_keras.distribution.strategy.place`.
        devices: of this process, such as "GPU:0,GPU:1" or "CPU:0,CPU:1"; None: those that `strategy` finds.
        precision: a name in `PRECISIONS`, Keras's dtype policies. Weights, logits and loss are always float32;
            "mixed_float16" scales the loss so that small gradients do not vanish.
        xla: whether XLA compiles the computation of a step's gradients.
        checkpoint_steps: within an epoch, save the state every this many steps as well; None: at its end only.
        histograms: whether to log histograms of the weights to TensorBoard after every epoch.
        record_test: whether to measure the test images after every epoch, as the curves of a comparison show them.
            Nothing selects on what is found.

    Raises:
        InvalidArgument: a setting has the wrong type or is out of range; the message names the value received.
    """

    dataset: DatasetName = DEFAULT_DATASET
    reg: _Reg = _Reg()
    activation: Activation = "relu"
    pooling: Pooling = "max"
    dropout_rate: float = DEFAULT_DROPOUT_RATE
    dropout_layers: Placement = "dense"
    batch_norm_layers: Placement = "all"
    weight_decay: float = DEFAULT_WEIGHT_DECAY
    learning_rate: float = 1e-4
    batch_size: int = 64
    epochs: int = 50
    validation: int | None = None
    early_stopping: int | None = None
    seed: int = 0
    strategy: Strategy = "auto"
    devices: str | None = None
    precision: Precision = "float32"
    xla: bool = False
    checkpoint_steps: int | None = None
    histograms: bool = False
    record_test: bool = False

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            object.__setattr__(self, field.name, python_value(getattr(self, field.name)))
        for name in ("dataset", "activation", "pooling", "strategy", "precision"):
            check_type(name, getattr(self, name), str, "a string")
        for name in ("dropout_layers", "batch_norm_layers"):
            check_type(name, getattr(self, name), str, "a string")
            check_choice(name, getattr(self, name), get_args(Placement))
        for name in ("histograms", "record_test", "xla"):
            check_type(name, getattr(self, name), bool, "true or false")
        spec = dataset_spec(self.dataset)
        if self.validation is None:
            object.__setattr__(self, "validation", spec.default_validation)
        check_choice("activation", self.activation, ACTIVATIONS)
        check_choice("pooling", self.pooling, POOLINGS)
        check_choice("strategy", self.strategy, STRATEGIES)
        check_choice("precision", self.precision, PRECISIONS)
        if self.devices is not None:
            check_type("devices", self.devices, str, "a string")
            object.__setattr__(self, "devices", ",".join(parse_devices(self.devices)))
        check_dropout_rate(self.dropout_rate)
        check_weight_decay(self.weight_decay)
        if not (is_number(self.learning_rate) and self.learning_rate > 0):
            raise InvalidArgument(
                f"learning_rate must be a finite number above 0. Received: {excerpt(self.learning_rate)}"
            )
        check_integer("epochs", self.epochs, 1)
        check_integer("seed", self.seed, 0, LARGEST_SEED)
        check_integer("validation", self.validation, 0, spec.train_size - 1)
        check_integer("batch_size", self.batch_size, 1, spec.train_size - self.held_out)
        if self.checkpoint_steps is not None:
            check_integer("checkpoint_steps", self.checkpoint_steps, 1)
        if self.early_stopping is not None:
            check_integer("early_stopping", self.early_stopping, 1)
            if not self.held_out:
                raise InvalidArgument("early_stopping needs validation images. Received: validation=0")

    @property
    def held_out(self) -> int:
        """The number of validation images: `validation`, with the default resolved."""
        assert self.validation is not None  # __post_init__ filled it in
        return self.validation

    def to_json(self) -> dict[str, Any]:
        """Return every setting by name, as JSON values."""
        return dataclasses.asdict(self)

    def shown(self) -> dict[str, bool | int | float | str]:
        """Return every setting by name, as people read it: what is not set is "auto" or "off".

        >>> TrainConfig().shown()["devices"], TrainConfig().shown()["early_stopping"]
        ('auto', 'off')
        """
        return {
            name: value if value is not None else "auto" if name == "devices" else "off"
            for name, value in self.to_json().items()
        }

    def without_effect(self) -> frozenset[str]:
        """Return the names of the settings that the result of this training does not depend on.

        >>> "dropout_rate" in TrainConfig(reg="none").without_effect()
        True
        """
        own = parse_reg(self.reg)
        return _WITHOUT_EFFECT.union(name for name, needed in NEEDED.items() if needed not in own)

    def with_effect(self) -> dict[str, bool | int | float | str]:
        """Return the settings that the result of this training depends on, by name; what is not set is left out.

        >>> "dropout_rate" in TrainConfig(reg="dropout").with_effect()
        True
        """
        idle = self.without_effect()
        return {name: value for name, value in self.to_json().items() if value is not None and name not in idle}

    def has_stopped_early(self, epochs: int, best_epoch: int | None) -> bool:
        """Return whether early stopping ends a run after `epochs` epochs, the best of which was `best_epoch`.

        >>> TrainConfig(early_stopping=2).has_stopped_early(5, best_epoch=3)
        True
        """
        return self.early_stopping is not None and best_epoch is not None and epochs - best_epoch >= self.early_stopping

    @classmethod
    def from_json(cls, settings: Mapping[str, Any]) -> TrainConfig:
        """Return the settings that `to_json` wrote.

        Raises:
            InvalidArgument: not a mapping, an unknown setting, or one of the wrong type or out of range.
        """
        if not isinstance(settings, Mapping):
            raise InvalidArgument(f"settings must be a mapping of names to values. Received: {excerpt(settings)}")
        known = {field.name for field in dataclasses.fields(cls)}
        for name in settings:
            if name not in known:
                guess = did_you_mean(name, known) if isinstance(name, str) else ""
                raise InvalidArgument(f"unknown setting {excerpt(name)}.{guess}")
        return cls(**settings)

    def differences(self, other: TrainConfig, ignored: Container[str] = ()) -> list[str]:
        """List the settings in which the training of `other` differs, each as "learning_rate: 0.0001, now 0.001".

        Settings without effect on either are no difference.
        """
        ours, theirs = self.shown(), other.shown()
        idle = self.without_effect() & other.without_effect()
        return [
            f"{name}: {ours[name]}, now {theirs[name]}"
            for name in ours
            if name not in ignored and name not in idle and ours[name] != theirs[name]
        ]


def parse_devices(text: str) -> tuple[str, ...]:
    """Return the device names in `text`.

    >>> parse_devices("gpu:0, gpu:1")
    ('GPU:0', 'GPU:1')

    Raises:
        InvalidArgument: not a list of devices, a device listed twice, or CPUs and GPUs mixed.
    """
    devices = []
    for word in text.split(","):
        match = _DEVICE.fullmatch(word.strip())
        if match is None or int(match[2]) > _LARGEST_DEVICE:
            raise InvalidArgument(f"devices must be names like GPU:0,GPU:1 or CPU:0,CPU:1. Received: {excerpt(text)}")
        devices.append(f"{match[1].upper()}:{int(match[2])}")
    if len(set(devices)) < len(devices):
        raise InvalidArgument(f"devices must differ from each other. Received: {excerpt(text)}")
    if len({device[:3] for device in devices}) > 1:
        raise InvalidArgument(f"devices must be all CPUs or all GPUs. Received: {excerpt(text)}")
    return tuple(devices)
