"""SavedModels for TensorFlow Serving: written aside, run in a fresh process, published by one rename, loaded back.

Importing this package loads no TensorFlow; calling into it does.
"""

from lenet_keras.export.layout import model_name
from lenet_keras.export.load import ExportedModel, load_exported
from lenet_keras.export.publish import export_model
from lenet_keras.export.verify import ExportError

__all__ = ["ExportError", "ExportedModel", "export_model", "load_exported", "model_name"]
