"""Images and labels in memory, in an order that does not depend on where they were read from."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from lenet_keras.data.catalogue import DatasetSpec
from lenet_keras.data.order import permutation
from lenet_keras.errors import InvalidArgument, LenetKerasError

_SIDE = 28


@dataclass(frozen=True, eq=False)
class Split:
    """Examples.

    Attributes:
        images: uint8 [N, 28, 28, 1], 0 is the black background, 255 the brightest ink.
        labels: int64 [N], indices into the class names of the data set.
    """

    images: npt.NDArray[np.uint8]
    labels: npt.NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True, eq=False)
class Dataset:
    """A data set in memory; `source` says in a few words where it was read from."""

    spec: DatasetSpec
    train: Split
    test: Split
    source: str


def hold_out(split: Split, validation: int, seed: int) -> tuple[Split, Split]:
    """Hold `validation` examples out of `split`: returns (the rest, those held out), each in the order of `split`.

    Which ones is a function of the seed and the number of examples alone.

    Raises:
        InvalidArgument: `validation` is negative or leaves nothing to train on, or the seed is negative.
    """
    if not 0 <= validation < len(split):
        raise InvalidArgument(
            f"Images held out for validation: received {validation}, "
            f"expected 0 to {len(split) - 1} (the training set has {len(split):,})."
        )
    if seed < 0:
        raise InvalidArgument(f"Seed: received {seed}, expected 0 or more.")
    held = np.zeros(len(split), dtype=bool)
    # A branch of the seed's stream: the order of the first epoch is drawn from the stem.
    held[permutation(np.random.SeedSequence(seed, spawn_key=(0,)), len(split))[:validation]] = True
    return Split(split.images[~held], split.labels[~held]), Split(split.images[held], split.labels[held])


def canonical_order(images: npt.NDArray[np.uint8], labels: npt.NDArray[np.uint8]) -> tuple[npt.NDArray[np.intp], str]:
    """An order of the examples that depends on their contents alone, and a digest of all of them in that order.

    TFDS shuffles when it prepares a set, IDX files keep the publisher's order; sorted by a digest of each example the
    two are equal, so one seed gives one training whatever the source. Equal digests are equal examples.

    Args:
        images: uint8 [N, ...].
        labels: uint8 [N].

    Returns:
        Indices [N], and the SHA-256 (hex) of the sorted 128-bit BLAKE2b digests of image bytes followed by label.
    """
    count = len(labels)
    examples = np.concatenate([images.reshape(count, -1), labels.reshape(count, 1)], axis=1)
    digests = b"".join(hashlib.blake2b(example, digest_size=16).digest() for example in examples)
    keys = np.frombuffer(digests, dtype=">u8").reshape(count, 2)
    order = np.lexsort((keys[:, 1], keys[:, 0]))
    return order, hashlib.sha256(keys[order].tobytes()).hexdigest()


def checked_split(
    spec: DatasetSpec, split: str, images: npt.NDArray[np.uint8], labels: npt.NDArray[np.uint8], where: str, mend: str
) -> Split:
    """The examples as every caller gets them: checked, upright, labels from 0, in canonical order.

    Args:
        spec: the data set they are said to be.
        split: "train" or "test".
        images: uint8 [N, 28, 28] as stored.
        labels: uint8 [N] as stored.
        where: the folder they were read from, for the message.
        mend: what to do if they are wrong, for the message.

    Raises:
        LenetKerasError: number, size, labels or contents are not those of the data set.
    """

    def expect(what: str, expected: object, found: object) -> None:
        if found != expected:
            raise LenetKerasError(f"{where}: {spec.name} {split} {what}: expected {expected}, found {found}; {mend}.")

    size = spec.train_size if split == "train" else spec.test_size
    expect("images", (size, _SIDE, _SIDE), images.shape)
    expect("labels", (size,), labels.shape)
    last = spec.first_label + spec.num_classes - 1
    outside = np.unique(labels[(labels < spec.first_label) | (labels > last)]).tolist()
    expect(f"labels outside {spec.first_label} to {last}", [], outside)

    if spec.transposed:
        images = images.transpose(0, 2, 1)
    labels = labels - np.uint8(spec.first_label)
    order, content = canonical_order(images, labels)
    if spec.content_sha256 is not None:
        expect("contents (SHA-256)", spec.content_sha256[0 if split == "train" else 1], content)
    return Split(images[order][..., np.newaxis], labels[order].astype(np.int64))


def checked_splits(
    spec: DatasetSpec,
    stored: Mapping[str, tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]]],
    where: str,
    mend: str,
) -> dict[str, Split]:
    """`checked_split` of the images and labels of each split in `stored`."""
    return {
        split: checked_split(spec, split, images, labels, where, mend) for split, (images, labels) in stored.items()
    }
