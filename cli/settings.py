"""The options for settings of a training, which `train` and `compare` share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import click

from lenet_keras.config import NEEDED, PRECISIONS, TrainConfig
from lenet_keras.data.catalogue import DATASETS, SAMPLE_DATASET
from lenet_keras.models import ACTIVATIONS, PLACEMENTS, POOLINGS

from .options import Choice, reject_given

_DEFAULT = TrainConfig()

# What --quick trains: at the default learning rate, 500 images are too few to learn anything in a minute.
QUICK = {"dataset": SAMPLE_DATASET, "learning_rate": 1e-3}

_OPTIONS = (
    click.option(
        "--dataset",
        type=Choice(list(DATASETS)),
        metavar="NAME",
        default=_DEFAULT.dataset,
        help="Dataset; see lenet-keras data.",
    ),
    click.option("--epochs", type=int, default=_DEFAULT.epochs, help="Epochs to train."),
    click.option("--batch-size", type=int, default=_DEFAULT.batch_size, help="Images per step, across all devices."),
    click.option("--learning-rate", type=float, default=_DEFAULT.learning_rate, help="Adam's learning rate."),
    click.option(
        "--weight-decay",
        type=float,
        default=_DEFAULT.weight_decay,
        help="Coefficient of --reg weight_decay.",
    ),
    click.option(
        "--dropout-rate", type=float, default=_DEFAULT.dropout_rate, help="Fraction dropped by --reg dropout."
    ),
    click.option(
        "--dropout-layers",
        type=Choice(list(PLACEMENTS)),
        default=_DEFAULT.dropout_layers,
        help="Layers of --reg dropout.",
    ),
    click.option(
        "--batch-norm-layers",
        type=Choice(list(PLACEMENTS)),
        default=_DEFAULT.batch_norm_layers,
        help="Layers of --reg batch_norm.",
    ),
    click.option("--activation", type=Choice(ACTIVATIONS), default=_DEFAULT.activation, help="Activation function."),
    click.option("--pooling", type=Choice(POOLINGS), default=_DEFAULT.pooling, help="Pooling."),
    click.option(
        "--validation", type=int, help="Training images held out, 0 for none.  [default: 5000; 100 for a sample]"
    ),
    click.option(
        "--early-stopping",
        type=int,
        metavar="PATIENCE",
        help="Stop after this many epochs without a lower validation loss; keep the best weights.",
    ),
    click.option("--precision", type=Choice(PRECISIONS), default=_DEFAULT.precision, help="Keras's dtype policy."),
    click.option("--xla", is_flag=True, help="Compile the computation of the gradients with XLA."),
    click.option("--histograms", is_flag=True, help="Log histograms of the weights to TensorBoard."),
)


def training_settings(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options to a command; their values are settings of `TrainConfig` of the same names."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def reject_without_effect(reg: Sequence[str]) -> None:
    """Raise `click.UsageError` if an option was given for a regularisation that none of the values of --reg names."""
    named = {name for value in reg for name in value.split("+")}
    for name, needed in NEEDED.items():
        if needed not in named:
            reject_given(name, f"without --reg {needed}")
