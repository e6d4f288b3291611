"""What a model's logits say of it. NumPy only, in float64."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt


def softmax(logits: npt.NDArray[np.floating[Any]]) -> npt.NDArray[np.float64]:
    """Probabilities float64 [N, classes] of logits [N, classes]."""
    shifted = logits.astype(np.float64) - logits.max(axis=-1, keepdims=True)
    exponentials = np.exp(shifted)
    return np.asarray(exponentials / exponentials.sum(axis=-1, keepdims=True))


def loss_and_accuracy(logits: npt.NDArray[np.floating[Any]], labels: npt.NDArray[np.int64]) -> dict[str, float]:
    """{"loss": mean cross-entropy in nats, "accuracy": fraction of right classes} over [N, classes] and [N], N >= 1."""
    wide = logits.astype(np.float64)
    top = wide.max(axis=-1)
    with np.errstate(invalid="ignore"):  # infinite logits have a loss of NaN, which the caller looks at
        normaliser = top + np.log(np.exp(wide - top[:, None]).sum(axis=-1))
        losses = normaliser - wide[np.arange(len(labels)), labels]
    return {"loss": float(losses.mean()), "accuracy": float((wide.argmax(axis=-1) == labels).mean())}
