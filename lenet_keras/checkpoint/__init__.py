"""The state of a training: captured, written so that a damaged file costs one state and not the run, restored exactly.

Knows of variables and files, not of models or loops, and needs no TensorFlow to be read.
"""

from lenet_keras.checkpoint.archive import decode, encode
from lenet_keras.checkpoint.state import EpochProgress, TrainingState, capture, restore
from lenet_keras.checkpoint.store import StateStore

__all__ = ["EpochProgress", "StateStore", "TrainingState", "capture", "decode", "encode", "restore"]
