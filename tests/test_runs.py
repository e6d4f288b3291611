"""A run folder: what is one, what is removed from it, and its lock, between real processes."""

import errno
import json
import os
import signal
import subprocess
import sys

import pytest
from filelock import lock_descriptor

from lenet_keras import files
from lenet_keras.config import TrainConfig
from lenet_keras.errors import LenetKerasError, NotARunFolder, RunExists, RunInUse, RunNotFound
from lenet_keras.runs import RunFolder

HOLDER = """
import sys
from pathlib import Path
from lenet_keras.runs import RunFolder
with RunFolder(Path(sys.argv[1])).locked():
    print("held", flush=True)
    sys.stdin.readline()
"""


def hold(folder):
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, folder], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "held\n"
    return process


def end(process):
    process.stdin.close()
    process.stdout.close()
    process.wait()


def test_a_second_process_is_rejected_with_the_name_of_the_holder(tmp_path):
    first = hold(tmp_path)
    with pytest.raises(RunInUse) as refused, RunFolder(tmp_path).locked():
        pass
    assert str(refused.value).startswith(f"{tmp_path} is in use by process {first.pid} on ")
    assert "\n" not in str(refused.value)
    end(first)
    with RunFolder(tmp_path).locked():
        pass


def test_where_no_run_was_started_nothing_remains(tmp_path):
    folder = RunFolder(tmp_path / "runs" / "fashion_mnist" / "0")
    with pytest.raises(KeyboardInterrupt), folder.locked():
        assert folder.path.is_dir()
        raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == []
    with folder.locked():
        folder.start(TrainConfig(), {})
    assert sorted(path.name for path in folder.path.iterdir()) == [".lock", "config.json"]


def test_a_lock_file_removed_between_opening_and_locking_locks_nothing(tmp_path, monkeypatch):
    """Otherwise two processes could hold the lock, each on a file of its own."""
    lock, attempts = tmp_path / ".lock", []

    def lock_after_removal(descriptor, blocking):
        attempts.append(descriptor)
        if len(attempts) == 1:
            lock.unlink()
        return lock_descriptor(descriptor, blocking=blocking)

    monkeypatch.setattr("lenet_keras.files.lock_descriptor", lock_after_removal)
    with RunFolder(tmp_path).locked():
        assert len(attempts) == 2
        assert lock.read_text().startswith("process ")


def test_a_dead_process_holds_no_lock_and_is_not_named(tmp_path):
    dead = hold(tmp_path)
    dead.send_signal(signal.SIGKILL)
    end(dead)
    living = hold(tmp_path)
    with pytest.raises(RunInUse, match=f"process {living.pid} on"), RunFolder(tmp_path).locked():
        pass
    end(living)


def test_a_released_lock_names_nobody(tmp_path):
    RunFolder(tmp_path).write_config(TrainConfig(), {})
    with RunFolder(tmp_path).locked():
        assert (tmp_path / ".lock").read_text().startswith("process ")
    assert (tmp_path / ".lock").read_text() == ""


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOLCK])
def test_a_file_system_without_locks_is_warned_of_once(tmp_path, monkeypatch, caplog, number):
    def refuse(descriptor, operation):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("fcntl.flock", refuse)
    monkeypatch.setattr(files, "_warned", set())
    for name in ("a", "b"):
        with RunFolder(tmp_path / name).locked():
            RunFolder(tmp_path / name).start(TrainConfig(), {})
    (warning,) = caplog.messages
    assert warning.startswith(f"{tmp_path}/a/.lock: {os.strerror(number)}. ")


@pytest.mark.parametrize("call", ["fcntl.flock", "os.ftruncate", "os.pwrite"])
def test_a_lock_that_fails_names_its_path(tmp_path, monkeypatch, call):
    def fail(*arguments):
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(call, fail)
    with pytest.raises(OSError, match="Input/output error") as failed, RunFolder(tmp_path / "run").locked():
        pass
    assert failed.value.filename == str(tmp_path / "run" / ".lock")
    monkeypatch.undo()
    assert list(tmp_path.iterdir()) == []


def tree(folder):
    """Return everything below a folder, links not followed, with the content of files."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        if path.is_file() and not path.is_symlink()
        else path.lstat().st_mode
        for path in sorted(folder.rglob("*"))
    }


FOREIGN_CONFIGS = {
    "Hugging Face": lambda path: path.write_text('{"architectures": ["BertModel"], "model_type": "bert"}'),
    "no name": lambda path: path.write_text('{"format": 1, "settings": {}}'),
    "no format": lambda path: path.write_text('{"program": "lenet-keras"}'),
    "another name": lambda path: path.write_text('{"program": "lenet", "format": 1}'),
    "not JSON": lambda path: path.write_text("epochs: 5"),
    "a list": lambda path: path.write_text("[1]"),
    "too large": lambda path: path.write_text('{"program": "lenet-keras", "format": 1}' + 2**20 * " "),
    "empty": lambda path: path.touch(),
    "a folder": lambda path: path.mkdir(),
    "a pipe": os.mkfifo,
    "a device": lambda path: path.symlink_to("/dev/zero"),
    "a link to nothing": lambda path: path.symlink_to("nowhere"),
}


@pytest.mark.parametrize("kind", FOREIGN_CONFIGS)
def test_a_folder_with_the_config_of_another_program_is_left_alone(tmp_path, kind):
    FOREIGN_CONFIGS[kind](tmp_path / "config.json")
    for name in ("model.keras", "metrics.json", ".0123abcd.state.npz"):
        (tmp_path / name).write_text("years of work")
    before, folder = tree(tmp_path), RunFolder(tmp_path)
    assert not folder.is_run
    for overwrite in (False, True):
        with pytest.raises(NotARunFolder, match=rf"^{tmp_path} is not .*config\.json"):
            folder.check_vacant(overwrite)
    with pytest.raises(NotARunFolder), folder.locked():
        pass
    with pytest.raises(RunNotFound, match=r"config\.json"):
        folder.read_config()
    assert tree(tmp_path) == before


def test_a_folder_with_other_files_is_left_alone_even_by_the_lock(tmp_path):
    (tmp_path / "notes" / "old").mkdir(parents=True)
    for name in ("notes/old/thesis.tex", ".lock", ".0123abcd.state.npz"):
        (tmp_path / name).write_text("years of work")
    before, folder = tree(tmp_path), RunFolder(tmp_path)
    for call in (lambda: folder.check_vacant(True), folder.locked().__enter__):
        with pytest.raises(NotARunFolder, match=r"it holds (notes/old/thesis\.tex|\.lock)\.$"):
            call()
    assert tree(tmp_path) == before


@pytest.mark.parametrize("name", [".lock", "train"])
def test_a_link_means_something(tmp_path, name):
    (tmp_path / "thesis.tex").write_text("years of work")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / name).symlink_to(tmp_path / "thesis.tex")
    with pytest.raises(NotARunFolder, match=f"it holds {name}"), RunFolder(tmp_path / "run").locked():
        pass
    RunFolder(tmp_path / "run").write_config(TrainConfig(), {})
    with pytest.raises((NotARunFolder, OSError)), RunFolder(tmp_path / "run").locked():
        pass
    assert (tmp_path / "thesis.tex").read_text() == "years of work"


def test_a_vacant_folder_may_hold_what_means_nothing(tmp_path):
    for name in ("lost+found", "train", "data/raw"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "lost+found" / "#12").touch()  # an administrator's business
    for name in (".gitkeep", ".DS_Store", "data/.gitkeep", ".lock", ".0123abcd.config.json"):
        (tmp_path / name).touch()
    folder = RunFolder(tmp_path)
    folder.check_vacant(overwrite=False)
    with folder.locked():
        folder.start(TrainConfig(), {})
    assert folder.is_run
    kept = {".gitkeep", ".DS_Store", "data/.gitkeep", "lost+found/#12"}
    assert {name for name in tree(tmp_path) if not (tmp_path / name).is_dir()} == kept | {".lock", "config.json"}


def test_overwriting_removes_what_a_run_writes_and_nothing_else(tmp_path):
    outside, run_dir = tmp_path / "outside", tmp_path / "run"
    own = ["metrics.json", "history.csv", "state.npz", "state.previous.npz", ".0123abcd.state.npz"]
    own += [f"{name}/events.out.tfevents.1.host.2.v2" for name in ("train", "validation", "test")]
    foreign = [
        "state.npz.bak",
        "notes.txt", "model.h5", ".0123abcd.diary",
        "train/notes.txt", "inner/config.json", "logs/events.out.tfevents.1",
        "tensorboard/events.out.tfevents.1", "validation/inner/events.out.tfevents.1",
    ]  # fmt: skip
    for path in [*(run_dir / name for name in own + foreign), outside / "events.out.tfevents.1", outside / "a.keras"]:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("content")
    (run_dir / "model.keras").symlink_to(outside / "a.keras")
    (run_dir / "weights").symlink_to(outside)
    folder = RunFolder(run_dir)
    folder.write_config(TrainConfig(seed=1), {})
    folder.check_vacant(overwrite=True)
    with folder.locked():
        folder.start(TrainConfig(seed=2), {})
    left = {name for name in tree(run_dir) if not (run_dir / name).is_dir()}
    assert left == {*foreign, "config.json", ".lock"}
    assert not (run_dir / "test").exists()
    assert len(tree(outside)) == 2
    assert folder.read_config().seed == 2


@pytest.mark.parametrize(("name", "create"), [("state.npz", "mkdir"), ("train", "touch")])
def test_what_is_in_the_way_is_named_before_anything_is_removed(tmp_path, name, create):
    folder = RunFolder(tmp_path)
    folder.write_config(TrainConfig(), {})
    folder.write_metrics({})
    getattr(tmp_path / name, create)()
    with pytest.raises(NotARunFolder, match=f"^{tmp_path}/{name} is a "):
        folder.check_vacant(overwrite=True)
    assert folder.is_finished


def test_a_run_of_another_version_is_a_run_and_says_so(tmp_path):
    folder = RunFolder(tmp_path)
    folder.config_json.write_text(json.dumps({"program": "lenet-keras", "format": 99}))
    with pytest.raises(LenetKerasError, match="was written by another version of lenet-keras"):
        folder.read_config()
    with pytest.raises(RunExists, match="unfinished run of another version of lenet-keras"):
        folder.check_vacant(overwrite=False)
    folder.check_vacant(overwrite=True)


def test_a_folder_whose_name_is_not_text_is_refused(tmp_path):
    folder = RunFolder(tmp_path / os.fsdecode(b"\xff"))
    with pytest.raises(LenetKerasError, match="not UTF-8"), folder.locked():
        pass
    assert list(tmp_path.iterdir()) == []
