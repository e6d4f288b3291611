"""From the outputs of a signature to the JSON of TensorFlow Serving's replies."""

from __future__ import annotations

import base64
import json
from typing import Any

import numpy as np
import numpy.typing as npt
import orjson
import tensorflow as tf

from lenet_keras.serving.embedded.signatures import Arrays
from lenet_keras.serving.embedded.status import invalid


def to_json(outputs: Arrays, by_row: bool) -> bytes:
    """Write `predictions`, a list of rows, or `outputs`, whole columns; a single output goes without its name.

    Strings are text, except those of outputs whose names end in `_bytes`: these are {"b64": ...}. NaN and infinities
    are written as NaN, Infinity and -Infinity, as TensorFlow Serving does, though JSON has no such words.

    Raises:
        ServingError: INVALID_ARGUMENT; the outputs are no rows of one number, or have a type that JSON lacks.
    """
    arrays = {name: _writable(name, array) for name, array in outputs.items()}
    document: dict[str, Any]
    if by_row:
        _check_rows(arrays)
        if len(arrays) == 1:
            document = {"predictions": next(iter(arrays.values()))}
        else:
            rows = zip(*(list(array) for array in arrays.values()), strict=True)
            document = {"predictions": [dict(zip(arrays, row, strict=True)) for row in rows]}
    else:
        document = {"outputs": arrays if len(arrays) > 1 else next(iter(arrays.values()))}
    if all(array.dtype.kind != "f" or np.isfinite(array).all() for array in arrays.values()):
        return orjson.dumps(document, default=_listed, option=orjson.OPT_SERIALIZE_NUMPY)
    return json.dumps(document, default=_listed).encode()  # orjson would write null


def _check_rows(arrays: Arrays) -> None:
    for name, array in arrays.items():
        if array.ndim == 0:
            raise invalid(f"Tensor name: {name} has no shape information")
    counts = {name: len(array) for name, array in arrays.items()}
    if len(set(counts.values())) > 1:
        raise invalid(f"The outputs have inconsistent batch sizes: {counts}; send 'inputs' instead of 'instances'")


def _writable(name: str, array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Prepare an output: numbers in order in memory, as orjson needs them, or an object array of what JSON can say."""
    if array.dtype == object:
        written = np.empty(array.size, object)
        written[:] = [
            {"b64": base64.b64encode(item).decode()} if name.endswith("_bytes") else item.decode(errors="replace")
            for item in array.ravel()
        ]
        return written.reshape(array.shape)
    dtype = tf.as_dtype(array.dtype)
    if not (dtype.is_bool or dtype.is_integer or dtype.is_floating):
        raise invalid(f"Failed to write JSON value for tensor type: {dtype.name}")
    if dtype.is_floating and dtype.size < 4:
        array = array.astype(np.float32)
    return np.asarray(array, order="C")


def _listed(value: Any) -> Any:
    """List an array's values; floats with the fewest digits that tell them apart in their own type."""
    if value.dtype.kind == "f":
        return value.astype(str).astype(np.float64).tolist()
    return value.tolist()
