"""Folders without permission and full disks, as a user of the command meets them."""

import os
import re
import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

RUN = "runs/fashion_mnist_sample/weight_decay/0"
# Root may do everything; without these two capabilities permissions hold for root too.
AS_ANYBODY = ["setpriv", "--bounding-set=-dac_override,-dac_read_search"] if os.geteuid() == 0 else []

pytestmark = pytest.mark.skipif(
    bool(AS_ANYBODY) and shutil.which("setpriv") is None, reason="needs setpriv to take root's rights away"
)


@pytest.fixture(scope="module")
def read_only(trained, tmp_path_factory):
    """Return a copy of a run and its export, and an image, in folders that nobody may write to."""
    work = shutil.copytree(trained[0], tmp_path_factory.mktemp("read_only") / "work")
    Image.fromarray(np.zeros((28, 28), np.uint8)).save(work / "image.png")
    folders = [path for path in (work, *work.rglob("*")) if path.is_dir()]
    for folder in folders:
        folder.chmod(0o555)
    yield work
    for folder in folders:
        folder.chmod(0o755)


@pytest.fixture(scope="module")
def processes(lenet_keras, read_only):
    """Return finished commands by name, run there by a user for whom permissions hold."""
    sample = ["train", "--dataset", "fashion_mnist_sample"]
    lines = {
        "train": [*sample, "--run-dir", "new"],
        "resume": [*sample, "--reg", "weight_decay", "--epochs", "3", "--resume"],
        "export": ["export", RUN],
        "evaluate": ["evaluate", RUN],
        "predict": ["predict", "image.png"],
    }

    def finished(words):
        return subprocess.run(
            [*AS_ANYBODY, lenet_keras, *words], cwd=read_only, capture_output=True, text=True, check=False
        )

    with ThreadPoolExecutor(2) as pool:  # most of their time they import TensorFlow
        return dict(zip(lines, pool.map(finished, lines.values()), strict=True))


def contents(folder):
    """Return the files in a folder by path, except for the lock, whose text is only for people."""
    return {
        path.relative_to(folder): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.name != ".lock"
    }


@pytest.mark.parametrize(
    ("name", "path"),
    [("train", "new"), ("resume", RUN), ("export", "exported_models/lenet5_weight_decay_fashion_mnist_sample")],
)
def test_commands_that_may_not_write_name_the_folder(processes, name, path):
    process = processes[name]
    assert process.returncode == 1
    assert process.stderr.count("Error") == 1
    last = process.stderr.splitlines()[-1]
    assert last.startswith("Error: ")
    assert path in last
    assert "Permission denied" in last
    assert "Traceback" not in process.stderr


@pytest.mark.usefixtures("processes")
def test_existing_files_stay_as_they_were(read_only, trained):
    found = contents(read_only)
    del found[Path("image.png")]
    assert found == contents(trained[0])


@pytest.mark.parametrize("name", ["evaluate", "predict"])
def test_commands_that_only_read_need_no_permission_to_write(processes, name):
    assert processes[name].returncode == 0, processes[name].stderr


def test_a_full_disk_is_one_line_and_how_to_continue(lenet_keras, tmp_path):
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
    assert re.search(r"The progress so far is kept\. Continue with: lenet-keras train .* --resume$", advice)
    assert "Traceback" not in process.stderr
