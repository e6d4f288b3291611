"""Data sets: what they are called, where they come from, how they are checked, and the split for validation.

The names below are imported on first use, so that `lenet_keras.data.catalogue` stays free of NumPy for whoever only
needs names.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from lenet_keras.lazy import lazy_names

if TYPE_CHECKING:
    from lenet_keras.data.arrays import Dataset, Split, hold_out
    from lenet_keras.data.catalogue import DATASETS, DEFAULT_DATASET, SAMPLE_DATASET, DatasetSpec, dataset_spec
    from lenet_keras.data.sources import Availability, availability, load, prepare

__all__ = [
    "DATASETS",
    "DEFAULT_DATASET",
    "SAMPLE_DATASET",
    "Availability",
    "Dataset",
    "DatasetSpec",
    "Split",
    "availability",
    "dataset_spec",
    "hold_out",
    "load",
    "prepare",
]

__getattr__ = lazy_names(
    __name__,
    {
        "arrays": ["Dataset", "Split", "hold_out"],
        "catalogue": ["DATASETS", "DEFAULT_DATASET", "SAMPLE_DATASET", "DatasetSpec", "dataset_spec"],
        "sources": ["Availability", "availability", "load", "prepare"],
    },
)
