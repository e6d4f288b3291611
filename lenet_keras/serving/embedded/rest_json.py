"""The JSON of REST requests and replies, by TensorFlow Serving's rules."""

from __future__ import annotations

import base64
import binascii
import contextlib
import gc
import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np
import numpy.typing as npt
import orjson
import tensorflow as tf
from google.protobuf import json_format
from grpc import StatusCode
from tensorflow_serving.apis import get_model_metadata_pb2

from lenet_keras.serving.embedded.signatures import Arrays, BadRequest, ServingError
from lenet_keras.serving.embedded.store import ModelStore
from lenet_keras.serving.endpoint import ModelSpec

_DEEPEST = 32  # nested lists; NumPy 2 allows 64 axes
_ENCODER = json.JSONEncoder(check_circular=False)
_JSON_NAME = {
    type(None): "Null",
    bool: "Boolean",
    int: "Number",
    float: "Number",
    str: "String",
    dict: "Object",
    list: "Array",
}


@contextlib.contextmanager
def garbage_collection_paused() -> Iterator[None]:
    """Put off Python's cyclic garbage collection while a request is read.

    An image is some eight hundred lists. That many new objects trigger a collection, which also traverses all of
    TensorFlow's: reading sixteen images took 13 ms with it and 2 ms without. None of the lists is part of a cycle.
    """
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


@dataclass(frozen=True)
class PredictRequest:
    """The body of a predict request.

    Attributes:
        signature_name: empty if the client left it to the server.
        by_row: whether it has `instances`, not `inputs`.
        value: the value of that key.
    """

    signature_name: str
    by_row: bool
    value: Any

    def arrays(
        self, inputs: Mapping[str, tf.TensorSpec], largest: Mapping[str, int] | None = None
    ) -> dict[str, npt.NDArray[Any]]:
        """Return arrays for the inputs of a signature; `Signature.check` compares their shapes.

        Args:
            inputs: types by name.
            largest: the most values of each input that has such a limit.

        Raises:
            BadRequest: names, types or sizes of lists are wrong.
        """
        columns = _columns_of_rows(self.value, inputs) if self.by_row else _named_columns(self.value, inputs)
        arrays = {}
        for name, column in columns.items():
            try:
                arrays[name] = _dense(column, inputs[name].dtype, (largest or {}).get(name))
            except BadRequest as error:
                raise BadRequest(f"Failed to process key: {name} of the request. Error: {error}") from None
        return arrays


def read_request(body: bytes | bytearray) -> PredictRequest:
    """Read the body of a predict request.

    >>> read_request(b'{"instances": [1, 2]}')
    PredictRequest(signature_name='', by_row=True, value=[1, 2])

    Raises:
        BadRequest: it is not a JSON object with either `instances` or `inputs`, and a signature_name that is a string
            or absent.
    """
    document = _loads(body)
    if not isinstance(document, dict):
        raise BadRequest(f"JSON Value: {_excerpt(document)} Is not object")
    signature_name = document.get("signature_name", "")
    if not isinstance(signature_name, str):
        raise BadRequest(f"'signature_name' key must be a string value. Received: {_excerpt(signature_name)}")
    given = [key for key in ("instances", "inputs") if key in document]
    if not given:
        raise BadRequest("Missing 'inputs' or 'instances' key")
    if len(given) == 2:
        raise BadRequest("Not formatted correctly expecting only one of 'inputs' or 'instances' keys to exist")
    value = document[given[0]]
    if given[0] == "instances" and not isinstance(value, list):
        raise BadRequest(f"Expecting 'instances' to be an list/array. Received: {_excerpt(value)}")
    if given[0] == "instances" and not value:
        raise BadRequest("No values in 'instances' array")
    return PredictRequest(signature_name, given[0] == "instances", value)


def _loads(body: bytes | bytearray) -> Any:
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError as error:
        if b"NaN" in body or b"Infinity" in body:
            # orjson follows JSON; TensorFlow Serving and the standard library accept NaN and infinities as well.
            with contextlib.suppress(ValueError, RecursionError):
                return json.loads(body)
        raise BadRequest(f"JSON Parse error: {error}") from None


def _columns_of_rows(rows: list[Any], inputs: Mapping[str, tf.TensorSpec]) -> dict[str, Any]:
    named = [isinstance(row, dict) and not _is_base64(row) for row in rows]
    if not any(named):
        if len(inputs) > 1:
            raise BadRequest(f"instances must be objects with the keys {','.join(inputs)} as there are several inputs")
        return {next(iter(inputs)): rows}
    for index, row in enumerate(rows):
        if not named[index]:
            raise BadRequest(f"Expecting object but got {_JSON_NAME[type(row)]} at item {index} of input list")
        if row.keys() != inputs.keys():
            raise BadRequest(
                f"Failed to process element: {index} of 'instances' list. JSON object: {_excerpt(row)} "
                f"keys must be equal to: {','.join(inputs)}"
            )
    return {name: [row[name] for row in rows] for name in inputs}


def _named_columns(value: Any, inputs: Mapping[str, tf.TensorSpec]) -> dict[str, Any]:
    if isinstance(value, dict) and not _is_base64(value):
        for name in inputs:
            if name not in value:
                raise BadRequest(f"Missing named input: {name} in 'inputs' object.")
        return {name: value[name] for name in inputs}
    if len(inputs) > 1:
        raise BadRequest(f"inputs must be an object with the keys {','.join(inputs)} as there are several inputs")
    return {next(iter(inputs)): value}


def _dense(value: Any, dtype: tf.DType, largest: int | None) -> npt.NDArray[Any]:
    """Return the array of nested lists, of at most `largest` values."""
    shape: list[int] = []
    level = [value]
    while list in (kinds := set(map(type, level))):
        if len(kinds) > 1:
            other = next(item for item in level if type(item) is not list)
            raise BadRequest(f"JSON Value: {_excerpt(other)} found at incorrect level: {len(shape)}, among lists")
        sizes = set(map(len, level))
        if len(sizes) > 1:
            raise BadRequest(f"Encountered lists of unequal sizes at level: {len(shape)}: {sorted(sizes)[:5]}")
        shape.append(sizes.pop())
        if len(shape) > _DEEPEST:
            raise BadRequest(f"Encountered lists nested deeper than {_DEEPEST}")
        if largest is not None and math.prod(shape) > largest:  # before they take any more time
            raise BadRequest(
                f"Encountered {math.prod(shape)} values; a request may have {largest}: send fewer at a time"
            )
        level = list(chain.from_iterable(level))
    return _flat(level, kinds, dtype).reshape(shape)


def _flat(values: list[Any], kinds: set[type], dtype: tf.DType) -> npt.NDArray[Any]:
    """Return the array of values of the types `kinds`, none of which is a list."""
    allowed: set[type] = {bool} if dtype.is_bool else {int} if dtype.is_integer else {int, float}
    if dtype == tf.string:
        allowed = {str, dict}
    elif not (dtype.is_bool or dtype.is_integer or dtype.is_floating):
        raise ServingError(StatusCode.UNIMPLEMENTED, f"Conversion of JSON to type: {dtype.name} is not possible")
    if not kinds <= allowed:
        raise _wrong_type(next(value for value in values if type(value) not in allowed), dtype)
    if dtype == tf.string:
        array = np.empty(len(values), object)
        array[:] = [value.encode(errors="replace") if isinstance(value, str) else _decode(value) for value in values]
        return array
    try:
        with np.errstate(over="ignore"):  # a value beyond the type's largest becomes infinity
            return np.array(values, dtype.as_numpy_dtype)
    except OverflowError:
        limits = np.iinfo(dtype.as_numpy_dtype) if dtype.is_integer else None
        wrong = next((v for v in values if limits and not limits.min <= v <= limits.max), max(values))
        raise _wrong_type(wrong, dtype) from None


def _wrong_type(value: Any, dtype: tf.DType) -> BadRequest:
    name = {tf.float32: "float", tf.float64: "double"}.get(dtype, dtype.name)
    return BadRequest(f"JSON Value: {_excerpt(value)} Type: {_JSON_NAME[type(value)]} is not of expected type: {name}")


def _is_base64(value: Any) -> bool:
    return isinstance(value, dict) and value.keys() == {"b64"} and isinstance(value["b64"], str)


def _decode(value: dict[str, Any]) -> bytes:
    if not _is_base64(value):
        raise BadRequest(f"JSON Value: {_excerpt(value)} not formatted correctly for base64 data")
    text = "".join(value["b64"].split())  # encoders break lines after 64 or 76 characters
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
    except (binascii.Error, ValueError):
        raise BadRequest("Unable to base64 decode") from None


def _excerpt(value: Any) -> str:
    # Written piece by piece and no further than shown: the value may be millions of numbers, or nested a thousand deep.
    text = ""
    for piece in _ENCODER.iterencode(value):
        text += piece
        if len(text) > 256:
            return text[:256] + "..."
    return text


def predict_reply(outputs: Arrays, by_row: bool) -> bytes:
    """Write `predictions`, a list of rows, or `outputs`, whole columns; a single output is written without its name.

    Strings are text, except those of outputs whose names end in `_bytes`: these are {"b64": ...}. NaN and infinities
    are written as NaN, Infinity and -Infinity, as TensorFlow Serving does, though JSON has no such literals.

    >>> predict_reply({"class_id": np.array([7, 9])}, by_row=True)
    b'{"predictions":[7,9]}'

    Raises:
        BadRequest: the outputs differ in their number of rows, or have a type that JSON lacks.
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
            raise BadRequest(f"Tensor name: {name} has no shape information")
    counts = {name: len(array) for name, array in arrays.items()}
    if len(set(counts.values())) > 1:
        raise BadRequest(f"The outputs have inconsistent batch sizes: {counts}; send 'inputs' instead of 'instances'")


def _writable(name: str, array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Prepare an output: numbers contiguous in memory, as orjson needs them, or an object array of JSON values."""
    if array.dtype == object:
        written = np.empty(array.size, object)
        written[:] = [
            {"b64": base64.b64encode(item).decode()} if name.endswith("_bytes") else item.decode(errors="replace")
            for item in array.ravel()
        ]
        return written.reshape(array.shape)
    dtype = tf.as_dtype(array.dtype)
    if not (dtype.is_bool or dtype.is_integer or dtype.is_floating):
        raise BadRequest(f"Failed to write JSON value for tensor type: {dtype.name}")
    if dtype.is_floating and dtype.size < 4:
        array = array.astype(np.float32)
    return np.asarray(array, order="C")


def _listed(value: Any) -> Any:
    """Return an array's values as lists; floats with the fewest digits that identify them in their own type."""
    if value.dtype.kind == "f":
        return value.astype(str).astype(np.float64).tolist()
    return value.tolist()


def status_reply(store: ModelStore, model: ModelSpec) -> bytes:
    """Write the status of a model's versions.

    Raises:
        ServingError: as `ModelStore.status`.
    """
    return _indented(_plain(store.status(model)))


def metadata_reply(store: ModelStore, model: ModelSpec) -> bytes:
    """Write the metadata of a version, its signatures without the wrapping that gRPC needs.

    Raises:
        ServingError: as `ModelStore.metadata`.
    """
    response = store.metadata(model)
    signatures = get_model_metadata_pb2.SignatureDefMap()
    response.metadata["signature_def"].Unpack(signatures)
    return _indented({"model_spec": _plain(response.model_spec), "metadata": {"signature_def": _plain(signatures)}})


def _plain(message: Any) -> Any:
    return json_format.MessageToDict(
        message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
    )


def _indented(document: Any) -> bytes:
    return json.dumps(document, indent=1).encode()


def error_reply(message: str) -> bytes:
    """Write the reply to a request that failed.

    >>> error_reply("Unable to base64 decode")
    b'{"error": "Unable to base64 decode"}'
    """
    return json.dumps({"error": message}).encode()
