"""Files and folders that appear complete or not at all, also when the writer is killed."""

import errno
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from lenet_keras import files
from lenet_keras.files import creating_folder, read_bounded, remove_temporary, replacing, write_atomically


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_file_is_replaced(tmp_path):
    path = tmp_path / "a.json"
    write_atomically(path, b"one")
    write_atomically(path, b"two")
    assert path.read_bytes() == b"two"
    assert names(tmp_path) == ["a.json"]


@pytest.mark.parametrize("size", [0, 1, 2**20, 2**20 + 1])
def test_a_file_is_read_up_to_its_limit(tmp_path, size):
    path = tmp_path / "a"
    path.write_bytes(b"x" * size)
    assert read_bounded(path, size) == b"x" * size
    if size:
        with pytest.raises(OSError, match="File larger than") as refused:
            read_bounded(path, size - 1)
        assert (refused.value.errno, refused.value.filename) == (errno.EFBIG, str(path))


def test_a_pipe_is_read_where_it_is_welcome_and_up_to_the_limit(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    # Opened for both, it waits for nobody, and has a writer.
    with os.fdopen(os.open(tmp_path / "pipe", os.O_RDWR), "wb", buffering=0) as writer:
        writer.write(b"x" * 1000)
        with pytest.raises(OSError, match="Not a regular file"):
            read_bounded(tmp_path / "pipe", 1000)
        with pytest.raises(OSError, match="File larger than 999 bytes"):
            read_bounded(tmp_path / "pipe", 999, pipes=True)
    with pytest.raises(OSError, match="Not a regular file") as refused:
        read_bounded(tmp_path / "pipe", 1000, pipes=True)  # now nobody writes to it
    assert refused.value.errno == errno.EINVAL


def test_a_pipe_is_read_to_its_end_however_slowly_it_is_written():
    content = os.urandom(2**22)  # a pipe holds 64 KiB: both ends wait for each other
    reader, writer = os.pipe()

    def write():
        with os.fdopen(writer, "wb") as file:
            file.write(content)

    with ThreadPoolExecutor(1) as pool, os.fdopen(reader):
        pool.submit(write)
        assert read_bounded(Path(f"/dev/fd/{reader}"), 2**22, pipes=True) == content


def test_a_folder_that_has_vanished_is_not_created_again(tmp_path):
    path = tmp_path / "gone" / "a.json"
    with pytest.raises(FileNotFoundError) as refused:
        write_atomically(path, b"one")
    assert refused.value.filename == str(path)
    assert names(tmp_path) == []


def test_what_killed_writers_left_is_removed_and_nothing_else(tmp_path):
    for name in (".0123abcd.state.npz", ".0123abc.state.npz", ".lock", "state.npz", ".git"):
        (tmp_path / name).touch()
    (tmp_path / ".deadbeef.export" / "variables").mkdir(parents=True)
    (tmp_path / ".0123abcd.diary").touch()
    remove_temporary(tmp_path, {"state.npz", "export"}, seconds=3600)
    assert len(names(tmp_path)) == 7  # a writer may be at work
    remove_temporary(tmp_path, {"state.npz", "export"})
    assert names(tmp_path) == [".0123abc.state.npz", ".0123abcd.diary", ".git", ".lock", "state.npz"]


def test_creating_a_folder_removes_what_was_abandoned_long_ago(tmp_path):
    hours_ago = time.time() - 7200
    for name in (".0123abcd.set", ".4567abcd.set", ".0123abcd.diary"):
        (tmp_path / name).mkdir()
        os.utime(tmp_path / name, (hours_ago, hours_ago))
    (tmp_path / ".4567abcd.set" / "now").touch()
    with creating_folder(tmp_path / "set"):
        pass
    assert names(tmp_path) == [".0123abcd.diary", ".4567abcd.set", "set"]


def test_a_failure_leaves_the_old_file(tmp_path):
    path = tmp_path / "a.keras"
    write_atomically(path, b"old")
    with pytest.raises(RuntimeError), replacing(path) as temporary:
        assert temporary.suffix == ".keras"
        temporary.write_bytes(b"half")
        raise RuntimeError
    assert path.read_bytes() == b"old"
    assert names(tmp_path) == ["a.keras"]


def test_a_file_has_the_permissions_of_any_other(tmp_path):
    write_atomically(tmp_path / "a", b"")
    (tmp_path / "b").write_bytes(b"")
    assert (tmp_path / "a").stat().st_mode == (tmp_path / "b").stat().st_mode


def test_a_folder_appears_when_it_is_complete(tmp_path):
    target = tmp_path / "cache" / "set"
    with creating_folder(target) as temporary:
        (temporary / "file").write_bytes(b"x")
        assert not target.exists()
        assert temporary.name.startswith(".")
    assert names(target) == ["file"]
    assert names(target.parent) == ["set"]


def test_a_failed_folder_leaves_nothing(tmp_path):
    with pytest.raises(KeyboardInterrupt), creating_folder(tmp_path / "set") as temporary:
        (temporary / "file").write_bytes(b"x")
        raise KeyboardInterrupt
    assert names(tmp_path) == []


def test_an_existing_folder_is_not_touched(tmp_path):
    (tmp_path / "set").mkdir()
    with pytest.raises(FileExistsError), creating_folder(tmp_path / "set"):
        pass
    assert names(tmp_path) == ["set"]


def test_a_killed_writer_leaves_the_old_file(tmp_path):
    path = tmp_path / "state"
    path.write_bytes(b"old")
    program = f"""
import os, signal
from pathlib import Path
from lenet_keras.files import replacing
with replacing(Path({str(path)!r})) as temporary:
    temporary.write_bytes(b"new")
    os.kill(os.getpid(), signal.SIGKILL)
"""
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == -9
    assert path.read_bytes() == b"old"


@pytest.fixture
def failing_sync(monkeypatch):
    """Make the operating system refuse to sync folders, with an error number."""
    monkeypatch.setattr(files, "_warned", set())
    sync = os.fsync

    def fail_with(number):
        def refuse(descriptor):
            if os.path.isdir(f"/proc/self/fd/{descriptor}"):  # noqa: PTH112
                raise OSError(number, os.strerror(number))
            sync(descriptor)

        monkeypatch.setattr(os, "fsync", refuse)

    return fail_with


@pytest.mark.parametrize("number", [errno.EINVAL, errno.EBADF, errno.EACCES, errno.ENOTSUP, errno.ENOSYS])
def test_a_file_system_that_cannot_sync_folders_is_warned_of_once(tmp_path, failing_sync, caplog, number):
    failing_sync(number)
    for name in ("a", "b"):
        write_atomically(tmp_path / name, b"content")
    with creating_folder(tmp_path / "new" / "folder"):
        pass
    assert names(tmp_path) == ["a", "b", "new"]
    (warning,) = caplog.messages
    assert warning.startswith(f"{tmp_path}: {os.strerror(number)}. ")


@pytest.mark.parametrize("number", [errno.EIO, errno.ENOSPC, errno.EDQUOT])
def test_a_sync_that_fails_names_the_folder(tmp_path, failing_sync, number):
    failing_sync(number)
    with pytest.raises(OSError, match=os.strerror(number)) as failed:
        write_atomically(tmp_path / "a", b"content")
    assert (failed.value.errno, failed.value.filename) == (number, str(tmp_path))
