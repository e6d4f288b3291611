"""TensorBoard's event files in one folder: which there are, and how a later process takes up where one was killed."""

from __future__ import annotations

import time
from pathlib import Path

import tensorflow as tf


def event_files(folder: Path) -> list[Path]:
    """Return the event files in `folder` in the order in which TensorBoard reads them: by name, which starts with the
    time at which each was opened.
    """
    return sorted(folder.glob("events.out.tfevents.*"))


def discard_from(folder: Path, step: int) -> None:
    """Have readers forget what the files now in `folder` say of `step` and later steps.

    A process that was killed may have logged an epoch that the resumed one trains again. TensorFlow's own word for
    this is a session log of status START: TensorBoard's Python reader drops all it has read from that step on, also
    in a server that is running. (Its faster reader in Rust needs no such word: a step written again replaces the
    old one.) Nothing is rewritten, so a process killed here does no harm.
    """
    earlier = event_files(folder)
    if not earlier:
        return
    started = tf.compat.v1.SessionLog(status=tf.compat.v1.SessionLog.START)
    # The name sorts after the earlier files and before those yet to be opened.
    with tf.io.TFRecordWriter(f"{earlier[-1]}.restart") as file:
        for event in (
            tf.compat.v1.Event(wall_time=time.time(), file_version="brain.Event:2"),
            tf.compat.v1.Event(wall_time=time.time(), step=step, session_log=started),
        ):
            file.write(event.SerializeToString())
