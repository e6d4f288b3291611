"""A program of its own: it runs a SavedModel through TensorFlow's C API, from the wheel's libraries, without Python's.

    python c_api.py TENSORFLOW_FOLDER SAVED_MODEL INPUT OUTPUT INDEX INPUT.npy OUTPUT.npy

INPUT and OUTPUT are names of operations, INDEX is the output's number in its operation; OUTPUT.npy gets a float32
array. TensorFlow Serving loads a SavedModel by the same C++ function that TF_LoadSessionFromSavedModel calls.
"""

import ctypes
import sys
from pathlib import Path

import numpy as np

FLOAT, UINT8 = 1, 4  # TF_DataType


class Output(ctypes.Structure):
    """TF_Output: an operation and the number of its output."""

    _fields_ = [("operation", ctypes.c_void_p), ("index", ctypes.c_int)]


def main(tensorflow, saved_model, input_name, output_name, index, input_file, output_file):
    """Load, feed one array, fetch one array."""
    ctypes.CDLL(str(Path(tensorflow, "libtensorflow_framework.so.2")), ctypes.RTLD_GLOBAL)
    tf = ctypes.CDLL(str(Path(tensorflow, "libtensorflow_cc.so.2")))
    for name in ("TF_NewStatus", "TF_NewGraph", "TF_NewSessionOptions", "TF_LoadSessionFromSavedModel",
                 "TF_GraphOperationByName", "TF_AllocateTensor", "TF_TensorData"):  # fmt: skip
        getattr(tf, name).restype = ctypes.c_void_p
    tf.TF_Message.restype = ctypes.c_char_p
    tf.TF_Dim.restype = ctypes.c_int64
    tf.TF_TensorByteSize.restype = ctypes.c_size_t

    status, graph = ctypes.c_void_p(tf.TF_NewStatus()), ctypes.c_void_p(tf.TF_NewGraph())

    def check():
        if tf.TF_GetCode(status):
            raise SystemExit(tf.TF_Message(status).decode())

    def operation(name):
        found = tf.TF_GraphOperationByName(graph, name.encode())
        if not found:
            raise SystemExit(f"the graph has no operation {name}")
        return found

    options = ctypes.c_void_p(tf.TF_NewSessionOptions())
    tags = (ctypes.c_char_p * 1)(b"serve")
    session = tf.TF_LoadSessionFromSavedModel(options, None, saved_model.encode(), tags, 1, graph, None, status)
    check()

    fed = np.ascontiguousarray(np.load(input_file))
    dims = (ctypes.c_int64 * fed.ndim)(*fed.shape)
    dtype = UINT8 if fed.dtype == np.uint8 else FLOAT
    tensor = tf.TF_AllocateTensor(dtype, dims, fed.ndim, ctypes.c_size_t(fed.nbytes))
    ctypes.memmove(tf.TF_TensorData(ctypes.c_void_p(tensor)), fed.ctypes.data, fed.nbytes)

    fetched = (ctypes.c_void_p * 1)()
    tf.TF_SessionRun(
        ctypes.c_void_p(session), None,
        ctypes.byref(Output(operation(input_name), 0)), (ctypes.c_void_p * 1)(tensor), 1,
        ctypes.byref(Output(operation(output_name), int(index))), fetched, 1,
        None, 0, None, status,
    )  # fmt: skip
    check()
    result = ctypes.c_void_p(fetched[0])
    shape = [tf.TF_Dim(result, axis) for axis in range(tf.TF_NumDims(result))]
    content = ctypes.string_at(tf.TF_TensorData(result), tf.TF_TensorByteSize(result))
    np.save(output_file, np.frombuffer(content, np.float32).reshape(shape))
    assert "tensorflow" not in sys.modules


if __name__ == "__main__":
    main(*sys.argv[1:])
