"""Exports for other runtimes than TensorFlow Serving: one file each, verified by its own runtime.

Importing this package loads neither TensorFlow nor a runtime.
"""

from __future__ import annotations

import importlib.util
from typing import TYPE_CHECKING

from lenet_keras.errors import LenetKerasError
from lenet_keras.lazy import lazy_names

if TYPE_CHECKING:
    from lenet_keras.export.formats.publish import FileExport, export_file, export_run_file

# What each format needs beside this package's own requirements.
_RUNTIMES = {"litert": ("ai_edge_litert",), "onnx": ("tf2onnx", "onnxruntime")}
FILE_FORMATS = tuple(_RUNTIMES)

__all__ = ["FILE_FORMATS", "FileExport", "check_extra", "export_file", "export_run_file"]

__getattr__ = lazy_names(__name__, {"publish": ["FileExport", "export_file", "export_run_file"]})


def check_extra(file_format: str) -> None:
    """Raise `LenetKerasError` unless what the format needs is installed."""
    missing = [name for name in _RUNTIMES[file_format] if importlib.util.find_spec(name) is None]
    if missing:
        raise LenetKerasError(
            f"--format {file_format} needs {' and '.join(missing)}: pip install 'lenet-keras[{file_format}]'"
        )
