"""Disks that are full or read-only, and folders that vanish: real file systems, and what remains on them."""

import errno
import resource
import shutil
import subprocess

import keras
import pytest

from lenet_keras import train
from lenet_keras.checkpoint import StateStore
from lenet_keras.errors import ExportError, NotARunFolder
from lenet_keras.export.publish import export_run
from lenet_keras.files import is_temporary
from lenet_keras.inference.saved_model import open_saved_model
from lenet_keras.runs import RunFolder

from .comparison import assert_same_run, config

SETTINGS = {"early_stopping": 3, "histograms": True}  # both make the files larger


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """An uninterrupted run."""
    run_dir = tmp_path_factory.mktemp("whole") / "run"
    train(config(**SETTINGS), run_dir)
    return run_dir


def unfinished(run_dir):
    return [path for path in run_dir.rglob("*") if is_temporary(path)]


class At(keras.callbacks.Callback):
    """Does something at the end of the training or of an epoch (counted from 0)."""

    def __init__(self, action, epoch=None):
        super().__init__()
        self.action = action
        self.epoch = epoch

    def on_epoch_end(self, epoch, logs=None):
        if epoch == self.epoch:
            self.action()

    def on_train_end(self, logs=None):
        if self.epoch is None:
            self.action()


def test_a_full_disk_costs_only_what_was_not_saved_yet(small_disk, whole):
    """It grows each time, so that the training ends at one place after another."""
    run_dir = small_disk("size=4k") / "run"
    for kilobytes, name, epochs in [
        (4, "config.json", 0), (12, "train", 0), (24, "validation", 0), (300, "state.npz", 0),
        (1500, "state.npz", 1), (2600, "state.npz", 2),
    ]:  # fmt: skip
        small_disk("remount", f"size={kilobytes}k")
        with pytest.raises(OSError, match="No space left on device") as failed:
            train(config(**SETTINGS), run_dir, resume="auto")
        assert failed.value.errno == errno.ENOSPC
        assert failed.value.filename == str(run_dir / name), f"{kilobytes} KB"
        assert unfinished(run_dir) == []
        state = StateStore(run_dir).read()
        assert (0 if state is None else len(state.history)) == epochs, f"{kilobytes} KB"

    small_disk("remount", "size=8m")
    train(config(**SETTINGS), run_dir, resume="auto")
    assert_same_run(run_dir, whole)


def test_a_disk_without_any_room_is_named(small_disk):
    disk = small_disk("size=4k")
    (disk / "filler").write_bytes(bytes(4096))
    with pytest.raises(OSError, match="No space left on device") as failed:
        train(config(), disk / "run")
    assert failed.value.filename == str(disk / "run" / ".lock")


@pytest.mark.parametrize(("kilobytes_left", "name"), [(0, "test_predictions.npz"), (400, "model.keras")])
def test_a_disk_that_is_full_after_the_last_epoch_keeps_the_training(small_disk, whole, kilobytes_left, name):
    disk = small_disk("size=8m")

    def fill():
        (disk / "filler").write_bytes(bytes(shutil.disk_usage(disk).free - 1024 * kilobytes_left))

    with pytest.raises(OSError, match="No space left on device") as failed:
        train(config(**SETTINGS), disk / "run", callbacks=[At(fill)])
    assert failed.value.errno == errno.ENOSPC
    assert failed.value.filename == str(disk / "run" / name)
    assert unfinished(disk / "run") == []
    assert not RunFolder(disk / "run").is_finished
    assert len(StateStore(disk / "run").read().history) == 3
    (disk / "filler").unlink()
    train(config(**SETTINGS), disk / "run", resume=True)
    assert_same_run(disk / "run", whole)


def test_a_disk_that_becomes_read_only_keeps_what_was_saved(small_disk, whole):
    run_dir = small_disk("size=8m") / "run"

    def make_read_only():
        # The disk itself cannot be: TensorBoard's files are open in it.
        subprocess.run(["mount", "-o", "bind,ro", run_dir, run_dir], check=True)

    with pytest.raises(OSError, match="Read-only file system") as failed:
        train(config(**SETTINGS), run_dir, callbacks=[At(make_read_only, epoch=1)])
    assert failed.value.errno == errno.EROFS
    assert failed.value.filename == str(run_dir / "state.npz")
    with pytest.raises(OSError, match="Read-only file system") as failed:
        train(config(**SETTINGS), run_dir, resume=True)
    assert failed.value.filename == str(run_dir / ".lock")
    assert unfinished(run_dir) == []
    assert len(StateStore(run_dir).read().history) == 1

    subprocess.run(["umount", run_dir], check=True)
    train(config(**SETTINGS), run_dir, resume=True)
    assert_same_run(run_dir, whole)


def test_a_disk_without_room_for_an_export_keeps_the_existing_version(small_disk, whole):
    disk = small_disk("size=8m")
    shutil.copytree(whole, disk.parent / "run")
    version = export_run(disk.parent / "run", disk)
    small_disk("remount", f"size={shutil.disk_usage(disk).used + 200_000}")
    with pytest.raises(ExportError, match=f"cannot export to {version.parent}: .*No space left on device"):
        export_run(disk.parent / "run", disk)
    assert sorted(path.name for path in version.parent.iterdir() if path.name != "README.md") == ["1"]
    assert open_saved_model(version.parent).path == version


def test_a_file_that_may_grow_no_further_keeps_what_was_saved(tmp_path, whole):
    """The same without the right to mount: a limit on the size of a file."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)

    def limit():
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))

    try:
        with pytest.raises(OSError, match="File too large") as failed:
            train(config(**SETTINGS), tmp_path / "run", callbacks=[At(limit, epoch=1)])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert failed.value.filename == str(tmp_path / "run" / "state.npz")
    assert unfinished(tmp_path / "run") == []
    assert len(StateStore(tmp_path / "run").read().history) == 1
    train(config(**SETTINGS), tmp_path / "run", resume=True)
    assert_same_run(tmp_path / "run", whole)


def test_a_folder_that_vanishes_is_named_and_not_created_again(tmp_path):
    run_dir = tmp_path / "runs" / "run"
    with pytest.raises(FileNotFoundError) as failed:
        train(config(), run_dir, callbacks=[At(lambda: shutil.rmtree(run_dir), epoch=1)])
    assert failed.value.filename == str(run_dir / "state.npz")
    assert not run_dir.exists()


def test_a_folder_that_vanishes_after_the_last_epoch_is_not_created_again(tmp_path):
    run_dir = tmp_path / "runs" / "run"
    with pytest.raises(FileNotFoundError) as failed:
        train(config(), run_dir, callbacks=[At(lambda: shutil.rmtree(run_dir))])
    assert failed.value.filename == str(run_dir / "test_predictions.npz")
    assert not run_dir.exists()


def test_a_folder_that_vanishes_before_its_first_events_is_not_created_again(tmp_path, whole):
    run_dir = tmp_path / "runs" / "run"
    vanish = keras.callbacks.LambdaCallback(on_epoch_begin=lambda epoch, logs: shutil.rmtree(run_dir))
    with pytest.raises(FileNotFoundError) as failed:
        train(config(), run_dir, callbacks=[vanish])
    assert failed.value.filename == str(run_dir / "validation")
    assert not run_dir.exists()

    shutil.copytree(whole, run_dir)
    with pytest.raises(FileNotFoundError) as failed:
        train(config(**SETTINGS, epochs=4), run_dir, resume=True, callbacks=[vanish])
    assert failed.value.filename == str(run_dir / "train")
    assert not run_dir.exists()


def test_a_run_folder_that_is_a_file_is_not_a_run(tmp_path):
    (tmp_path / "run").write_text("a file")
    with pytest.raises(NotARunFolder, match="is not a run folder"):
        train(config(), tmp_path / "run")
    with pytest.raises(OSError, match="Not a directory"):
        train(config(), tmp_path / "run" / "inside")
    assert [path.name for path in tmp_path.iterdir()] == ["run"]
