"""Examples in memory, in an order that does not depend on their source, and the permutations that training draws."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from lenet_keras.data.catalogue import IMAGE_SHAPE, DatasetSpec
from lenet_keras.errors import DatasetDamaged, check_integer


@dataclass(frozen=True, eq=False)
class Split:
    """Examples.

    Attributes:
        images: uint8 [N, 28, 28, 1], 0 is the black background, 255 the brightest ink.
        labels: int64 [N], indices into the dataset's class names.
    """

    images: npt.NDArray[np.uint8]
    labels: npt.NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True, eq=False)
class Dataset:
    """A dataset in memory; `source` says in a few words where it was read from."""

    spec: DatasetSpec
    train: Split
    test: Split
    source: str


def hold_out(split: Split, validation: int, seed: int) -> tuple[Split, Split]:
    """Hold `validation` examples out of `split`; return (the rest, those held out), each in the order of `split`.

    Which ones depends on the seed and the number of examples alone.

    >>> train, validation = hold_out(Split(np.zeros((5, 28, 28, 1), np.uint8), np.arange(5)), 2, seed=0)
    >>> len(train), len(validation)
    (3, 2)

    Raises:
        InvalidArgument: `validation` is negative or leaves nothing to train on, or the seed is negative.
    """
    check_integer("validation", validation, 0, len(split) - 1)
    check_integer("seed", seed, 0)
    held = np.zeros(len(split), dtype=bool)
    # A spawned child of the seed: `epoch_order` draws from the seed itself.
    held[permutation(np.random.SeedSequence(seed, spawn_key=(0,)), len(split))[:validation]] = True
    return Split(split.images[~held], split.labels[~held]), Split(split.images[held], split.labels[held])


def epoch_order(seed: int, epoch: int, size: int) -> npt.NDArray[np.int64]:
    """Return the order in which an epoch sees the training images: a permutation of range(size), int64 [size].

    It depends on the arguments alone, so that a resumed run repeats it.

    >>> epoch_order(seed=0, epoch=1, size=5).tolist()
    [4, 1, 2, 0, 3]

    Args:
        seed: the run's, 0 or more.
        epoch: counted from 0.
        size: the number of training images.
    """
    return permutation(np.random.SeedSequence([seed, epoch]), size)


def permutation(seeds: np.random.SeedSequence, size: int) -> npt.NDArray[np.int64]:
    """Return a reproducible random permutation of range(size), int64 [size].

    It is drawn from the raw stream of a NumPy bit generator, which NumPy promises not to change (NEP 19); NumPy's own
    `permutation` carries no such promise.

    >>> permutation(np.random.SeedSequence(0), 5).tolist()
    [3, 2, 1, 0, 4]
    """
    return np.argsort(np.random.PCG64(seeds).random_raw(size), kind="stable").astype(np.int64)


def checked_splits(
    spec: DatasetSpec,
    stored: Mapping[str, tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]]],
    where: str,
    remedy: str,
) -> dict[str, Split]:
    """Return the splits as every caller gets them: checked, upright, labels from 0, in canonical order.

    >>> from lenet_keras.data.catalogue import dataset_spec
    >>> stored = {"test": (np.zeros((1, 28, 28), np.uint8), np.zeros(1, np.uint8))}
    >>> checked_splits(dataset_spec("mnist"), stored, "x", "replace it")
    Traceback (most recent call last):
    lenet_keras.errors.DatasetDamaged: x: mnist test images: expected (10000, 28, 28), found (1, 28, 28); replace it.

    Args:
        spec: the dataset that the examples are supposed to be.
        stored: (images uint8 [N, 28, 28], labels uint8 [N]) as stored, by the name of the split, "train" or "test".
        where: the folder they were read from, for the message.
        remedy: what to do if they are wrong, for the message.

    Raises:
        DatasetDamaged: number, size, labels or contents are not those of the dataset.
    """
    return {
        split: _checked_split(spec, split, images, labels, where, remedy) for split, (images, labels) in stored.items()
    }


def canonical_order(images: npt.NDArray[np.uint8], labels: npt.NDArray[np.uint8]) -> tuple[npt.NDArray[np.intp], str]:
    """Return an order of the examples that depends on their contents alone, and a digest of all of them.

    TFDS shuffles when it prepares a dataset, while IDX files keep the publisher's order; sorted by a digest of each
    example, the two are equal, so one seed gives the same training whatever the source. Equal digests mean equal
    examples.

    >>> images, labels = np.arange(4, dtype=np.uint8).reshape(4, 1, 1), np.zeros(4, np.uint8)
    >>> order, content = canonical_order(images, labels)
    >>> content == canonical_order(images[::-1], labels)[1]
    True

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


def _checked_split(
    spec: DatasetSpec,
    split: str,
    images: npt.NDArray[np.uint8],
    labels: npt.NDArray[np.uint8],
    where: str,
    remedy: str,
) -> Split:
    def expect(what: str, expected: object, found: object) -> None:
        if found != expected:
            raise DatasetDamaged(f"{where}: {spec.name} {split} {what}: expected {expected}, found {found}; {remedy}.")

    size = spec.train_size if split == "train" else spec.test_size
    expect("images", (size, *IMAGE_SHAPE[:2]), images.shape)
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
