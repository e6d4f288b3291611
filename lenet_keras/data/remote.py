"""Fetching a data set that is not on this machine: TFDS's own download, or the Debian package without root."""

from __future__ import annotations

import os
import shutil
import ssl
import subprocess
import threading
import urllib.error
import urllib.request
from pathlib import Path

from lenet_keras.data import folders
from lenet_keras.data.catalogue import DatasetSpec
from lenet_keras.data.idx import IDX_NAMES
from lenet_keras.data.prepared import run_tfds
from lenet_keras.errors import LenetKerasError
from lenet_keras.files import scratch
from lenet_keras.notices import Notify

_SECONDS_FOR_AN_ANSWER = 8.0
_SECONDS_FOR_APT = 600.0


def site_problem(url: str, seconds: float = _SECONDS_FOR_AN_ANSWER) -> str | None:
    """Why nothing can be downloaded from `url`, or None; decided within `seconds`.

    TFDS retries each file ten times with growing pauses, which is more than three minutes when a name does not resolve.
    """
    outcome: list[str | None] = []
    # A name server that does not answer holds its caller for as long as it likes, so the question has its own thread.
    thread = threading.Thread(target=lambda: outcome.append(_ask(url, seconds)), daemon=True)
    thread.start()
    thread.join(seconds)
    return outcome[0] if outcome else f"no answer within {seconds:.0f} s"


def _ask(url: str, seconds: float) -> str | None:
    try:
        request = urllib.request.Request(url, method="HEAD")
        # An opener of its own: that of `urlopen` keeps the proxies of its first use for the whole process.
        urllib.request.build_opener().open(request, timeout=seconds).close()
    except urllib.error.HTTPError as error:
        # 405, 501: the site is there and knows no HEAD.
        return None if error.code in (405, 501) else f"HTTP status {error.code}"
    except urllib.error.URLError as error:
        # Certificates are TFDS's affair: it trusts another list than Python does.
        return None if isinstance(error.reason, ssl.SSLError) else str(error.reason)
    except (OSError, ValueError) as error:
        return str(error)
    return None


def download_with_tfds(spec: DatasetSpec, root: Path, notify: Notify) -> None:
    """Have TFDS download the data set, check its registered sums, and prepare it under `root`.

    Raises:
        LenetKerasError: its site does not answer, or TFDS failed; the message is the reason alone.
    """
    if problem := site_problem(spec.download_url):
        raise LenetKerasError(problem)
    notify(f"{spec.name}: TFDS downloads it and prepares it in {root}; this takes a minute or more")
    run_tfds("download", spec.name, str(root))


def apt_problem() -> str | None:
    """Why the Debian package cannot be fetched on any account, or None."""
    missing = [program for program in ("apt-get", "dpkg-deb") if shutil.which(program) is None]
    return f"this machine has no {' and no '.join(missing)}" if missing else None


def fetch_debian_package(spec: DatasetSpec, target: Path, notify: Notify) -> None:
    """Fetch the package that holds the data set with apt and unpack its IDX files to `target`. Needs no root.

    A machine whose package lists are empty, as a container's are, gets them in a private folder that is removed again.

    Raises:
        LenetKerasError: apt cannot fetch it (the message is the reason alone), or `target` cannot be written.
    """
    if problem := apt_problem():
        raise LenetKerasError(problem)
    notify(f"{spec.name}: apt fetches the package {spec.debian_package}, unpacked to {target}")
    with folders.built_once(target) as aside, scratch(aside.parent, "apt") as work:
        _download_package(spec.debian_package, work)
        package = next(work.glob("*.deb"))
        if problem := _problem(["dpkg-deb", "-x", package.name, "unpacked"], work):
            raise LenetKerasError(problem)
        for name in IDX_NAMES:
            packed = next(work.glob(f"unpacked/usr/share/datasets/*/{name}.gz"), None)
            if packed is None:
                raise LenetKerasError(f"{package.name} holds no {name}.gz")
            packed.rename(aside / packed.name)


def _download_package(package: str, work: Path) -> None:
    quick = {"Acquire::Retries": 0, "Acquire::http::Timeout": 10, "Acquire::https::Timeout": 10}
    # As root, apt would fetch as the user _apt, who may not write here.
    apt_get = ["apt-get", "-q", *_options({"APT::Sandbox::User": "root", **quick})]
    if _problem([*apt_get, "download", package], work) is None:
        return
    for folder in ("state/lists/partial", "cache/archives/partial"):
        (work / folder).mkdir(parents=True)
    private_lists = {"Dir::State": work / "state", "Dir::Cache": work / "cache", "Acquire::Languages": "none"}
    apt_get += _options(private_lists)
    # Lists of other packages' servers may fail; what counts is whether the download then works.
    update_problem = _problem([*apt_get, "update"], work)
    if problem := _problem([*apt_get, "download", package], work):
        raise LenetKerasError(f"{problem} (apt-get update: {update_problem})" if update_problem else problem)


def _options(settings: dict[str, object]) -> list[str]:
    return [part for name, value in settings.items() for part in ("-o", f"{name}={value}")]


def _problem(command: list[str], folder: Path) -> str | None:
    """Run the command; returns what it complained of, or None if it was content."""
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
