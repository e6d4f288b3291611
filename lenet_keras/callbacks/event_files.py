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
    """Have readers forget what the files now in `folder` say of `step` and later steps; then open a new one.

    A process that was killed may have logged an epoch that the resumed one trains again. TensorFlow's own word for
    this is a session log of status START: TensorBoard's reader in Python drops all it has read from that step on, in
    a server that is running too. (Its faster reader in Rust needs no such word: a step written again replaces the
    old one and all after it.) Nothing is rewritten, so a process killed here does no harm.
    """
    earlier = event_files(folder)
    if not earlier:
        return
    # The name sorts after the earlier files and, once the second in which they were opened is over, before new ones.
    opened = int(earlier[-1].name.split(".")[3])
    time.sleep(min(1.0, max(0.0, opened + 1 - time.time())))
    version = tf.compat.v1.Event(wall_time=time.time(), file_version="brain.Event:2")
    start = tf.compat.v1.Event(
        wall_time=time.time(), step=step, session_log=tf.compat.v1.SessionLog(status=tf.compat.v1.SessionLog.START)
    )
    with tf.io.TFRecordWriter(f"{earlier[-1]}.restart") as file:
        # Twice: the first start that a reader meets only opens a session, and what came before it is kept.
        for event in (version, start, start):
            file.write(event.SerializeToString())
