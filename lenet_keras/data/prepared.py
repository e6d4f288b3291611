"""Data sets that TFDS has prepared: finding and reading them."""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import sys
from pathlib import Path

from lenet_keras.data import folders
from lenet_keras.data.arrays import Split, checked_splits
from lenet_keras.data.catalogue import DatasetSpec
from lenet_keras.data.idx import IDX_NAMES, read_idx_folder
from lenet_keras.errors import LenetKerasError
from lenet_keras.notices import Notify

REASON = "lenet-keras could not: "  # starts the line in which `tfds_worker` says why it failed
_VERSION = re.compile(r"\d+\.\d+\.\d+")


def find_prepared(name: str, root: Path) -> Path | None:
    """The newest version of the data set that lies whole under `root`; TFDS gives half-prepared ones another name."""
    try:
        infos = list(root.glob(f"{name}/*/dataset_info.json"))
    except OSError:  # a folder that this user may not look into holds nothing for them
        return None
    versions = [info.parent for info in infos if _VERSION.fullmatch(info.parent.name)]
    return max(versions, key=lambda folder: tuple(map(int, folder.name.split("."))), default=None)


def read_prepared(spec: DatasetSpec, folder: Path, notify: Notify) -> dict[str, Split]:
    """Read a folder that TFDS prepared: "train" and "test".

    TFDS takes about ten seconds for 70,000 images and needs TensorFlow, so what it reads is kept as raw IDX files in
    the user's cache; from then on this takes about a second. A folder that has changed is read anew.

    Raises:
        LenetKerasError: TFDS cannot read the folder, its contents are not the data set, or the cache cannot be written.
    """
    copy = folders.user_cache() / "tfds" / f"{spec.name.replace('/', '-')}-{_identity(folder)}"
    if not copy.exists():
        notify(f"{spec.name}: reading {folder} with TFDS, this once; a quick copy is kept in {copy}")
        mend = f"delete {folder} and run `lenet-keras data prepare {spec.name}`"
        with folders.built_once(copy) as aside:
            _read_with_tfds(folder, aside, mend)
            checked_splits(spec, read_idx_folder(aside, mend, None), str(folder), mend)
            sums = {name: hashlib.sha256((aside / name).read_bytes()).hexdigest() for name in IDX_NAMES}
            (aside / "sums.json").write_text(json.dumps(sums))

    mend = f"delete {copy}, it will be made again"
    try:
        sums = json.loads((copy / "sums.json").read_bytes())
        sums = {name: str(sums[name]) for name in IDX_NAMES}
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise LenetKerasError(
            f"{copy / 'sums.json'}: expected the sums of four files, found: {error}; {mend}."
        ) from error
    return checked_splits(spec, read_idx_folder(copy, mend, sums), str(copy), mend)


def run_tfds(*arguments: str) -> None:
    """Run `tfds_worker` with these arguments in a process of its own.

    Raises:
        LenetKerasError: it failed; the message is the reason alone, for the caller to put into a sentence.
    """
    package_root = str(Path(__file__).parents[2])
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(filter(None, [package_root, os.environ.get("PYTHONPATH")])),
        "CUDA_VISIBLE_DEVICES": "-1",  # reading pictures is no work for a GPU, and would take its memory
    }
    result = subprocess.run(
        [sys.executable, "-m", "lenet_keras.data.tfds_worker", *arguments],
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
    )
    if result.returncode:
        # TensorFlow's own log lines may come before and after it.
        lines = result.stderr.splitlines()
        reasons = [line.removeprefix(REASON) for line in lines if line.startswith(REASON)]
        raise LenetKerasError((reasons or lines or [f"the TFDS process ended with code {result.returncode}"])[-1])


def _read_with_tfds(folder: Path, target: Path, mend: str) -> None:
    try:
        run_tfds("read", str(folder), str(target))
    except LenetKerasError as error:
        raise LenetKerasError(f"{folder}: expected a data set that TFDS can read, found: {error}; {mend}.") from error


def _identity(folder: Path) -> str:
    """Changes whenever a file of the folder is replaced; its contents are not read, which would take a second."""
    files = sorted((file.name, file.stat().st_size, file.stat().st_mtime_ns) for file in folder.iterdir())
    return hashlib.sha256(json.dumps([str(folder.resolve()), files]).encode()).hexdigest()[:16]
