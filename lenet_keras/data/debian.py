"""The Debian and Ubuntu package of a dataset: where it installs IDX files, and fetching it with apt without root."""

from __future__ import annotations

import logging
import os
import shutil
import subprocess
from pathlib import Path

from lenet_keras.data.catalogue import DatasetSpec
from lenet_keras.data.idx import IDX_NAMES, creating_idx_folder
from lenet_keras.errors import DatasetNotFound
from lenet_keras.files import temporary_folder

logger = logging.getLogger(__name__)

DEBIAN_DATASETS = Path("/usr/share/datasets")

_SECONDS_FOR_APT = 600.0


def idx_folder_name(spec: DatasetSpec) -> str:
    """Return the name of the folder that the package installs, which differs from TFDS's.

    >>> from lenet_keras.data.catalogue import dataset_spec
    >>> idx_folder_name(dataset_spec("fashion_mnist"))
    'fashion-mnist'
    """
    return spec.debian_package.removeprefix("dataset-")


def install_command(spec: DatasetSpec, *options: str) -> str:
    """Return the command with which this user would install the package.

    >>> from unittest import mock
    >>> from lenet_keras.data.catalogue import dataset_spec
    >>> with mock.patch("os.geteuid", return_value=1000):
    ...     install_command(dataset_spec("fashion_mnist"), "--reinstall")
    'sudo apt-get install --reinstall dataset-fashion-mnist'
    """
    return " ".join([*([] if os.geteuid() == 0 else ["sudo"]), "apt-get", "install", *options, spec.debian_package])


def apt_problem() -> str | None:
    """Return why no package can be fetched on this machine, or None.

    >>> from unittest import mock
    >>> with mock.patch.dict(os.environ, PATH=""):
    ...     apt_problem()
    'this machine has no apt-get and no dpkg-deb'
    """
    missing = [program for program in ("apt-get", "dpkg-deb") if shutil.which(program) is None]
    return f"this machine has no {' and no '.join(missing)}" if missing else None


def fetch_debian_package(spec: DatasetSpec, target: Path) -> None:
    """Fetch the package that holds the dataset with apt and unpack its IDX files to `target`. Needs no root.

    If the machine's package lists are empty, as in a container, they are fetched to a temporary folder.

    Raises:
        DatasetNotFound: apt cannot fetch the package; the message is only the reason.
        LenetKerasError: `target` cannot be written to.
    """
    if problem := apt_problem():
        raise DatasetNotFound(problem, spec.name)
    logger.info("%s: fetching the package %s with apt, unpacked to %s", spec.name, spec.debian_package, target)
    with creating_idx_folder(target) as temporary, temporary_folder(temporary.parent, "apt") as work:
        if problem := _download_problem(spec.debian_package, work):
            raise DatasetNotFound(problem, spec.name)
        package = next(work.glob("*.deb"))
        if problem := _problem(["dpkg-deb", "-x", package.name, "unpacked"], work):
            raise DatasetNotFound(problem, spec.name)
        for name in IDX_NAMES:
            packed = next(work.glob(f"unpacked/usr/share/datasets/*/{name}.gz"), None)
            if packed is None:
                raise DatasetNotFound(f"{package.name} holds no {name}.gz", spec.name)
            packed.rename(temporary / packed.name)


def _download_problem(package: str, work: Path) -> str | None:
    """Download the package into the folder `work`; return why that failed, or None."""
    quick = {"Acquire::Retries": 0, "Acquire::http::Timeout": 10, "Acquire::https::Timeout": 10}
    # As root, apt would download as the user _apt, which may not write here.
    apt_get = ["apt-get", "-q", *_options({"APT::Sandbox::User": "root", **quick})]
    if _problem([*apt_get, "download", package], work) is None:
        return None
    for folder in ("state/lists/partial", "cache/archives/partial"):
        (work / folder).mkdir(parents=True)
    apt_get += _options({"Dir::State": work / "state", "Dir::Cache": work / "cache", "Acquire::Languages": "none"})
    # The update may fail for servers that do not matter: what counts is whether the download then works.
    update_problem = _problem([*apt_get, "update"], work)
    problem = _problem([*apt_get, "download", package], work)
    return f"{problem} (apt-get update: {update_problem})" if problem and update_problem else problem


def _options(settings: dict[str, object]) -> list[str]:
    return [part for name, value in settings.items() for part in ("-o", f"{name}={value}")]


def _problem(command: list[str], folder: Path) -> str | None:
    """Run the command in `folder`; return its complaint, or None if it succeeded."""
    try:
        result = subprocess.run(
            command,
            cwd=folder,
            env={**os.environ, "LC_ALL": "C"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_SECONDS_FOR_APT,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return f"{command[0]} took more than {_SECONDS_FOR_APT:.0f} s"
    lines = result.stderr.strip().splitlines()
    # apt-get update ends with code 0 and a warning when no server answered.
    complaints = [line for line in lines if line.startswith(("E:", "W: Failed"))]
    if result.returncode == 0 and not complaints:
        return None
    return (complaints or lines or [f"{command[0]} ended with code {result.returncode}"])[0]
