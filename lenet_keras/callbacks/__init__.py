"""What TensorBoard shows of a run: curves while it trains, and a report on the test images at its end."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lenet_keras.lazy import lazy_names

if TYPE_CHECKING:
    from lenet_keras.callbacks.epoch_log import EpochLog
    from lenet_keras.callbacks.report import write_test_report

__all__ = ["EpochLog", "write_test_report"]

__getattr__ = lazy_names(__name__, {"epoch_log": ["EpochLog"], "report": ["write_test_report"]})
