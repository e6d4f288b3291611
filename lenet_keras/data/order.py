"""The order in which an epoch sees the training images."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt


def epoch_order(seed: int, epoch: int, size: int) -> npt.NDArray[np.int64]:
    """A permutation of range(size), int64 [size]: a pure function of its arguments, so that resuming repeats it.

    It is drawn from the raw stream of a NumPy bit generator, which NumPy promises not to change (NEP 19); its
    `permutation` carries no such promise.

    Args:
        seed: the run's, 0 or more.
        epoch: counted from 0.
        size: the number of training images.
    """
    lottery = np.random.PCG64(np.random.SeedSequence([seed, epoch])).random_raw(size)
    return np.argsort(lottery, kind="stable").astype(np.int64)
