"""Orders that are drawn by lot, and can be drawn again."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt


def permutation(seeds: np.random.SeedSequence, size: int) -> npt.NDArray[np.int64]:
    """A permutation of range(size), int64 [size]: a pure function of its arguments.

    It is drawn from the raw stream of a NumPy bit generator, which NumPy promises not to change (NEP 19); its
    `permutation` carries no such promise.
    """
    return np.argsort(np.random.PCG64(seeds).random_raw(size), kind="stable").astype(np.int64)


def epoch_order(seed: int, epoch: int, size: int) -> npt.NDArray[np.int64]:
    """The order in which an epoch sees the training images: a permutation of range(size), int64 [size].

    It is a pure function of its arguments, so that resuming repeats it.

    Args:
        seed: the run's, 0 or more.
        epoch: counted from 0.
        size: the number of training images.
    """
    return permutation(np.random.SeedSequence([seed, epoch]), size)
