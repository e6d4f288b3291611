"""Where a data set comes from: the places looked at, in order, and what to do when none has it."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from lenet_keras.data import folders, remote
from lenet_keras.data.arrays import Dataset, Split, checked_splits
from lenet_keras.data.catalogue import DatasetSpec, dataset_spec
from lenet_keras.data.idx import IDX_NAMES, holds_idx, present, read_idx_folder
from lenet_keras.data.prepared import find_prepared, read_prepared
from lenet_keras.errors import LenetKerasError
from lenet_keras.notices import Notify, ignore


@dataclass(frozen=True)
class Availability:
    """One source of a data set; `available` is None where only trying would tell."""

    source: str
    available: bool | None
    detail: str


@dataclass(frozen=True)
class _Place:
    """A folder on this machine: a root of TFDS's if `prepared`, else one that may hold IDX files."""

    title: str
    root: Path
    prepared: bool
    mend: str = ""

    def find(self, spec: DatasetSpec) -> Path | None:
        if self.prepared:
            return find_prepared(spec.name, self.root)
        return self.root if holds_idx(self.root) else None

    def read(self, spec: DatasetSpec, folder: Path, notify: Notify) -> dict[str, Split]:
        if self.prepared:
            return read_prepared(spec, folder, notify)
        stored = read_idx_folder(folder, self.mend, spec.idx_sha256, spec.idx_sha256_of_gz)
        return checked_splits(spec, stored, str(folder), self.mend)


def load(name: str, data_dir: Path | None = None, notify: Notify = ignore) -> Dataset:
    """Find the data set, fetch it if it is not on this machine, check it, and return it in memory.

    Tried in order: a folder that TFDS prepared (`$TFDS_DATA_DIR` or `~/tensorflow_datasets`); IDX files (the Debian
    package's, then those in the user's cache); TFDS's download; the Debian package fetched by apt without root. The
    last one and the IDX files without `data_dir` exist for Fashion-MNIST only. TensorFlow is not imported into this
    process by any of them.

    Every source gives the same arrays in the same order (`arrays.canonical_order`). EMNIST's pictures are returned
    upright (TFDS has rows and columns swapped), and `emnist/letters` has the 26 classes A to Z with labels 0 to 25
    (TFDS declares 37 and uses 1 to 26).

    Args:
        name: one of `DATASETS`.
        data_dir: look here alone: for a folder prepared by TFDS, then for IDX files.
        notify: called with one line about each thing that a user waits for, and one that names the source used.

    Raises:
        InvalidArgument: no such data set.
        LenetKerasError: `data_dir` does not hold it, no source can be reached, or a file is missing or damaged.
    """
    spec = dataset_spec(name)
    found = _find(spec, data_dir)
    if found is None:
        if data_dir is not None:
            raise LenetKerasError(_not_in(spec, data_dir))
        found = _fetch(spec, None, notify)
    return _read(spec, *found, notify)


def prepare(name: str, data_dir: Path | None = None, notify: Notify = ignore) -> Path:
    """Do all that makes the next `load` quick, and check the contents; returns the folder the data set lies in.

    Args:
        name: one of `DATASETS`.
        data_dir: fetch into this folder if it does not hold the data set; by default into the folder of whoever
            fetches it (TFDS's, or the user's cache).
        notify: as for `load`.

    Raises:
        InvalidArgument: no such data set.
        LenetKerasError: no source can be reached, or what there is is damaged.
    """
    spec = dataset_spec(name)
    place, folder = _find(spec, data_dir) or _fetch(spec, data_dir, notify)
    _read(spec, place, folder, notify)
    return folder


def availability(name: str, data_dir: Path | None = None) -> list[Availability]:
    """The sources that `load` would try, in that order. Looks at folders only: no network, nothing is read.

    Raises:
        InvalidArgument: no such data set.
    """
    spec = dataset_spec(name)
    rows = []
    for place in _places(spec, data_dir):
        folder = place.find(spec)
        rows.append(Availability(place.title, folder is not None, str(folder or f"not in {place.root}")))
    if data_dir is None and spec.download_url:
        rows.append(Availability("TFDS download", None, spec.download_url.rpartition("/")[0]))
    if data_dir is None and spec.debian_package:
        problem = remote.apt_problem()
        detail = problem or f"apt-get download {spec.debian_package}"
        rows.append(Availability("Debian package fetched by apt", False if problem else None, detail))
    return rows


def _places(spec: DatasetSpec, data_dir: Path | None) -> list[_Place]:
    again = f"delete that folder and run `lenet-keras data prepare {spec.name}`"
    if data_dir is not None:
        places = [_Place("set prepared by TFDS", data_dir, prepared=True)]
        mend = "replace it by an intact copy"
        if spec.idx_sha256:
            places.append(_Place("IDX files", data_dir, prepared=False, mend=mend))
        if spec.debian_package:
            places.append(_Place("IDX files", data_dir / _idx_folder(spec), prepared=False, mend=mend))
        return places
    if spec.is_sample:
        return [_Place("sample shipped with lenet-keras", folders.SAMPLE, prepared=False, mend="reinstall lenet-keras")]
    places = [_Place("set prepared by TFDS", folders.tfds_root(), prepared=True)]
    if spec.debian_package:
        installed = folders.DEBIAN_DATASETS / _idx_folder(spec)
        mend = f"run `{_as_root('apt-get install --reinstall ' + spec.debian_package)}`"
        cached = folders.user_cache() / _idx_folder(spec)
        places.append(_Place("Debian package's IDX files", installed, prepared=False, mend=mend))
        places.append(_Place("IDX files fetched earlier", cached, prepared=False, mend=again))
    return places


def _find(spec: DatasetSpec, data_dir: Path | None) -> tuple[_Place, Path] | None:
    for place in _places(spec, data_dir):
        if folder := place.find(spec):
            return place, folder
    return None


def _read(spec: DatasetSpec, place: _Place, folder: Path, notify: Notify) -> Dataset:
    splits = place.read(spec, folder, notify)
    source = f"{place.title} in {folder}"
    notify(f"{spec.name}: {source}")
    return Dataset(spec, splits["train"], splits["test"], source)


def _fetch(spec: DatasetSpec, data_dir: Path | None, notify: Notify) -> tuple[_Place, Path]:
    """Fetch the data set into `data_dir` or its usual place; returns where it then is."""
    tried = [f"{place.title}: none in {place.root}" for place in _places(spec, data_dir)]
    attempts: list[tuple[str, Callable[[], None]]] = []
    if spec.download_url:
        root = data_dir or folders.tfds_root()
        site = spec.download_url.split("/")[2]
        attempts.append((f"TFDS download ({site})", lambda: remote.download_with_tfds(spec, root, notify)))
    if spec.debian_package:
        target = (data_dir or folders.user_cache()) / _idx_folder(spec)
        attempts.append(
            (f"Debian package {spec.debian_package}", lambda: remote.fetch_debian_package(spec, target, notify))
        )
    for title, attempt in attempts:
        try:
            attempt()
        except LenetKerasError as error:
            tried.append(f"{title}: {error}")
        else:
            if found := _find(spec, data_dir):
                return found
            tried.append(f"{title}: it ended well, but left nothing")
    listed = "".join(f"\n  - {line}" for line in tried)
    raise LenetKerasError(f"{spec.title} could not be found or fetched. Tried:{listed}\n{_way_out(spec)}")


def _idx_folder(spec: DatasetSpec) -> str:
    """The name of the folder for IDX files, which is not the one that TFDS gives to its own."""
    return spec.debian_package.removeprefix("dataset-")


def _not_in(spec: DatasetSpec, data_dir: Path) -> str:
    if not present(data_dir):
        return f"{data_dir}: expected a folder that holds {spec.name}, found nothing there; check --data-dir."
    wanted = [f"{spec.name}/<version>/dataset_info.json (prepared by TFDS)"]
    if spec.idx_sha256:
        wanted.append(f"{IDX_NAMES[0]}[.gz] and its three companions (IDX)")
    fetch = "" if spec.is_sample else f"; `lenet-keras data prepare {spec.name} --data-dir {data_dir}` fetches it"
    return f"{data_dir}: expected {' or '.join(wanted)}, found neither{fetch}."


def _way_out(spec: DatasetSpec) -> str:
    if spec.debian_package and remote.apt_problem() is None:
        return f"What helps: `{_as_root('apt-get install ' + spec.debian_package)}`"
    return (
        f"What helps: on a machine with internet access, `lenet-keras data prepare {spec.name} --data-dir FOLDER`; "
        "then copy FOLDER here and add `--data-dir FOLDER`."
    )


def _as_root(command: str) -> str:
    return command if os.geteuid() == 0 else f"sudo {command}"
