"""Where data sets lie on this machine when no folder is given. Looked up at each call: the environment decides."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from platformdirs import user_cache_path

from lenet_keras.errors import LenetKerasError
from lenet_keras.files import built_aside

DEBIAN_DATASETS = Path("/usr/share/datasets")
SAMPLE = Path(__file__).parent / "fashion_mnist_sample"


def tfds_root() -> Path:
    """The folder that TFDS itself uses: `$TFDS_DATA_DIR`, else `~/tensorflow_datasets`."""
    given = os.environ.get("TFDS_DATA_DIR")
    return Path(given).expanduser() if given else Path("~/tensorflow_datasets").expanduser()


def user_cache() -> Path:
    """The package's folder in the user's cache (`$XDG_CACHE_HOME`, else `~/.cache`, on Linux)."""
    return user_cache_path("lenet-keras")


@contextlib.contextmanager
def built_once(target: Path) -> Iterator[Path]:
    """`files.built_aside`, where it does no harm that another process has built the same folder in the meantime.

    Raises:
        LenetKerasError: the folder cannot be written to.
    """
    try:
        with built_aside(target) as aside:
            yield aside
    except OSError as error:
        if not target.is_dir():
            raise LenetKerasError(
                f"{target}: expected a place that can be written to, found: {error.strerror or error}; "
                "name another with XDG_CACHE_HOME (the cache) or --data-dir."
            ) from error
