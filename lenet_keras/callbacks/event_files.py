"""TensorBoard's event files in one folder: which there are, and how a later process takes up where one was killed."""

from __future__ import annotations

import contextlib
import errno
import os
import time
from collections.abc import Iterator
from pathlib import Path

import tensorflow as tf

from lenet_keras.errors import first_line

_FRAME = 16  # bytes of a TFRecord beside its content: a length of 8, and two checksums of 4


_ERRNO = {
    tf.errors.ResourceExhaustedError: errno.ENOSPC,
    tf.errors.PermissionDeniedError: errno.EACCES,
    tf.errors.NotFoundError: errno.ENOENT,
}


@contextlib.contextmanager
def writing_to(folder: Path) -> Iterator[None]:
    """Raise what TensorFlow raises when it cannot write events to `folder` as the `OSError` that it was."""
    try:
        yield
    except tf.errors.OpError as error:
        # "{{node}} PATH; No space left on device", and further lines.
        cause = first_line(error).rpartition("; ")[2]
        raise OSError(_ERRNO.get(type(error), errno.EIO), cause, str(folder)) from error


def event_files(folder: Path) -> list[Path]:
    """Return the event files in `folder` in the order in which TensorBoard reads them: by name, which starts with the
    second in which each was opened.
    """
    return sorted(folder.glob("events.out.tfevents.*"))


def discard_from(folder: Path, step: int) -> None:
    """Cut from the files in `folder` what they say of `step` and later steps, and what a killed process left half
    written. Call it before opening a new file there.

    A process that was killed may have logged an epoch that the resumed one trains again. TensorFlow's own word for
    "forget what came before", a session log of status START, is heeded by TensorBoard's server but not by its
    `EventAccumulator`, with which scripts read logs. A file's steps only grow, so its end is cut off and no more.
    """
    for file in event_files(folder):
        kept = 0
        with contextlib.suppress(tf.errors.DataLossError):  # the last record is not whole
            for record in tf.data.TFRecordDataset(str(file)).as_numpy_iterator():
                if tf.compat.v1.Event.FromString(record).step >= step:
                    break
                kept += len(record) + _FRAME
        if kept:
            os.truncate(file, kept)
        else:
            file.unlink()
    if left := event_files(folder):
        # Two files of one second might be read in the wrong order.
        opened = int(left[-1].name.split(".")[3])
        time.sleep(min(1.0, max(0.0, opened + 1 - time.time())))
