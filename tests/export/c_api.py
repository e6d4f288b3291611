"""A stand-alone program: run a SavedModel through TensorFlow's C API, from the wheel's libraries, without Python's.

    python c_api.py TENSORFLOW_FOLDER SAVED_MODEL INPUT.npy INPUT_TENSOR OUTPUTS.npz OUTPUT_TENSOR...

Tensors are named as in a signature, "operation:index". OUTPUTS.npz receives an array for each, under its name; strings
are NumPy's bytes in both files. TensorFlow Serving loads a SavedModel by the same C++ function that
TF_LoadSessionFromSavedModel calls.
"""

import ctypes
import sys
from pathlib import Path

import numpy as np

STRING, STRING_SIZE = 7, 24  # TF_DataType, and bytes of one TF_TString in a tensor
DTYPES = {1: np.float32, 4: np.uint8, 9: np.int64}
POINTERS = ["NewStatus", "NewGraph", "NewSessionOptions", "LoadSessionFromSavedModel", "GraphOperationByName",
            "AllocateTensor", "TensorData", "StringGetDataPointer"]  # fmt: skip


class Output(ctypes.Structure):
    """TF_Output: an operation and the number of its output."""

    _fields_ = [("operation", ctypes.c_void_p), ("index", ctypes.c_int)]


def load_library(tensorflow):
    """Load the C API of the TensorFlow in this folder, and declare the functions that do not return an int."""
    ctypes.CDLL(str(Path(tensorflow, "libtensorflow_framework.so.2")), ctypes.RTLD_GLOBAL)
    tf = ctypes.CDLL(str(Path(tensorflow, "libtensorflow_cc.so.2")))
    for name in POINTERS:
        getattr(tf, f"TF_{name}").restype = ctypes.c_void_p
    tf.TF_Message.restype = ctypes.c_char_p
    tf.TF_Dim.restype = ctypes.c_int64
    tf.TF_TensorByteSize.restype = tf.TF_StringGetSize.restype = ctypes.c_size_t
    return tf


def to_tensor(tf, array):
    """Return a TF_Tensor with the content of `array`."""
    strings = array.dtype.kind == "S"
    dtype = STRING if strings else next(number for number, known in DTYPES.items() if known == array.dtype)
    size = array.size * STRING_SIZE if strings else array.nbytes
    dims = (ctypes.c_int64 * array.ndim)(*array.shape)
    tensor = ctypes.c_void_p(tf.TF_AllocateTensor(dtype, dims, array.ndim, ctypes.c_size_t(size)))
    data = tf.TF_TensorData(tensor)
    if not strings:
        ctypes.memmove(data, np.ascontiguousarray(array).ctypes.data, size)
        return tensor
    for index, value in enumerate(array.ravel().tolist()):
        string = ctypes.c_void_p(data + index * STRING_SIZE)
        tf.TF_StringInit(string)
        tf.TF_StringCopy(string, value, ctypes.c_size_t(len(value)))
    return tensor


def to_array(tf, tensor):
    """Return an array with the content of a TF_Tensor."""
    shape = [tf.TF_Dim(tensor, axis) for axis in range(tf.TF_NumDims(tensor))]
    data, size = tf.TF_TensorData(tensor), tf.TF_TensorByteSize(tensor)
    if tf.TF_TensorType(tensor) != STRING:
        return np.frombuffer(ctypes.string_at(data, size), DTYPES[tf.TF_TensorType(tensor)]).reshape(shape)
    strings = [ctypes.c_void_p(data + start) for start in range(0, size, STRING_SIZE)]
    values = [ctypes.string_at(tf.TF_StringGetDataPointer(string), tf.TF_StringGetSize(string)) for string in strings]
    return np.array(values).reshape(shape)


def main(tensorflow, saved_model, input_file, input_name, outputs_file, *output_names):
    """Load, feed one array, fetch some."""
    tf = load_library(tensorflow)
    status, graph = ctypes.c_void_p(tf.TF_NewStatus()), ctypes.c_void_p(tf.TF_NewGraph())

    def check():
        if tf.TF_GetCode(status):
            raise SystemExit(tf.TF_Message(status).decode())

    def output(name):
        operation, _, index = name.partition(":")
        found = tf.TF_GraphOperationByName(graph, operation.encode())
        if not found:
            raise SystemExit(f"the graph has no operation {operation}")
        return Output(found, int(index))

    options, tags = ctypes.c_void_p(tf.TF_NewSessionOptions()), (ctypes.c_char_p * 1)(b"serve")
    session = tf.TF_LoadSessionFromSavedModel(options, None, saved_model.encode(), tags, 1, graph, None, status)
    check()
    fetched = (ctypes.c_void_p * len(output_names))()
    tf.TF_SessionRun(
        ctypes.c_void_p(session), None,
        ctypes.byref(output(input_name)), ctypes.byref(to_tensor(tf, np.load(input_file))), 1,
        (Output * len(output_names))(*map(output, output_names)), fetched, len(output_names),
        None, 0, None, status,
    )  # fmt: skip
    check()
    arrays = [to_array(tf, ctypes.c_void_p(tensor)) for tensor in fetched]
    np.savez(outputs_file, **dict(zip(output_names, arrays, strict=True)))
    assert "tensorflow" not in sys.modules


if __name__ == "__main__":
    main(*sys.argv[1:])
