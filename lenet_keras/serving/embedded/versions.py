"""One version of a model: loaded, warmed up, released."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import tensorflow as tf
from grpc import StatusCode
from tensorflow.core.protobuf import saved_model_pb2
from tensorflow_serving.apis import prediction_log_pb2

from lenet_keras.serving.config import WARMUP, check_saved_model_path
from lenet_keras.serving.embedded.signatures import ServingError, Signature, read_tensor, signatures_of

DEFAULT_SIGNATURE = "serving_default"
_MAX_WARMUP_BYTES = 2**30


class State(enum.Enum):
    """The stages of a version's life, with the names that they have in TensorFlow Serving's messages."""

    START = enum.auto()
    LOADING = enum.auto()
    AVAILABLE = enum.auto()
    UNLOADING = enum.auto()
    END = enum.auto()


class ModelVersion:
    """A version folder of a model. It has no lock: `ModelStore` has one.

    Attributes:
        model: the model's name.
        number: the version.
        folder: holds saved_model.pb.
        state: the stage of its life.
        error: why it could not be loaded, else None.
        wanted: whether it is to be served.
        leases: the number of requests that use it.
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
        self._loaded: Any = None  # a signature does not keep its variables alive on its own

    def load(self) -> None:
        """Load the SavedModel and run it once, so that the first request is not slow.

        Raises:
            ServingError: it cannot be loaded, or does not run.
        """
        try:
            check_saved_model_path(self.folder)
            loaded = tf.saved_model.load(str(self.folder))
            signatures = signatures_of(loaded)
            # Not part of TensorFlow's documented API, but the only source of what GetModelMetadata returns.
            saved_model = saved_model_pb2.SavedModel.FromString((self.folder / "saved_model.pb").read_bytes())
            _warm_up(signatures, self.folder / WARMUP)
        except Exception as error:  # damage raises nearly any type: OSError, KeyError, DecodeError, OpError
            raise ServingError.from_exception(error) from error
        # tf.saved_model.load refuses a SavedModel of several graphs.
        self.signature_defs = dict(saved_model.meta_graphs[0].signature_def)
        self.signatures = signatures
        self._loaded = loaded

    def release(self) -> None:
        """Free the memory."""
        self.signatures, self.signature_defs, self._loaded = {}, {}, None

    def signature(self, name: str, missing: StatusCode) -> Signature:
        """Return the signature `name`; an empty name means the default one.

        Raises:
            ServingError: it does not exist, with the code `missing`.
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


def _warm_up(signatures: Mapping[str, Signature], requests: Path) -> None:
    """Run the recorded requests in the file `requests`; without one, run each numeric signature once, on zeros.

    Whatever a bad request raises keeps the version from being loaded, as in TensorFlow Serving.
    """
    if not requests.is_file():
        for signature in signatures.values():
            zeros = signature.zeros()
            if zeros is not None:
                signature.run(zeros)
        return
    for record in tf.data.TFRecordDataset(str(requests)).as_numpy_iterator():
        request = prediction_log_pb2.PredictionLog.FromString(record).predict_log.request
        signature = signatures[request.model_spec.signature_name or DEFAULT_SIGNATURE]
        inputs = {name: read_tensor(name, proto, _MAX_WARMUP_BYTES) for name, proto in request.inputs.items()}
        signature.check(inputs)
        signature.run(inputs)
