"""The models in an export folder: which versions are loaded, lent to requests, and reported to clients."""

from __future__ import annotations

import contextlib
import gc
import logging
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from grpc import StatusCode
from tensorflow_serving.apis import get_model_metadata_pb2, get_model_status_pb2

from lenet_keras.errors import first_line
from lenet_keras.serving.config import labels_of, version_folders
from lenet_keras.serving.embedded.signatures import BadRequest, ServingError
from lenet_keras.serving.embedded.versions import ModelVersion, State
from lenet_keras.serving.endpoint import ModelSpec
from lenet_keras.serving.handover import allowed_labels

logger = logging.getLogger(__name__)


class ModelStore:
    """Serves `<export folder>/<model name>/<version>/` by TensorFlow Serving's rules.

    Of each model, the two versions that are to have the labels `stable` and `canary` are loaded. A label moves when its
    version is AVAILABLE, not before; a version that a label names stays. So a newer version takes over when it is
    ready, and if it cannot be loaded, the old ones stay. A version that failed is not tried again until its folder has
    been removed and created again. A version is not released while requests use it.
    """

    def __init__(self, export_dir: Path, interval: float = 1.0) -> None:
        """Take the folder whose children are the models' folders, and the seconds between two scans of it."""
        self._export_dir = export_dir
        self._interval = interval
        self._lock = threading.Lock()
        self._models: dict[str, dict[int, ModelVersion]] = {}
        self._labels: dict[str, dict[str, int]] = {}
        self._found: dict[str, dict[int, Path]] = {}  # by the last scan
        self._wanted_labels: dict[str, dict[str, int]] = {}
        self._unreadable: dict[Path, str] = {}  # folders, and why: each is reported once
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="model-store")

    def start(self) -> None:
        """Load the models, then watch the folder until `close`."""
        self.poll()
        self._thread.start()

    def close(self) -> None:
        """Stop watching, after the version that is being loaded, if any."""
        self._closing.set()
        self._thread.join()

    def poll(self) -> None:
        """Scan the folder once; load and release accordingly. Call it from one thread only."""
        self._scan()
        with self._lock:
            added = self._update_wanted(self._found)
        for version in added:
            self._load(version)
            self._move_labels()
        self._move_labels()
        self._release_unwanted()

    @contextlib.contextmanager
    def lease(self, model: ModelSpec) -> Iterator[ModelVersion]:
        """Yield the version that `model` names, the largest by default; it stays loaded within the context.

        Raises:
            ServingError: NOT_FOUND: it is not served. INVALID_ARGUMENT: no model was named, or the label is unknown.
        """
        if not model.name:
            raise BadRequest("ModelSpec has no name specified.")
        with self._lock:
            number = self._number(model)
            serving = {n: v for n, v in self._models.get(model.name, {}).items() if v.state is State.AVAILABLE}
            version = serving.get(max(serving, default=-1) if number is None else number)
            if version is None:
                request = f"Latest({model.name})" if number is None else f"Specific({model.name}, {number})"
                raise ServingError(StatusCode.NOT_FOUND, f"Servable not found for request: {request}")
            version.leases += 1
        try:
            yield version
        finally:
            with self._lock:
                version.leases -= 1
                if version.state is State.UNLOADING and version.leases == 0:
                    _end(version)

    def versions(self, model: ModelSpec) -> list[tuple[int, State, ServingError | None]]:
        """Return number, state and error of all versions of a model, or of the one with a number; the largest first.

        A label is not regarded, as in TensorFlow Serving.

        Raises:
            ServingError: NOT_FOUND: no such version was ever found.
        """
        with self._lock:
            number = model.version
            versions = self._models.get(model.name, {})
            if number is not None:
                if number not in versions:
                    raise ServingError(StatusCode.NOT_FOUND, f"Could not find version {number} of model {model.name}")
                versions = {number: versions[number]}
            if not versions:
                raise ServingError(StatusCode.NOT_FOUND, f"Could not find any versions of model {model.name}")
            return [(n, v.state, v.error) for n, v in sorted(versions.items(), reverse=True)]

    def knows(self, name: str) -> bool:
        """Return whether a model of this name is or was served."""
        return name in self._models

    def status(self, model: ModelSpec) -> Any:
        """Return what `versions` returns, as a GetModelStatusResponse."""
        response = get_model_status_pb2.GetModelStatusResponse()
        for number, state, error in self.versions(model):
            message = response.model_version_status.add(version=number, state=state.name)
            message.status.error_code = 0 if error is None else error.code.value[0]
            message.status.error_message = "" if error is None else str(error)
        return response

    def metadata(self, model: ModelSpec) -> Any:
        """Return the GetModelMetadataResponse about a version: its signatures.

        Raises:
            ServingError: as `lease`.
        """
        response = get_model_metadata_pb2.GetModelMetadataResponse()
        signatures = get_model_metadata_pb2.SignatureDefMap()
        with self.lease(model) as version:
            response.model_spec.name = version.model
            response.model_spec.version.value = version.number
            for name, definition in version.signature_defs.items():
                signatures.signature_def[name].CopyFrom(definition)
        response.metadata["signature_def"].Pack(signatures)
        return response

    def _number(self, model: ModelSpec) -> int | None:
        if model.label is None:
            return model.version
        labels = self._labels.get(model.name, {})
        if model.label not in labels:
            raise BadRequest(f"Unrecognized servable version label: {model.label}")
        return labels[model.label]

    def _watch(self) -> None:
        while not self._closing.wait(self._interval):
            self.poll()

    def _scan(self) -> None:
        """Note which labels are wanted, and the folders of those versions, by model and number.

        What cannot be read, as on a network share that is unavailable for a moment, stays as it was.
        """
        found: dict[str, dict[int, Path]] = {}
        wanted: dict[str, dict[str, int]] = {}
        unreadable: dict[Path, OSError] = {}
        try:
            folders = [folder for folder in self._export_dir.iterdir() if not folder.name.startswith(".")]
        except OSError as error:
            self._report({self._export_dir: error})
            return
        for folder in folders:
            try:
                numbered = {int(child.name): child for child in version_folders(folder)}
            except (FileNotFoundError, NotADirectoryError):  # removed since, or not a model
                continue
            except OSError as error:
                unreadable[folder] = error
                wanted[folder.name] = self._wanted_labels.get(folder.name, {})
                found[folder.name] = self._found.get(folder.name, {})
                continue
            wanted[folder.name] = labels_of(list(numbered))
            found[folder.name] = {number: numbered[number] for number in wanted[folder.name].values()}
        self._wanted_labels, self._found = wanted, found
        self._report(unreadable)

    def _report(self, unreadable: Mapping[Path, OSError]) -> None:
        reasons = {folder: error.strerror or first_line(error) for folder, error in unreadable.items()}
        for folder, reason in reasons.items():
            if self._unreadable.get(folder) != reason:
                logger.warning("%s cannot be read: %s; what is served stays", folder, reason)
        self._unreadable = reasons

    def _move_labels(self) -> None:
        with self._lock:
            for model, versions in self._models.items():
                available = {number for number, version in versions.items() if version.state is State.AVAILABLE}
                wanted = self._wanted_labels.get(model, {})
                self._labels[model] = allowed_labels(wanted, self._labels.get(model, {}), available)

    def _update_wanted(self, found: Mapping[str, Mapping[int, Path]]) -> list[ModelVersion]:
        """Note which versions are to be served; return those to load."""
        added = []
        for model in self._models.keys() | found.keys():
            versions, folders = self._models.setdefault(model, {}), found.get(model, {})
            for number in versions.keys() - folders.keys():
                versions[number].wanted = False
            for number, folder in sorted(folders.items(), reverse=True):  # the newest is requested most
                known = versions.get(number)
                if known is None or (known.state is State.END and not known.wanted):
                    versions[number] = ModelVersion(model, number, folder)
                    added.append(versions[number])
                elif known.state is State.AVAILABLE:  # one that is being unloaded is loaded again afterwards
                    known.wanted = True
        return added

    def _load(self, version: ModelVersion) -> None:
        version.state = State.LOADING
        try:
            version.load()
        except ServingError as error:
            version.error = error
            version.state = State.END
            logger.warning("version %d of %s cannot be served: %s", version.number, version.model, error)
        else:
            version.state = State.AVAILABLE
            logger.info("serving version %d of %s", version.number, version.model)

    def _release_unwanted(self) -> None:
        released = []
        with self._lock:
            for model, versions in self._models.items():
                labelled = self._labels.get(model, {}).values()
                wanted = [version for version in versions.values() if version.wanted]
                if wanted and all(version.state is not State.AVAILABLE for version in wanted):
                    continue  # nothing could take over
                for version in versions.values():
                    is_needed = version.wanted or version.number in labelled
                    if version.state is State.AVAILABLE and not is_needed:
                        version.state = State.UNLOADING
                        released.append(version)
                        if version.leases == 0:
                            _end(version)
        for version in released:
            logger.info("no longer serving version %d of %s", version.number, version.model)
        if released:
            gc.collect()  # a loaded SavedModel is full of reference cycles


def _end(version: ModelVersion) -> None:
    version.state = State.END
    version.release()
