"""The names of the LeNet-5 variants, and what their settings may be. Plain Python: a command line reads this too."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeGuard

from lenet_keras.errors import InvalidArgument

REGULARISATIONS = {
    "none": "no regularisation",
    "dropout": "dropout on the two hidden dense layers",
    "batch_norm": "batch normalisation after both convolutions and both hidden dense layers",
    "weight_decay": "L2 on every kernel and on no bias",
}
ACTIVATIONS = ("relu", "tanh", "scaled_tanh", "sigmoid")
POOLINGS = ("max", "average")

DEFAULT_DROPOUT_RATE = 0.25  # the report's
DEFAULT_WEIGHT_DECAY = 1e-3  # the report names none; repositories of the same exercise used 1e-4 to 7e-3

_LONGEST_SHOWN = 100  # characters
_LARGEST_FLOAT32 = (2 - 2**-23) * 2.0**127


def parse_reg(reg: str | Sequence[str]) -> tuple[str, ...]:
    """The regularisations that `reg` names, each once, in the order of `REGULARISATIONS`.

    Args:
        reg: one name, several joined by "+" ("dropout+weight_decay"), or a sequence of names.

    Raises:
        InvalidArgument: an unknown name, no name, or "none" together with another.
    """
    names = reg.split("+") if isinstance(reg, str) else list(reg)
    unknown = [name for name in names if name not in REGULARISATIONS]
    if unknown or not names:
        raise InvalidArgument(
            f"reg must be one of {', '.join(REGULARISATIONS)}, or several joined by '+'. Received: {shown(reg)}"
        )
    if "none" in names and set(names) != {"none"}:
        raise InvalidArgument(f"reg 'none' cannot be combined with another. Received: {shown(reg)}")
    return tuple(name for name in REGULARISATIONS if name in names)


def reg_name(reg: Sequence[str]) -> str:
    """One name for a combination: `("dropout", "weight_decay")` gives "dropout+weight_decay"."""
    return "+".join(reg)


def check_dropout_rate(rate: float) -> None:
    """Raise `InvalidArgument` unless `rate` lies in [0, 1)."""
    if not (is_number(rate) and 0 <= rate < 1):
        raise InvalidArgument(f"dropout_rate must lie in [0, 1). Received: {shown(rate)}")


def check_weight_decay(weight_decay: float) -> None:
    """Raise `InvalidArgument` unless `weight_decay` is finite and not negative."""
    if not (is_number(weight_decay) and weight_decay >= 0):
        raise InvalidArgument(f"weight_decay must be a finite number, 0 or more. Received: {shown(weight_decay)}")


def is_number(value: object) -> TypeGuard[float]:
    """Whether `value` is an int or float, and finite in float32, in which models compute."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) <= _LARGEST_FLOAT32


def check_choice(what: str, value: str, allowed: Sequence[str]) -> None:
    """Raise `InvalidArgument`, naming `value` and those allowed, unless `value` is among `allowed`."""
    if value not in allowed:
        raise InvalidArgument(f"{what} must be one of {', '.join(allowed)}. Received: {shown(value)}")


def shown(value: object) -> str:
    """`value` as a message shows it: in one line, and not all of it where it is long."""
    try:
        text = " ".join(repr(value).splitlines())
    except (ValueError, RecursionError):  # a number of thousands of digits; lists in lists in lists
        return f"a {type(value).__name__} too large to show"
    return text if len(text) <= _LONGEST_SHOWN else f"{text[:_LONGEST_SHOWN]}…"
