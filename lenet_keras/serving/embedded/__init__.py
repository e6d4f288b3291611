"""A development server inside Python that answers TensorFlow Serving's REST and gRPC requests over a folder of exports.

Importing this package loads no TensorFlow; calling into it does.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from lenet_keras.lazy import lazy_names

if TYPE_CHECKING:
    from lenet_keras.serving.embedded.server import RunningServer, serve

__all__ = ["RunningServer", "serve"]

__getattr__ = lazy_names(__name__, {"server": ["RunningServer", "serve"]})
