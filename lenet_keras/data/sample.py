"""How the sample in `fashion_mnist_sample/` was made from the full set: `python -m lenet_keras.data.sample FROM TO`.

The rule: of each split, the first 50 images of each of the ten classes in the order of the publisher's files, kept in
that order. A test makes it again and compares the bytes.
"""

from __future__ import annotations

import gzip
import sys
from pathlib import Path

import numpy as np

from lenet_keras.data.catalogue import dataset_spec
from lenet_keras.data.idx import IDX_FILES, idx_bytes, read_idx_folder

_PER_CLASS = 50


def write_sample(full: Path, target: Path) -> None:
    """Write the sample's four IDX .gz files to the folder `target`, from the full set's in `full`."""
    spec = dataset_spec("fashion_mnist")
    for split, (images, labels) in read_idx_folder(full, "get an intact copy", spec.idx_sha256).items():
        first = [np.flatnonzero(labels == label)[:_PER_CLASS] for label in range(spec.num_classes)]
        chosen = np.sort(np.concatenate(first))
        for name, array in zip(IDX_FILES[split], (images[chosen], labels[chosen]), strict=True):
            # Without a time in its header, the file is a function of its contents.
            (target / f"{name}.gz").write_bytes(gzip.compress(idx_bytes(array), mtime=0))


if __name__ == "__main__":
    write_sample(Path(sys.argv[1]), Path(sys.argv[2]))
