"""TensorProto, the message that a tensor travels in, to and from arrays."""

from __future__ import annotations

import math
from typing import Any

import numpy.typing as npt
import tensorflow as tf

from lenet_keras.serving.embedded.status import invalid

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


def to_array(name: str, proto: Any, max_bytes: int) -> npt.NDArray[Any]:
    """Read a client's TensorProto; strings become an array of bytes objects.

    Args:
        name: the input, for messages.
        proto: the message.
        max_bytes: the most memory that its shape may ask for. A message may say "a million times this value" in a few
            bytes.

    Raises:
        ServingError: INVALID_ARGUMENT; the message contradicts itself, or its shape is too large.
    """
    sizes = [dimension.size for dimension in proto.tensor_shape.dim]
    try:
        dtype = tf.as_dtype(proto.dtype)
        if proto.tensor_shape.unknown_rank or any(size < 0 for size in sizes):
            raise ValueError("its shape is not known")
        if math.prod(sizes) * max(dtype.size, 1) > max_bytes:
            raise ValueError(f"its shape {sizes} asks for more than {max_bytes} bytes")
        if dtype == tf.string and len(proto.string_val) != math.prod(sizes):
            raise ValueError(f"it holds {len(proto.string_val)} strings for the shape {sizes}")
        array: npt.NDArray[Any] = tf.make_ndarray(proto)
    except (TypeError, ValueError, IndexError, OverflowError) as error:
        raise invalid(f"input {name} is no valid TensorProto: {error}") from error
    return array


def write(array: npt.NDArray[Any], proto: Any) -> None:
    """Fill the empty TensorProto `proto` with an array."""
    dtype = tf.as_dtype(array.dtype)
    field = _FIELD.get(dtype)
    if field is None:  # half precision and the like: no plain field
        proto.CopyFrom(tf.make_tensor_proto(array))
        return
    proto.dtype = dtype.as_datatype_enum
    for size in array.shape:
        proto.tensor_shape.dim.add(size=size)
    getattr(proto, field).extend(array.ravel().tolist())
