"""The models under version control: those of seed 0 in docs/results, usable right after a clone."""

import csv
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from lenet_keras import evaluate, predict
from lenet_keras.models import REGULARISATIONS
from lenet_keras.serving.embedded.server import running_server

ROOT = Path(__file__).parent.parent.parent
SEED = "0"  # fixed before any of them was trained


@pytest.fixture(scope="module")
def cloned(tmp_path_factory):
    """The folder of exported models as a clone has it: without what git ignores."""
    folder = tmp_path_factory.mktemp("clone") / "exported_models"
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", "exported_models"],
        cwd=ROOT, capture_output=True, check=True,
    )  # fmt: skip
    for name in listed.stdout.decode().rstrip("\0").split("\0"):
        path = folder.parent / name
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / name, path)
    return folder


def test_there_is_one_of_each_variant_below_a_megabyte(cloned):
    assert {path.name for path in cloned.iterdir() if path.is_dir()} == {f"lenet5_{reg}" for reg in REGULARISATIONS}
    for reg in REGULARISATIONS:
        assert sum(path.stat().st_size for path in (cloned / f"lenet5_{reg}").rglob("*") if path.is_file()) < 1_000_000


@pytest.mark.full_data
@pytest.mark.parametrize("reg", REGULARISATIONS)
def test_each_is_as_good_as_its_card_and_the_results_say(cloned, full_dataset, reg):
    with (ROOT / "docs/results/report/results.csv").open(newline="") as file:
        row = next(row for row in csv.DictReader(file) if (row["variant"], row["seed"]) == (reg, SEED))
    card = (cloned / f"lenet5_{reg}" / "README.md").read_text()

    measured = evaluate(cloned / f"lenet5_{reg}", data_dir=full_dataset)

    assert measured["test"]["accuracy"] == pytest.approx(float(row["test_accuracy"]), abs=1e-9)
    loss, accuracy = re.search(r"^\| test \| ([\d.]+) \| ([\d.]+) % \|$", card, re.MULTILINE).groups()
    assert f"{measured['test']['loss']:.4f} {100 * measured['test']['accuracy']:.2f}" == f"{loss} {accuracy}"


def test_each_is_served_and_used_without_training(cloned):
    boot = ROOT / "docs" / "ankle_boot.png"
    with running_server(cloned, 0, 0) as server:
        for reg in REGULARISATIONS:
            (served,) = predict(f"http://{server.host}:{server.rest_port}/v1/models/lenet5_{reg}", [boot])
            (local,) = predict(cloned / f"lenet5_{reg}", [boot])
            assert served.class_name == local.class_name == "Ankle boot"
