"""A signature of a loaded SavedModel: what it takes, and how it is called with arrays."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from lenet_keras.serving.embedded.status import from_exception, invalid

Arrays = Mapping[str, npt.NDArray[Any]]


@dataclass(frozen=True)
class Signature:
    """A named function of a SavedModel, from named arrays to named arrays; strings are arrays of bytes objects.

    Attributes:
        name: its name in the SavedModel.
        inputs: name to shape and type, in the order of the names; so for `outputs`.
        outputs: see `inputs`.
        function: the TensorFlow function.
    """

    name: str
    inputs: Mapping[str, tf.TensorSpec]
    outputs: Mapping[str, tf.TensorSpec]
    function: Any

    @property
    def batches(self) -> bool:
        """Whether the first axis of all inputs and outputs is a batch of any size."""
        specs = [*self.inputs.values(), *self.outputs.values()]
        return all(spec.shape.rank and spec.shape[0] is None for spec in specs)

    def check(self, inputs: Arrays) -> None:
        """Compare names, types and shapes with what the signature takes.

        Raises:
            ServingError: INVALID_ARGUMENT; they differ.
        """
        if inputs.keys() != self.inputs.keys():
            extra, missing = sorted(inputs.keys() - self.inputs.keys()), sorted(self.inputs.keys() - inputs.keys())
            raise invalid(
                f"input size does not match signature: {len(inputs)}!={len(self.inputs)}. "
                f"Sent extra: {{{','.join(extra)}}}. Missing but required: {{{','.join(missing)}}}."
            )
        for name, spec in self.inputs.items():
            array = inputs[name]
            if array.dtype != spec.dtype.as_numpy_dtype:
                raise invalid(f"input {name} must be {spec.dtype.name}. Received: {type_name(array)}")
            if not spec.shape.is_compatible_with(array.shape):
                wanted = ", ".join("?" if size is None else str(size) for size in spec.shape)
                raise invalid(f"input {name} must have the shape [{wanted}]. Received: {list(array.shape)}")

    def run(self, inputs: Arrays) -> dict[str, npt.NDArray[Any]]:
        """Call the function with inputs that `check` accepts.

        Raises:
            ServingError: the function failed, with TensorFlow's code.
        """
        try:
            outputs = self.function(**{name: tf.constant(array) for name, array in inputs.items()})
            return {name: outputs[name].numpy() for name in self.outputs}
        except (tf.errors.OpError, TypeError, ValueError) as error:
            raise from_exception(error) from error

    def example(self) -> dict[str, npt.NDArray[Any]] | None:
        """Make zeros for a batch of one; None if an input is no number or has other sizes than the batch's open."""
        specs = self.inputs.values()
        if not self.batches or any(None in spec.shape[1:] or spec.dtype == tf.string for spec in specs):
            return None
        return {name: np.zeros((1, *spec.shape[1:]), spec.dtype.as_numpy_dtype) for name, spec in self.inputs.items()}


def type_name(array: npt.NDArray[Any]) -> str:
    """Name an array's type as TensorFlow does."""
    return str(tf.as_dtype(array.dtype).name)


def signatures_of(loaded: Any) -> dict[str, Signature]:
    """List the signatures of what `tf.saved_model.load` returned, in the order of their names."""
    found = {}
    for name, function in sorted(loaded.signatures.items()):
        inputs = dict(sorted(function.structured_input_signature[1].items()))
        found[name] = Signature(name, inputs, dict(sorted(function.structured_outputs.items())), function)
    return found
