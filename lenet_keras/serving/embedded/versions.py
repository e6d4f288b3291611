"""One version of a model: loaded, tried, lent to requests, released."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import tensorflow as tf
from tensorflow.core.protobuf import saved_model_pb2
from tensorflow_serving.apis import prediction_log_pb2

from lenet_keras.serving.embedded import tensors
from lenet_keras.serving.embedded.signatures import Signature, signatures_of
from lenet_keras.serving.embedded.status import Code, ServingError, from_exception

DEFAULT_SIGNATURE = "serving_default"
_WARMUP = Path("assets.extra", "tf_serving_warmup_requests")
_MAX_WARMUP_BYTES = 2**30


class State(enum.Enum):
    """What TensorFlow Serving calls the stages of a version's life; the names are those of its messages."""

    START = enum.auto()
    LOADING = enum.auto()
    AVAILABLE = enum.auto()
    UNLOADING = enum.auto()
    END = enum.auto()


class ModelVersion:
    """A version folder of a model. Its owner keeps the threads apart.

    Attributes:
        model: the model's name.
        number: the version.
        folder: holds saved_model.pb.
        state: the stage of its life.
        error: why it could not be loaded, else None.
        wanted: whether it is to be served.
        leases: how many requests use it.
        signatures: by name; empty unless loaded.
        signature_defs: the messages that describe all signatures, by name; empty unless loaded.
    """

    def __init__(self, model: str, number: int, folder: Path) -> None:
        self.model = model
        self.number = number
        self.folder = folder
        self.state = State.START
        self.error: ServingError | None = None
        self.wanted = True
        self.leases = 0
        self.signatures: Mapping[str, Signature] = {}
        self.signature_defs: Mapping[str, Any] = {}
        self._loaded: Any = None  # a signature does not keep its variables alive by itself

    def load(self) -> None:
        """Load the SavedModel and run it once, so that the first request is not slow.

        Raises:
            ServingError: it cannot be loaded or does not run.
        """
        try:
            loaded = tf.saved_model.load(str(self.folder))
            signatures = signatures_of(loaded)
            # Not part of TensorFlow's documented API, but the only source of what GetModelMetadata returns.
            saved_model = saved_model_pb2.SavedModel.FromString((self.folder / "saved_model.pb").read_bytes())
            warm_up(signatures, self.folder / _WARMUP)
        except Exception as error:  # damage shows as nearly any type: OSError, KeyError, DecodeError, OpError
            raise from_exception(error) from error
        # tf.saved_model.load refuses a SavedModel of several graphs.
        self.signature_defs = dict(saved_model.meta_graphs[0].signature_def)
        self.signatures = signatures
        self._loaded = loaded

    def release(self) -> None:
        """Give the memory back."""
        self.signatures, self.signature_defs, self._loaded = {}, {}, None

    def signature(self, name: str, missing: Code) -> Signature:
        """Find a signature; no name means the default one.

        Raises:
            ServingError: there is none, with the code `missing`.
        """
        try:
            return self.signatures[name or DEFAULT_SIGNATURE]
        except KeyError:
            known = ", ".join(self.signatures) or "none"
            raise ServingError(
                missing,
                f'Serving signature name: "{name or DEFAULT_SIGNATURE}" not found in signature def. '
                f"Version {self.number} of model {self.model} has: {known}",
            ) from None


def warm_up(signatures: Mapping[str, Signature], requests: Path) -> None:
    """Run the recorded requests in the file `requests`; without one, each signature of numbers once, on zeros.

    Raises:
        Exception: a request or the file is bad, as TensorFlow Serving refuses to load such a version.
    """
    if not requests.is_file():
        for signature in signatures.values():
            example = signature.example()
            if example is not None:
                signature.run(example)
        return
    for record in tf.data.TFRecordDataset(str(requests)).as_numpy_iterator():
        request = prediction_log_pb2.PredictionLog.FromString(record).predict_log.request
        signature = signatures[request.model_spec.signature_name or DEFAULT_SIGNATURE]
        inputs = {name: tensors.to_array(name, proto, _MAX_WARMUP_BYTES) for name, proto in request.inputs.items()}
        signature.check(inputs)
        signature.run(inputs)
