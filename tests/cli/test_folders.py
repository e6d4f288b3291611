"""Folders without permission and full disks, as a user of the command meets them."""

import os
import re
import shutil
import subprocess

import pytest

RUN = "runs/fashion_mnist_sample/weight_decay/0"
# Root may do everything; without these two capabilities permissions hold for root too.
AS_ANYBODY = ["setpriv", "--bounding-set=-dac_override,-dac_read_search"] if os.geteuid() == 0 else []

pytestmark = pytest.mark.skipif(
    bool(AS_ANYBODY) and shutil.which("setpriv") is None, reason="needs setpriv to take root's rights away"
)


@pytest.fixture
def command(lenet_keras):
    """Call the command as somebody for whom permissions hold."""

    def call(*arguments, cwd):
        return subprocess.run(
            [*AS_ANYBODY, lenet_keras, *arguments], cwd=cwd, capture_output=True, text=True, check=False
        )

    return call


@pytest.fixture
def read_only(tmp_path, trained):
    """A copy of a run and its export that nobody may write to."""
    work = shutil.copytree(trained[0], tmp_path / "work")
    folders = [path for path in (work, *work.rglob("*")) if path.is_dir()]
    for folder in folders:
        folder.chmod(0o555)
    yield work
    for folder in folders:
        folder.chmod(0o755)


def assert_refused(process, path):
    assert process.returncode == 1
    last = process.stderr.splitlines()[-1]
    assert last.startswith("Error: ")
    assert path in last
    assert "Permission denied" in last
    assert "Traceback" not in process.stderr


def test_a_training_that_may_not_write_names_the_folder(command, read_only):
    new = command("train", "--dataset", "fashion_mnist_sample", "--run-dir", "new", cwd=read_only)
    assert_refused(new, "new")
    more = command(
        "train", "--dataset", "fashion_mnist_sample", "--reg", "weight_decay", "--epochs", "3", "--resume",
        cwd=read_only,
    )  # fmt: skip
    assert_refused(more, RUN)


def test_an_export_that_may_not_write_names_the_folder(command, read_only):
    process = command("export", RUN, cwd=read_only)
    assert_refused(process, "exported_models/lenet5_weight_decay_fashion_mnist_sample")


def test_what_only_reads_needs_no_permission_to_write(command, read_only):
    evaluated = command("evaluate", RUN, cwd=read_only)
    assert evaluated.returncode == 0, evaluated.stderr


def test_a_full_disk_is_one_line_and_how_to_go_on(lenet_keras, tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1500k", "tmpfs", disk], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("mounting is not permitted here")
    try:
        process = subprocess.run(
            [lenet_keras, "train", "--dataset", "fashion_mnist_sample", "--early-stopping", "3",
             "--run-dir", "disk/run"],
            cwd=tmp_path, capture_output=True, text=True, check=False,
        )  # fmt: skip
    finally:
        subprocess.run(["umount", "--lazy", disk], check=True)
    assert process.returncode == 1
    advice, error = process.stderr.splitlines()[-2:]
    assert error == "Error: disk/run/state.npz: No space left on device"
    assert re.search(r"What was trained is kept\. Continue with: lenet-keras train .* --resume$", advice)
    assert "Traceback" not in process.stderr
