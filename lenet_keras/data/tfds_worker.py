"""The part that needs TFDS and TensorFlow, run in a process of its own: `python -m lenet_keras.data.tfds_worker`.

Reading with TensorFlow fixes the threads and the devices of the process for good, takes memory on a GPU and logs as it
likes; training must be free to choose all that. A line on stderr that starts with `REASON` says why it failed.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import tensorflow_datasets as tfds

from lenet_keras.data.idx import IDX_FILES, idx_bytes
from lenet_keras.data.prepared import REASON


def read(folder: str, target: str) -> None:
    """Write the data set prepared in `folder` to four raw IDX files in `target`, labels and pictures as stored."""
    builder = tfds.builder_from_directory(folder)
    for split, names in IDX_FILES.items():
        parts = list(tfds.as_numpy(builder.as_dataset(split=split, batch_size=1000)))
        images = np.concatenate([part["image"] for part in parts])
        labels = np.concatenate([part["label"] for part in parts])
        for name, array in zip(names, (images[..., 0], labels.astype(np.uint8)), strict=True):
            (Path(target) / name).write_bytes(idx_bytes(array))


def download(name: str, root: str) -> None:
    """Let TFDS download the data set from its publisher, check its registered sums, and prepare it under `root`."""
    # The prepared copies that TFDS offers elsewhere are checked by no SHA-256, so they are not asked for.
    config = tfds.download.DownloadConfig(try_download_gcs=False)
    tfds.builder(name, data_dir=root).download_and_prepare(download_config=config)


def main() -> int:
    """Run `read FOLDER TARGET` or `download NAME ROOT`."""
    command, *arguments = sys.argv[1:]
    try:
        {"read": read, "download": download}[command](*arguments)
    except Exception as error:  # whatever TFDS, TensorFlow or the network raise, the caller gets it as one line
        reason = " ".join(str(error).split())[:300]
        print(f"{REASON}{type(error).__name__}: {reason}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
