"""What both interfaces say of models: the messages GetModelStatusResponse and GetModelMetadataResponse, and as JSON."""

from __future__ import annotations

import json
from typing import Any

from google.protobuf import json_format
from tensorflow_serving.apis import get_model_metadata_pb2, get_model_status_pb2

from lenet_keras.serving.embedded.models import ModelStore


def status(store: ModelStore, model: str, number: int | None, label: str | None) -> Any:
    """Make the GetModelStatusResponse of all versions of a model, or of one.

    Raises:
        ServingError: NOT_FOUND: there never was such a version. INVALID_ARGUMENT: the label is unknown.
    """
    response = get_model_status_pb2.GetModelStatusResponse()
    for version, state, error in store.status(model, number, label):
        message = response.model_version_status.add(version=version, state=state.name)
        message.status.error_code = 0 if error is None else error.code.value[0]
        message.status.error_message = "" if error is None else str(error)
    return response


def metadata(store: ModelStore, model: str, number: int | None, label: str | None) -> Any:
    """Make the GetModelMetadataResponse of a version: its signatures.

    Raises:
        ServingError: as `ModelStore.lease`.
    """
    response = get_model_metadata_pb2.GetModelMetadataResponse()
    with store.lease(model, number, label) as version:
        response.model_spec.name = model
        response.model_spec.version.value = version.number
        signatures = get_model_metadata_pb2.SignatureDefMap()
        for name, definition in version.signature_defs.items():
            signatures.signature_def[name].CopyFrom(definition)
    response.metadata["signature_def"].Pack(signatures)
    return response


def status_json(store: ModelStore, model: str, number: int | None, label: str | None) -> bytes:
    """Write the `status` of a model's versions."""
    return _dumps(_plain(status(store, model, number, label)))


def metadata_json(store: ModelStore, model: str, number: int | None, label: str | None) -> bytes:
    """Write the `metadata` of a version; the signatures stand there without the wrapping that gRPC needs."""
    response = metadata(store, model, number, label)
    signatures = get_model_metadata_pb2.SignatureDefMap()
    response.metadata["signature_def"].Unpack(signatures)
    return _dumps({"model_spec": _plain(response.model_spec), "metadata": {"signature_def": _plain(signatures)}})


def _plain(message: Any) -> Any:
    return json_format.MessageToDict(
        message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
    )


def _dumps(document: Any) -> bytes:
    return json.dumps(document, indent=1).encode()
