"""Where a dataset comes from: the places searched, in order, and how it is fetched when none of them holds it."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from lenet_keras.data.arrays import Dataset, Split, checked_splits
from lenet_keras.data.catalogue import DatasetSpec, dataset_spec
from lenet_keras.data.debian import (
    DEBIAN_DATASETS,
    apt_problem,
    fetch_debian_package,
    idx_folder_name,
    install_command,
)
from lenet_keras.data.idx import IDX_NAMES, exists, holds_idx, read_idx_folder
from lenet_keras.data.tfds import download_with_tfds, find_prepared, read_prepared, tfds_root
from lenet_keras.errors import DatasetNotFound, LenetKerasError, NoHomeFolder
from lenet_keras.paths import AnyPath, cache_folder, local_path

logger = logging.getLogger(__name__)

SAMPLE_FOLDER = Path(__file__).parent / "fashion_mnist_sample"


@dataclass(frozen=True)
class Availability:
    """One source of a dataset; `available` is None if only trying would tell."""

    source: str
    available: bool | None
    detail: str


def load(name: str, data_dir: AnyPath | None = None) -> Dataset:
    """Find the dataset, fetch it if it is not on this machine, check it, and return it in memory.

    Tried in order: a folder that TFDS prepared (`$TFDS_DATA_DIR` or `~/tensorflow_datasets`); IDX files (the Debian
    package's, then those in the user's cache); TFDS's download; the Debian package fetched by apt without root. The
    last one and the IDX files without `data_dir` exist for Fashion-MNIST only. None of them imports TensorFlow into
    this process. The source used is logged, and so is everything that takes a while.

    Every source gives the same arrays in the same order (`arrays.canonical_order`). EMNIST's images are returned
    upright (TFDS has rows and columns swapped), and `emnist/letters` has the 26 classes A to Z with labels 0 to 25
    (TFDS declares 37 and uses 1 to 26).

    >>> load("fashion_mnist_sample").train.images.shape
    (500, 28, 28, 1)

    Args:
        name: one of `DATASETS`.
        data_dir: look only here: for a folder prepared by TFDS, then for IDX files.

    Raises:
        InvalidArgument: no such dataset, or a folder that is a URL.
        DatasetNotFound: `data_dir` does not hold it, or no source can be reached.
        DatasetDamaged: a file is missing or damaged.
    """
    spec, data_dir = dataset_spec(name), None if data_dir is None else local_path(data_dir)
    found = _find(spec, data_dir)
    if found is None and data_dir is not None:
        raise DatasetNotFound(_not_in(data_dir, spec), name, data_dir)
    return _read(spec, *(found or _fetch(spec, None)))


def prepare(name: str, data_dir: AnyPath | None = None) -> Path:
    """Do everything needed to make the next `load` quick, check the contents, and return the dataset's folder.

    >>> prepare("fashion_mnist_sample").name
    'fashion_mnist_sample'

    Args:
        name: one of `DATASETS`.
        data_dir: fetch into this folder if it does not hold the dataset; by default TFDS's own folder, or the user's
            cache for the Debian package.

    Raises:
        InvalidArgument: no such dataset, or a folder that is a URL.
        DatasetNotFound: no source can be reached.
        DatasetDamaged: a file is missing or damaged.
    """
    spec, data_dir = dataset_spec(name), None if data_dir is None else local_path(data_dir)
    place, folder = _find(spec, data_dir) or _fetch(spec, data_dir)
    _read(spec, place, folder)
    return folder


def availability(name: str, data_dir: AnyPath | None = None) -> list[Availability]:
    """List the sources that `load` would try, in that order. Looks at folders only: no network, nothing is read.

    >>> [source.available for source in availability("fashion_mnist_sample")]
    [True]

    Raises:
        InvalidArgument: no such dataset, or a folder that is a URL.
    """
    spec, data_dir = dataset_spec(name), None if data_dir is None else local_path(data_dir)
    rows = []
    for place in _places(spec, data_dir):
        folder = place.find(spec)
        rows.append(Availability(place.title, folder is not None, str(folder or f"not in {place.root}")))
    if data_dir is None and spec.download_url:
        rows.append(Availability("TFDS download", None, spec.download_url.rpartition("/")[0]))
    if data_dir is None and spec.debian_package:
        problem = apt_problem()
        detail = problem or f"apt-get download {spec.debian_package}"
        rows.append(Availability("Debian package fetched by apt", False if problem else None, detail))
    return rows


@dataclass(frozen=True)
class _Place:
    """A folder on this machine that may hold a dataset: prepared by TFDS somewhere below it, or as IDX files in it."""

    title: str
    root: Path
    prepared: bool = False
    remedy: str = "delete that folder and prepare the dataset again"

    def find(self, spec: DatasetSpec) -> Path | None:
        if self.prepared:
            return find_prepared(spec.name, self.root)
        return self.root if holds_idx(self.root) else None

    def read(self, spec: DatasetSpec, folder: Path) -> dict[str, Split]:
        if self.prepared:
            return read_prepared(spec, folder, self.remedy)
        stored = read_idx_folder(folder, self.remedy, spec.idx_sha256, spec.idx_sha256_of_gz)
        return checked_splits(spec, stored, str(folder), self.remedy)


def _places(spec: DatasetSpec, data_dir: Path | None) -> list[_Place]:
    if data_dir is not None:
        places = [_Place("dataset prepared by TFDS", data_dir, prepared=True)]
        folders = [data_dir] if spec.idx_sha256 else []
        folders += [data_dir / idx_folder_name(spec)] if spec.debian_package else []
        return places + [_Place("IDX files", folder, remedy="replace it with an intact copy") for folder in folders]
    if spec.is_sample:
        return [_Place("sample shipped with lenet-keras", SAMPLE_FOLDER, remedy="reinstall lenet-keras")]
    places = []
    with contextlib.suppress(NoHomeFolder):
        places.append(_Place("dataset prepared by TFDS", tfds_root(), prepared=True))
    if spec.debian_package:
        name = idx_folder_name(spec)
        reinstall = f"run `{install_command(spec, '--reinstall')}`"
        places.append(_Place("Debian package's IDX files", DEBIAN_DATASETS / name, remedy=reinstall))
        with contextlib.suppress(NoHomeFolder):
            places.append(_Place("IDX files fetched earlier", cache_folder() / name))
    return places


def _find(spec: DatasetSpec, data_dir: Path | None) -> tuple[_Place, Path] | None:
    for place in _places(spec, data_dir):
        if folder := place.find(spec):
            return place, folder
    return None


def _read(spec: DatasetSpec, place: _Place, folder: Path) -> Dataset:
    splits = place.read(spec, folder)
    source = f"{place.title} in {folder}"
    logger.info("%s: %s", spec.name, source)
    return Dataset(spec, splits["train"], splits["test"], source)


def _fetch(spec: DatasetSpec, data_dir: Path | None) -> tuple[_Place, Path]:
    """Fetch the dataset into `data_dir` or its default place; return where it is then."""
    attempts: dict[str, Callable[[], None]] = {}
    if spec.download_url:
        site = urlsplit(spec.download_url).hostname
        attempts[f"TFDS download ({site})"] = lambda: download_with_tfds(spec, data_dir or tfds_root())
    if spec.debian_package:
        name = idx_folder_name(spec)
        attempts[f"Debian package {spec.debian_package}"] = lambda: fetch_debian_package(
            spec, (data_dir or cache_folder()) / name
        )

    tried = [f"{place.title}: none in {place.root}" for place in _places(spec, data_dir)]
    for title, attempt in attempts.items():
        try:
            attempt()
        except LenetKerasError as error:
            tried.append(f"{title}: {error}")
        else:
            if found := _find(spec, data_dir):
                return found
            tried.append(f"{title}: it succeeded, but left nothing")
    install = f" `{install_command(spec)}` installs it." if spec.debian_package and apt_problem() is None else ""
    message = f"{spec.title} could not be found or fetched.{install} Tried:"
    raise DatasetNotFound(message, spec.name, data_dir, tried)


def _not_in(data_dir: Path, spec: DatasetSpec) -> str:
    if not exists(data_dir):
        return f"{data_dir}: expected a folder that holds {spec.name}, found nothing there."
    wanted = [f"{spec.name}/<version>/dataset_info.json (prepared by TFDS)"]
    if spec.idx_sha256:
        wanted.append(f"{IDX_NAMES[0]}[.gz] and its three companions (IDX)")
    return f"{data_dir}: expected {' or '.join(wanted)}, found neither."
