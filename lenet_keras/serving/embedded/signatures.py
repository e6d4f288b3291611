"""A signature of a loaded SavedModel, called with arrays; arrays as gRPC carries them; errors as clients see them."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Set
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf
from grpc import StatusCode
from tensorflow.core.framework import types_pb2

from lenet_keras.errors import LenetKerasError, first_line

# By name; strings are arrays of bytes objects.
Arrays = Mapping[str, npt.NDArray[Any]]

_HTTP = {
    StatusCode.CANCELLED: 499,
    StatusCode.INVALID_ARGUMENT: 400,
    StatusCode.DEADLINE_EXCEEDED: 504,
    StatusCode.NOT_FOUND: 404,
    StatusCode.ALREADY_EXISTS: 409,
    StatusCode.PERMISSION_DENIED: 403,
    StatusCode.RESOURCE_EXHAUSTED: 429,
    StatusCode.FAILED_PRECONDITION: 400,
    StatusCode.ABORTED: 409,
    StatusCode.OUT_OF_RANGE: 400,
    StatusCode.UNIMPLEMENTED: 501,
    StatusCode.UNAVAILABLE: 503,
    StatusCode.UNAUTHENTICATED: 401,
}
_BY_NUMBER = {code.value[0]: code for code in StatusCode}


class ServingError(LenetKerasError):
    """A request that cannot be answered, or a version that cannot be loaded.

    Attributes:
        code: the gRPC status code.
    """

    def __init__(self, code: StatusCode, message: str) -> None:
        super().__init__(message)
        self.code = code

    @classmethod
    def from_exception(cls, error: Exception) -> ServingError:
        """Return what a client is told about `error`, in one line; TensorFlow's errors keep their code."""
        if isinstance(error, ServingError):
            return error
        number = getattr(error, "error_code", None)  # of tf.errors.OpError
        # Where a graph fails, TensorFlow lists its nodes first; the cause is the line above the node in brackets.
        cause = re.search(r"^(.+)\n\s*\[\[\{\{node", str(error), re.MULTILINE)
        code = _BY_NUMBER.get(number, StatusCode.INTERNAL)
        return ServingError(code, cause[1].strip() if cause else first_line(error))

    @property
    def http_status(self) -> int:
        """The HTTP status that TensorFlow Serving answers with for this code."""
        return _HTTP.get(self.code, 500)


class BadRequest(ServingError):
    """A request that is wrong in itself, whatever is served."""

    def __init__(self, message: str) -> None:
        super().__init__(StatusCode.INVALID_ARGUMENT, message)


@dataclass(frozen=True)
class Signature:
    """A named function of a SavedModel, from named arrays to named arrays.

    Attributes:
        name: its name in the SavedModel.
        inputs: shapes and types by name, sorted by name.
        outputs: the same for the outputs.
        function: the TensorFlow function.
    """

    name: str
    inputs: Mapping[str, tf.TensorSpec]
    outputs: Mapping[str, tf.TensorSpec]
    function: Any

    @property
    def is_batched(self) -> bool:
        """Whether the first axis of all inputs and outputs is a batch of any size."""
        specs = [*self.inputs.values(), *self.outputs.values()]
        return all(spec.shape.rank and spec.shape[0] is None for spec in specs)

    def check_names(self, names: Set[str]) -> None:
        """Check the names of inputs.

        Raises:
            BadRequest: they are not those that the signature takes.
        """
        if names != self.inputs.keys():
            extra, missing = sorted(names - self.inputs.keys()), sorted(self.inputs.keys() - names)
            raise BadRequest(
                f"input size does not match signature: {len(names)}!={len(self.inputs)}. "
                f"Sent extra: {{{','.join(extra)}}}. Missing but required: {{{','.join(missing)}}}."
            )

    def check(self, inputs: Arrays) -> None:
        """Check the names, types and shapes of inputs.

        Raises:
            BadRequest: they are not what the signature takes.
        """
        self.check_names(inputs.keys())
        for name, spec in self.inputs.items():
            array = inputs[name]
            if array.dtype != spec.dtype.as_numpy_dtype:
                raise BadRequest(f"input {name} must be {spec.dtype.name}. Received: {tf.as_dtype(array.dtype).name}")
            if not spec.shape.is_compatible_with(array.shape):
                expected = ", ".join("?" if size is None else str(size) for size in spec.shape)
                raise BadRequest(f"input {name} must have the shape [{expected}]. Received: {list(array.shape)}")

    def run(self, inputs: Arrays) -> dict[str, npt.NDArray[Any]]:
        """Call the function with inputs that `check` accepts.

        Raises:
            ServingError: the function failed, with TensorFlow's code.
        """
        try:
            outputs = self.function(**{name: tf.constant(array) for name, array in inputs.items()})
            return {name: outputs[name].numpy() for name in self.outputs}
        except (tf.errors.OpError, TypeError, ValueError) as error:
            raise ServingError.from_exception(error) from error

    def zeros(self) -> dict[str, npt.NDArray[Any]] | None:
        """Return inputs of zeros for a batch of one; None where an input is not numeric or has other open axes."""
        specs = self.inputs.values()
        if not self.is_batched or any(None in spec.shape[1:] or spec.dtype == tf.string for spec in specs):
            return None
        return {name: np.zeros((1, *spec.shape[1:]), spec.dtype.as_numpy_dtype) for name, spec in self.inputs.items()}


def signatures_of(loaded: Any) -> dict[str, Signature]:
    """Return the signatures of what `tf.saved_model.load` returned, sorted by name."""
    found = {}
    for name, function in sorted(loaded.signatures.items()):
        inputs = dict(sorted(function.structured_input_signature[1].items()))
        found[name] = Signature(name, inputs, dict(sorted(function.structured_outputs.items())), function)
    return found


def read_tensor(name: str, proto: Any, max_bytes: int) -> npt.NDArray[Any]:
    """Read a client's TensorProto.

    >>> read_tensor("x", tf.make_tensor_proto([1.0, 2.0]), max_bytes=100)
    array([1., 2.], dtype=float32)

    Args:
        name: the input's name, for messages.
        proto: the TensorProto.
        max_bytes: the most memory that its shape may ask for. A few bytes can say "a million times this value".

    Raises:
        BadRequest: the message contradicts itself, has a type that no input has, or its shape is too large.
    """
    sizes = tensor_sizes(proto)
    try:
        dtype = _READABLE.get(proto.dtype)
        if dtype is None:
            raise ValueError(f"its type, {_type_name(proto.dtype)}, is not one that is served")
        if proto.tensor_shape.unknown_rank or any(size < 0 for size in sizes):
            raise ValueError("its shape is not known")
        if math.prod(sizes) * max(dtype.size, 1) > max_bytes:
            raise ValueError(f"its shape {sizes} asks for more than {max_bytes} bytes")
        if dtype == tf.string and len(proto.string_val) != math.prod(sizes):
            raise ValueError(f"it holds {len(proto.string_val)} strings for the shape {sizes}")
        array: npt.NDArray[Any] = tf.make_ndarray(proto)
    except (TypeError, ValueError, LookupError, OverflowError) as error:
        raise BadRequest(f"input {name} is not a valid TensorProto: {first_line(error)}") from error
    return array


def tensor_sizes(proto: Any) -> list[int]:
    """Return the shape that a TensorProto claims to have.

    >>> tensor_sizes(tf.make_tensor_proto([1.0, 2.0]))
    [2]
    """
    return [dimension.size for dimension in proto.tensor_shape.dim]


def _type_name(number: int) -> str:
    known = types_pb2.DataType.DESCRIPTOR.values_by_number
    return known[number].name if number in known else str(number)


# The field of a TensorProto that holds the values of each type. Clients in other languages read these fields, so a
# reply uses them and not the packed `tensor_content`, as TensorFlow Serving does.
_FIELD = {
    tf.float32: "float_val",
    tf.float64: "double_val",
    tf.int8: "int_val",
    tf.int16: "int_val",
    tf.int32: "int_val",
    tf.uint8: "int_val",
    tf.uint16: "int_val",
    tf.int64: "int64_val",
    tf.uint32: "uint32_val",
    tf.uint64: "uint64_val",
    tf.bool: "bool_val",
    tf.string: "string_val",
}


# Those, and the types of half precision. References, resources, variants and quantized types have no values to send.
_READABLE = {dtype.as_datatype_enum: dtype for dtype in (*_FIELD, tf.float16, tf.bfloat16)}


def write_tensor(array: npt.NDArray[Any], proto: Any) -> None:
    """Fill the empty TensorProto `proto` with an array.

    >>> from tensorflow.core.framework.tensor_pb2 import TensorProto
    >>> proto = TensorProto()
    >>> write_tensor(np.array([1, 2]), proto)
    >>> list(proto.int64_val)
    [1, 2]
    """
    dtype = tf.as_dtype(array.dtype)
    field = _FIELD.get(dtype)
    if field is None:  # such as half precision, which has no field of plain numbers
        proto.CopyFrom(tf.make_tensor_proto(array))
        return
    proto.dtype = dtype.as_datatype_enum
    for size in array.shape:
        proto.tensor_shape.dim.add(size=size)
    getattr(proto, field).extend(array.ravel().tolist())
