"""Datasets prepared by TFDS: where they are, reading them, and having TFDS download one.

Anything that needs TFDS runs in a child process, `python -m lenet_keras.data.tfds`, the end of this module. Reading
with TensorFlow fixes the threads and the devices of its process for good, takes memory on a GPU and logs as it likes;
training must be free to choose all of that.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
import ssl
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from pathlib import Path

import numpy as np

from lenet_keras.data.arrays import Split, checked_splits
from lenet_keras.data.catalogue import DatasetSpec
from lenet_keras.data.idx import IDX_FILES, IDX_NAMES, creating_idx_folder, idx_bytes, read_idx_folder
from lenet_keras.errors import DatasetDamaged, DatasetNotFound
from lenet_keras.paths import cache_folder, home_folder, local_path

logger = logging.getLogger(__name__)

_VERSION = re.compile(r"\d+\.\d+\.\d+")
_SECONDS_FOR_A_SITE = 8.0
_REASON = "lenet-keras could not: "  # starts the line of stderr in which the child process says why it failed


def tfds_root() -> Path:
    """Return the folder that TFDS itself uses: `$TFDS_DATA_DIR`, else `~/tensorflow_datasets`.

    >>> from unittest import mock
    >>> with mock.patch.dict(os.environ, TFDS_DATA_DIR="/data/tfds"):
    ...     tfds_root().as_posix()
    '/data/tfds'

    Raises:
        InvalidArgument: the variable holds a URL.
        NoHomeFolder: the variable is not set, and this user has no home folder.
    """
    chosen = os.environ.get("TFDS_DATA_DIR")
    return local_path(chosen, "TFDS_DATA_DIR") if chosen else home_folder("TFDS_DATA_DIR") / "tensorflow_datasets"


def find_prepared(name: str, root: Path) -> Path | None:
    """Return the folder of the newest complete version of the dataset `name` under `root`, or None.

    TFDS gives incomplete versions another name.

    >>> find_prepared("mnist", Path("nowhere")) is None
    True
    """
    try:
        infos = list(root.glob(f"{name}/*/dataset_info.json"))
    except OSError:  # a folder that this user may not look into holds nothing for them
        return None
    versions = [info.parent for info in infos if _VERSION.fullmatch(info.parent.name)]
    return max(versions, key=lambda folder: tuple(map(int, folder.name.split("."))), default=None)


def read_prepared(spec: DatasetSpec, folder: Path, remedy: str) -> dict[str, Split]:
    """Read a folder that TFDS prepared: "train" and "test".

    TFDS takes about ten seconds for 70,000 images and needs TensorFlow, so what it reads is kept as raw IDX files in
    the user's cache; from then on this takes about a second. A folder that has changed is read again.

    Args:
        spec: the dataset.
        folder: as `find_prepared` returns it.
        remedy: what to do about a folder that is damaged, for the message.

    Raises:
        DatasetDamaged: TFDS cannot read the folder, or its contents are not the dataset.
        LenetKerasError: the cache cannot be written to.
    """
    copy = cache_folder() / "tfds" / f"{spec.name.replace('/', '-')}-{_identity(folder)}"
    if not copy.exists():
        logger.info("%s: reading %s with TFDS, only this once; a copy is kept in %s", spec.name, folder, copy)
        with creating_idx_folder(copy) as temporary:
            if problem := _tfds_problem("convert", str(folder), str(temporary)):
                raise DatasetDamaged(f"{folder}: expected a dataset that TFDS can read, found: {problem}; {remedy}.")
            checked_splits(spec, read_idx_folder(temporary, remedy, None), str(folder), remedy)
            sums = {name: hashlib.sha256((temporary / name).read_bytes()).hexdigest() for name in IDX_NAMES}
            (temporary / "sums.json").write_text(json.dumps(sums))

    remedy = f"delete {copy}, and it will be made again"
    try:
        sums = json.loads((copy / "sums.json").read_bytes())
        sums = {name: str(sums[name]) for name in IDX_NAMES}
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise DatasetDamaged(
            f"{copy / 'sums.json'}: expected the checksums of four files, found: {error}; {remedy}."
        ) from error
    return checked_splits(spec, read_idx_folder(copy, remedy, sums), str(copy), remedy)


def download_with_tfds(spec: DatasetSpec, root: Path) -> None:
    """Have TFDS download the dataset, verify the checksums that it has registered, and prepare it under `root`.

    Raises:
        DatasetNotFound: the site does not answer, or TFDS failed; the message is only the reason.
    """
    if problem := site_problem(spec.download_url):
        raise DatasetNotFound(problem, spec.name)
    logger.info("%s: downloading with TFDS, prepared in %s; this takes a minute or more", spec.name, root)
    if problem := _tfds_problem("download", spec.name, str(root)):
        raise DatasetNotFound(problem, spec.name)


def site_problem(url: str, seconds: float = _SECONDS_FOR_A_SITE) -> str | None:
    """Return why nothing can be downloaded from `url`, or None; decided within `seconds`.

    TFDS retries each file ten times with growing pauses: more than three minutes for a name that does not resolve.

    >>> site_problem("nowhere")
    "unknown url type: 'nowhere'"
    """
    outcome: list[str | None] = []
    # A thread, because a name server that does not answer blocks its caller for longer than any timeout.
    thread = threading.Thread(target=lambda: outcome.append(_request_problem(url, seconds)), daemon=True)
    thread.start()
    thread.join(seconds)
    return outcome[0] if outcome else f"no answer within {seconds:.0f} s"


def _request_problem(url: str, seconds: float) -> str | None:
    try:
        request = urllib.request.Request(url, method="HEAD")
        # Not `urlopen`, whose opener keeps the proxies of its first use for the whole process.
        urllib.request.build_opener().open(request, timeout=seconds).close()
    except urllib.error.HTTPError as error:
        # 405, 501: the site answers, but does not support HEAD.
        return None if error.code in (405, 501) else f"HTTP status {error.code}"
    except urllib.error.URLError as error:
        # TFDS will judge the certificate: it trusts a different list from Python's.
        return None if isinstance(error.reason, ssl.SSLError) else str(error.reason)
    except (OSError, ValueError) as error:
        return str(error)
    return None


def _identity(folder: Path) -> str:
    """Return what changes whenever a file of `folder` is replaced. Hashing the contents would take a second."""
    files = sorted((file.name, file.stat().st_size, file.stat().st_mtime_ns) for file in folder.iterdir())
    return hashlib.sha256(json.dumps([str(folder.resolve()), files]).encode()).hexdigest()[:16]


def _tfds_problem(*arguments: str) -> str | None:
    """Run this module with `arguments` in a child process; return why it failed, or None."""
    package_root = str(Path(__file__).parents[2])
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(filter(None, [package_root, os.environ.get("PYTHONPATH")])),
        "CUDA_VISIBLE_DEVICES": "-1",  # reading images gains nothing from a GPU, and would take its memory
    }
    result = subprocess.run(
        [sys.executable, "-m", __name__, *arguments],
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
    )
    if result.returncode == 0:
        return None
    # TensorFlow's own log lines may come before and after the reason.
    lines = result.stderr.splitlines()
    reasons = [line.removeprefix(_REASON) for line in lines if line.startswith(_REASON)]
    return (reasons or lines or [f"the TFDS process ended with code {result.returncode}"])[-1]


def _convert(folder: str, target: str) -> None:
    """Write what TFDS prepared in `folder` to four raw IDX files in `target`, labels and images as stored."""
    import tensorflow_datasets as tfds

    builder = tfds.builder_from_directory(folder)
    for split, names in IDX_FILES.items():
        batches = list(tfds.as_numpy(builder.as_dataset(split=split, batch_size=1000)))
        images = np.concatenate([batch["image"] for batch in batches])
        labels = np.concatenate([batch["label"] for batch in batches])
        for name, array in zip(names, (images[..., 0], labels.astype(np.uint8)), strict=True):
            (Path(target) / name).write_bytes(idx_bytes(array))


def _download(name: str, root: str) -> None:
    import tensorflow_datasets as tfds

    # The prepared copies that TFDS offers on Google Cloud come without SHA-256 checksums, so they are not used.
    config = tfds.download.DownloadConfig(try_download_gcs=False)
    tfds.builder(name, data_dir=root).download_and_prepare(download_config=config)


def _main() -> int:
    """Run `convert FOLDER TARGET` or `download NAME ROOT`."""
    command, *arguments = sys.argv[1:]
    try:
        {"convert": _convert, "download": _download}[command](*arguments)
    except Exception as error:  # whatever TFDS, TensorFlow or the network raise, the parent process gets it as one line
        reason = " ".join(str(error).split())[:300]
        sys.stderr.write(f"{_REASON}{type(error).__name__}: {reason}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(_main())
