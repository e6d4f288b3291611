"""SavedModels for TensorFlow Serving: written aside, run in a fresh process, published by one rename, loaded back.

Importing this package loads no TensorFlow; calling into it does.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from lenet_keras.lazy import lazy_names

if TYPE_CHECKING:
    from lenet_keras.export.layout import DEFAULT_EXPORT_DIR, model_name
    from lenet_keras.export.load import ExportedModel, load_exported
    from lenet_keras.export.of_run import export_run
    from lenet_keras.export.publish import export_model
    from lenet_keras.export.verify import ExportError

__all__ = [
    "DEFAULT_EXPORT_DIR",
    "ExportError",
    "ExportedModel",
    "export_model",
    "export_run",
    "load_exported",
    "model_name",
]

__getattr__ = lazy_names(
    __name__,
    {
        "layout": ["DEFAULT_EXPORT_DIR", "model_name"],
        "load": ["ExportedModel", "load_exported"],
        "of_run": ["export_run"],
        "publish": ["export_model"],
        "verify": ["ExportError"],
    },
)
