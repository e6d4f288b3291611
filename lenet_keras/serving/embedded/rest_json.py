"""From the JSON of a predict request to arrays, by TensorFlow Serving's rules.

`instances` lists rows, each a value or an object of named values. `inputs` holds whole columns, named or (of a single
input) bare. The time of large requests goes into numbers, so these are looked at by whole lists, never one by one.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import gc
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np
import numpy.typing as npt
import orjson
import tensorflow as tf

from lenet_keras.serving.embedded.status import ServingError, invalid

_DEEPEST = 32  # NumPy 2 allows 64 axes
_JSON_NAME = {
    type(None): "Null",
    bool: "Boolean",
    int: "Number",
    float: "Number",
    str: "String",
    dict: "Object",
    list: "Array",
}


@dataclass(frozen=True)
class PredictBody:
    """The body of a predict request.

    Attributes:
        signature_name: empty if the client left it to the server.
        by_row: whether it has `instances`, not `inputs`.
        value: what that key holds.
    """

    signature_name: str
    by_row: bool
    value: Any


@contextlib.contextmanager
def no_collections() -> Iterator[None]:
    """Put off Python's cyclic garbage collections while a request is read.

    A picture is some eight hundred lists. So many new objects set off a collection, which goes through all of
    TensorFlow's: reading sixteen pictures took 13 ms with and 2 ms without. No list here is part of a cycle.
    """
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def parse(body: bytes) -> PredictBody:
    """Read the body of a predict request.

    Raises:
        ServingError: INVALID_ARGUMENT; it is no JSON object with a signature_name that is a string or absent, and with
            either `instances` or `inputs`.
    """
    document = _loads(body)
    if not isinstance(document, dict):
        raise invalid(f"JSON Value: {_shown(document)} Is not object")
    signature_name = document.get("signature_name", "")
    if not isinstance(signature_name, str):
        raise invalid(f"'signature_name' key must be a string value. Received: {_shown(signature_name)}")
    given = [key for key in ("instances", "inputs") if key in document]
    if not given:
        raise invalid("Missing 'inputs' or 'instances' key")
    if len(given) == 2:
        raise invalid("Not formatted correctly expecting only one of 'inputs' or 'instances' keys to exist")
    value = document[given[0]]
    if given[0] == "instances" and not isinstance(value, list):
        raise invalid(f"Expecting 'instances' to be an list/array. Received: {_shown(value)}")
    if given[0] == "instances" and not value:
        raise invalid("No values in 'instances' array")
    return PredictBody(signature_name, given[0] == "instances", value)


def to_arrays(body: PredictBody, inputs: Mapping[str, tf.TensorSpec]) -> dict[str, npt.NDArray[Any]]:
    """Make the inputs of a signature from a request's body; shapes are for the signature to check.

    Raises:
        ServingError: INVALID_ARGUMENT; names, types or sizes of lists are wrong.
    """
    columns = _columns_of_rows(body.value, inputs) if body.by_row else _named_columns(body.value, inputs)
    arrays = {}
    for name, column in columns.items():
        try:
            arrays[name] = _dense(column, inputs[name].dtype)
        except ServingError as error:
            raise invalid(f"Failed to process key: {name} of the request. Error: {error}") from None
    return arrays


def _loads(body: bytes) -> Any:
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError as error:
        if b"NaN" in body or b"Infinity" in body:
            try:  # TensorFlow Serving and the standard library take these three words for numbers; orjson follows JSON
                return json.loads(body)
            except (ValueError, RecursionError):
                pass
        raise invalid(f"JSON Parse error: {error}") from None


def _columns_of_rows(rows: list[Any], inputs: Mapping[str, tf.TensorSpec]) -> dict[str, Any]:
    named = [isinstance(row, dict) and not _is_base64(row) for row in rows]
    if not any(named):
        if len(inputs) > 1:
            raise invalid(f"instances must be objects with the keys {','.join(inputs)} as there are several inputs")
        return {next(iter(inputs)): rows}
    for index, row in enumerate(rows):
        if not named[index]:
            raise invalid(f"Expecting object but got {_JSON_NAME[type(row)]} at item {index} of input list")
        if row.keys() != inputs.keys():
            raise invalid(
                f"Failed to process element: {index} of 'instances' list. JSON object: {_shown(row)} "
                f"keys must be equal to: {','.join(inputs)}"
            )
    return {name: [row[name] for row in rows] for name in inputs}


def _named_columns(value: Any, inputs: Mapping[str, tf.TensorSpec]) -> dict[str, Any]:
    if isinstance(value, dict) and not _is_base64(value):
        for name in inputs:
            if name not in value:
                raise invalid(f"Missing named input: {name} in 'inputs' object.")
        return {name: value[name] for name in inputs}
    if len(inputs) > 1:
        raise invalid(f"inputs must be an object with the keys {','.join(inputs)} as there are several inputs")
    return {next(iter(inputs)): value}


def _dense(value: Any, dtype: tf.DType) -> npt.NDArray[Any]:
    shape: list[int] = []
    level = [value]
    while list in (kinds := set(map(type, level))):
        if len(kinds) > 1:
            other = next(item for item in level if type(item) is not list)
            raise invalid(f"JSON Value: {_shown(other)} found at incorrect level: {len(shape)}, beside lists")
        sizes = set(map(len, level))
        if len(sizes) > 1:
            raise invalid(f"Encountered lists of unequal sizes at level: {len(shape)}: {sorted(sizes)[:5]}")
        shape.append(sizes.pop())
        if len(shape) > _DEEPEST:
            raise invalid(f"Encountered lists nested deeper than {_DEEPEST}")
        level = list(chain.from_iterable(level))
    return _flat(level, kinds, dtype).reshape(shape)


def _flat(values: list[Any], kinds: set[type], dtype: tf.DType) -> npt.NDArray[Any]:
    allowed: set[type] = {bool} if dtype.is_bool else {int} if dtype.is_integer else {int, float}
    if dtype == tf.string:
        allowed = {str, dict}
    elif not (dtype.is_bool or dtype.is_integer or dtype.is_floating):
        raise invalid(f"Conversion of JSON to type: {dtype.name} is not possible")
    if not kinds <= allowed:
        wrong = next(value for value in values if type(value) not in allowed)
        raise _type_error(wrong, dtype)
    if dtype == tf.string:
        array = np.empty(len(values), object)
        array[:] = [value.encode(errors="replace") if isinstance(value, str) else _decode(value) for value in values]
        return array
    try:
        with np.errstate(over="ignore"):  # beyond the type's largest is infinity
            return np.array(values, dtype.as_numpy_dtype)
    except OverflowError:
        numbers = np.iinfo(dtype.as_numpy_dtype) if dtype.is_integer else None
        wrong = next((v for v in values if numbers and not numbers.min <= v <= numbers.max), max(values))
        raise _type_error(wrong, dtype) from None


def _type_error(value: Any, dtype: tf.DType) -> ServingError:
    name = {tf.float32: "float", tf.float64: "double"}.get(dtype, dtype.name)
    return invalid(f"JSON Value: {_shown(value)} Type: {_JSON_NAME[type(value)]} is not of expected type: {name}")


def _is_base64(value: Any) -> bool:
    return isinstance(value, dict) and value.keys() == {"b64"} and isinstance(value["b64"], str)


def _decode(value: dict[str, Any]) -> bytes:
    if not _is_base64(value):
        raise invalid(f"JSON Value: {_shown(value)} not formatted correctly for base64 data")
    text = value["b64"]
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
    except (binascii.Error, ValueError):
        raise invalid("Unable to base64 decode") from None


def _shown(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 256 else text[:256] + "..."
