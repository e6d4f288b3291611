from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from lenet_keras.data.arrays import Split, canonical_order, checked_splits, epoch_order, hold_out
from lenet_keras.data.catalogue import DatasetSpec, dataset_spec
from lenet_keras.errors import DatasetDamaged, InvalidArgument


def numbered(count: int) -> Split:
    """Return examples with labels 0, 1, 2..., each also the first pixel of its image."""
    labels = np.arange(count, dtype=np.int64)
    images = np.zeros((count, 28, 28, 1), np.uint8)
    images[:, 0, 0, 0] = labels
    return Split(images, labels)


def test_held_out_examples_and_the_rest_are_all_of_them_once() -> None:
    train, validation = hold_out(numbered(50), 20, seed=3)
    assert (len(train), len(validation)) == (30, 20)
    assert sorted([*train.labels, *validation.labels]) == list(range(50))
    for split in (train, validation):
        np.testing.assert_array_equal(split.images[:, 0, 0, 0], split.labels)
        assert split.images.dtype == np.uint8
        assert split.labels.dtype == np.int64


def test_what_is_held_out_depends_on_the_seed_alone_and_never_changes() -> None:
    # Written down: a training that is repeated after an update must see the same images.
    assert hold_out(numbered(100), 5, seed=11)[1].labels.tolist() == [24, 31, 49, 52, 94]
    again = hold_out(numbered(50), 20, seed=7)[1].labels
    np.testing.assert_array_equal(hold_out(numbered(50), 20, seed=7)[1].labels, again)
    assert hold_out(numbered(50), 20, seed=8)[1].labels.tolist() != again.tolist()


def test_what_is_held_out_is_independent_of_the_order_of_an_epoch() -> None:
    held = hold_out(numbered(50), 20, seed=7)[1].labels
    assert sorted(epoch_order(7, 0, 50)[:20]) != held.tolist()


def test_holding_out_nothing_leaves_everything_in_order() -> None:
    train, validation = hold_out(numbered(5), 0, seed=1)
    assert train.labels.tolist() == [0, 1, 2, 3, 4]
    assert validation.images.shape == (0, 28, 28, 1)
    assert len(validation) == 0


@pytest.mark.parametrize("validation", [-1, 5, 6])
def test_an_impossible_number_to_hold_out_is_rejected(validation: int) -> None:
    with pytest.raises(InvalidArgument, match=rf"validation must be 0 to 4\. Received: {validation}$"):
        hold_out(numbered(5), validation, seed=0)


def test_a_negative_seed_is_rejected() -> None:
    with pytest.raises(InvalidArgument, match=r"seed must be 0 or more\. Received: -1"):
        hold_out(numbered(5), 1, seed=-1)


def test_the_canonical_order_is_the_same_from_any_order() -> None:
    generator = np.random.default_rng(0)
    images = generator.integers(0, 256, (40, 28, 28), np.uint8)
    images[7] = images[3]  # two examples that differ in the label alone
    labels = np.arange(40, dtype=np.uint8) % 10
    order, content = canonical_order(images, labels)
    shuffled = generator.permutation(40)
    other_order, other_content = canonical_order(images[shuffled], labels[shuffled])
    np.testing.assert_array_equal(images[order], images[shuffled][other_order])
    np.testing.assert_array_equal(labels[order], labels[shuffled][other_order])
    assert content == other_content


@pytest.mark.parametrize("change", ["pixel", "label"])
def test_the_content_digest_covers_every_pixel_and_label(change: str) -> None:
    images, labels = np.zeros((3, 28, 28), np.uint8), np.zeros(3, np.uint8)
    before = canonical_order(images, labels)[1]
    (images if change == "pixel" else labels)[(-1,) * (3 if change == "pixel" else 1)] = 1
    assert canonical_order(images, labels)[1] != before


LETTERS = dataclasses.replace(dataset_spec("emnist/letters"), train_size=26)


def letters() -> tuple[np.ndarray, np.ndarray]:
    return np.zeros((26, 28, 28), np.uint8), np.arange(1, 27, dtype=np.uint8)


def test_letters_are_numbered_from_0_to_25() -> None:
    split = checked_splits(LETTERS, {"train": letters()}, "here", "remedy")["train"]
    assert sorted(split.labels) == list(range(26))
    assert split.images.shape == (26, 28, 28, 1)


@pytest.mark.parametrize("label", [0, 27])
def test_a_label_without_a_class_is_an_error(label: int) -> None:
    images, labels = letters()
    labels[4] = label
    with pytest.raises(DatasetDamaged, match=rf"here: .*train labels outside 1 to 26: .*found \[{label}\]; remedy\."):
        checked_splits(LETTERS, {"train": (images, labels)}, "here", "remedy")


def test_a_wrong_number_of_images_is_an_error() -> None:
    images, labels = letters()
    with pytest.raises(DatasetDamaged, match=r"expected \(26, 28, 28\), found \(25, 28, 28\)"):
        checked_splits(LETTERS, {"train": (images[1:], labels[1:])}, "here", "remedy")


def test_contents_of_another_dataset_are_an_error() -> None:
    spec: DatasetSpec = dataclasses.replace(LETTERS, content_sha256=("0" * 64, "1" * 64))
    with pytest.raises(DatasetDamaged, match=r"train contents \(SHA-256\): expected 0000.*, found \w{64}; remedy"):
        checked_splits(spec, {"train": letters()}, "here", "remedy")
