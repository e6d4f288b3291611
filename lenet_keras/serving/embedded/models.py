"""The models of an export folder: new versions are found, loaded and served, old ones released."""

from __future__ import annotations

import contextlib
import gc
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path

from lenet_keras.export import layout
from lenet_keras.notices import Notify, ignore
from lenet_keras.serving.config import labelled_versions
from lenet_keras.serving.embedded.status import Code, ServingError, invalid
from lenet_keras.serving.embedded.versions import ModelVersion, State


class ModelStore:
    """Serves `<export folder>/<model name>/<version>/` by TensorFlow Serving's rules.

    Of each model the two versions are loaded that have labels, `stable` and `canary`. A newer version takes over when
    it is ready, and if it cannot be loaded the old ones go on. A version that failed is not tried again until its
    folder has gone and come back. Requests that run keep their version loaded.
    """

    def __init__(self, export_dir: Path, interval: float = 1.0, notify: Notify = ignore) -> None:
        """Know of no models yet; see `start`.

        Args:
            export_dir: its children are the models' folders.
            interval: seconds between two looks at the folder.
            notify: told of each version that was loaded, released or refused.
        """
        self._export_dir = export_dir
        self._interval = interval
        self._notify = notify
        self._lock = threading.Lock()
        self._models: dict[str, dict[int, ModelVersion]] = {}
        self._labels: dict[str, dict[str, int]] = {}
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="model-store")

    def start(self) -> None:
        """Load what is there, then go on watching until `close`."""
        self.poll()
        self._thread.start()

    def close(self) -> None:
        """Stop watching. A load that runs is waited for."""
        self._closing.set()
        self._thread.join()

    def poll(self) -> None:
        """Look at the folder once; load and release accordingly. Call it from one thread only."""
        try:
            found = self._scan()
        except OSError:
            return  # a share that is away for a moment takes no model with it
        with self._lock:
            added = self._want(found)
        for version in added:
            self._load(version)
        self._release_unwanted()

    @contextlib.contextmanager
    def lease(self, model: str, number: int | None = None, label: str | None = None) -> Iterator[ModelVersion]:
        """Lend a version, the largest by default; it stays loaded within the context.

        Raises:
            ServingError: NOT_FOUND: it is not served. INVALID_ARGUMENT: no model was named, or the label is unknown.
        """
        if not model:
            raise invalid("ModelSpec has no name specified.")
        if label is not None:
            number = self._labelled(model, label)
        with self._lock:
            serving = {n: v for n, v in self._models.get(model, {}).items() if v.state is State.AVAILABLE}
            version = serving.get(max(serving, default=-1) if number is None else number)
            if version is None:
                request = f"Latest({model})" if number is None else f"Specific({model}, {number})"
                raise ServingError(Code.NOT_FOUND, f"Servable not found for request: {request}")
            version.leases += 1
        try:
            yield version
        finally:
            with self._lock:
                version.leases -= 1
                if version.state is State.UNLOADING and version.leases == 0:
                    self._end(version)

    def status(
        self, model: str, number: int | None = None, label: str | None = None
    ) -> list[tuple[int, State, ServingError | None]]:
        """List number, state and error of a model's versions, or of one; the largest first.

        Raises:
            ServingError: NOT_FOUND: there never was such a version. INVALID_ARGUMENT: the label is unknown.
        """
        if label is not None:
            number = self._labelled(model, label)
        with self._lock:
            versions = self._models.get(model, {})
            if number is not None:
                if number not in versions:
                    raise ServingError(Code.NOT_FOUND, f"Could not find version {number} of model {model}")
                versions = {number: versions[number]}
            if not versions:
                raise ServingError(Code.NOT_FOUND, f"Could not find any versions of model {model}")
            return [(n, v.state, v.error) for n, v in sorted(versions.items(), reverse=True)]

    def _watch(self) -> None:
        while not self._closing.wait(self._interval):
            self.poll()

    def _scan(self) -> dict[str, dict[int, Path]]:
        found: dict[str, dict[int, Path]] = {}
        labels: dict[str, dict[str, int]] = {}
        for folder in self._export_dir.iterdir():
            if folder.name.startswith(".") or not folder.is_dir():
                continue
            try:
                numbered = {int(child.name): child for child in layout.version_folders(folder)}
                labels[folder.name] = labelled_versions(folder)
            except OSError:
                continue  # gone since, or none of ours
            found[folder.name] = {
                number: numbered[number] for number in set(labels[folder.name].values()) if number in numbered
            }
        self._labels = labels
        return found

    def _want(self, found: Mapping[str, Mapping[int, Path]]) -> list[ModelVersion]:
        """Note which versions are to be served; return those to load."""
        added = []
        for model in self._models.keys() | found.keys():
            versions, folders = self._models.setdefault(model, {}), found.get(model, {})
            for number in versions.keys() - folders.keys():
                versions[number].wanted = False
            for number, folder in sorted(folders.items(), reverse=True):  # the newest is what is asked for most
                known = versions.get(number)
                if known is None or (known.state is State.END and not known.wanted):
                    versions[number] = ModelVersion(model, number, folder)
                    added.append(versions[number])
                elif known.state is State.AVAILABLE:  # one that is unloading is taken up again when that is done
                    known.wanted = True
        return added

    def _load(self, version: ModelVersion) -> None:
        version.state = State.LOADING
        try:
            version.load()
        except ServingError as error:
            version.error = error
            version.state = State.END
            self._notify(f"version {version.number} of {version.model} cannot be served: {error}")
            return
        version.state = State.AVAILABLE
        self._notify(f"serving version {version.number} of {version.model}")

    def _release_unwanted(self) -> None:
        ended = []
        with self._lock:
            for versions in self._models.values():
                wanted = [version for version in versions.values() if version.wanted]
                if wanted and all(version.state is not State.AVAILABLE for version in wanted):
                    continue
                for version in versions.values():
                    if version.state is State.AVAILABLE and not version.wanted:
                        version.state = State.UNLOADING
                        ended.append(version)
                        if version.leases == 0:
                            self._end(version)
        for version in ended:
            self._notify(f"no longer serving version {version.number} of {version.model}")
        if ended:
            gc.collect()  # a loaded SavedModel is full of reference cycles

    def _end(self, version: ModelVersion) -> None:
        version.state = State.END
        version.release()

    def _labelled(self, model: str, label: str) -> int:
        labels = self._labels.get(model, {})
        if label not in labels:
            raise invalid(f"Unrecognized servable version label: {label}")
        return labels[label]
