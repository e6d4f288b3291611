"""The export of a run: what goes with a version, and what must hold before there is one."""

import json
import re
import shutil

import pytest

from lenet_keras.errors import InvalidArgument
from lenet_keras.export import ExportError, export_run, load_exported
from lenet_keras.run_folder import RunFolder

NAME = "lenet5_none_fashion_mnist_sample"


@pytest.fixture
def run_dir(tmp_path, sample_run):
    return shutil.copytree(sample_run, tmp_path / "run")


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_version_comes_with_its_card_and_the_servers_configuration(run_dir, tmp_path):
    exports = tmp_path / "exports"
    version = export_run(run_dir, exports)
    assert version == exports / NAME / "1"
    assert names(exports) == ["batching.config", NAME, "models.config", "monitoring.config"]
    assert names(exports / NAME) == ["1", "README.md"]
    assert RunFolder(run_dir).read_metrics()["export"] == str(version)


def test_the_card_tells_data_settings_figures_and_signatures(run_dir, tmp_path):
    version = export_run(run_dir, tmp_path / "exports")
    card = (version.parent / "README.md").read_text()
    metrics = json.loads((run_dir / "metrics.json").read_text())
    for split in ("train", "validation", "test"):
        loss, accuracy = metrics[split]["loss"], 100 * metrics[split]["accuracy"]
        assert f"| {split} | {loss:.4f} | {accuracy:.2f} % |" in card
    for line in (
        "| learning_rate | `0.001` |", "| seed | `7` |", "| 9 | Ankle boot |", "61,706 parameters, 3 epochs",
        "| `encoded` | `image_bytes` string [N] |", "Newest version: 1.",
    ):  # fmt: skip
        assert line in card
    assert card.count("\n## ") == 6
    picture = re.search(r'"b64": "([^"]+)"', card)[1]
    assert picture.startswith("iVBOR")  # a PNG
    assert max(len(line) for line in card.splitlines() if "b64" not in line) < 165


def test_only_the_newest_versions_are_kept_if_asked(run_dir, tmp_path):
    exports = tmp_path / "exports"
    for _ in range(3):
        export_run(run_dir, exports, keep=2)
    assert names(exports / NAME) == ["2", "3", "README.md"]
    assert "Newest version: 3." in (exports / NAME / "README.md").read_text()
    config = (exports / "models.config").read_text()
    assert "versions: 1\n" not in config
    assert "versions: 2\n" in config
    assert load_exported(exports / NAME / "3").class_names[0] == "T-shirt/top"
    with pytest.raises(InvalidArgument, match="keep must be 1 or more"):
        export_run(run_dir, exports, keep=0)


def test_a_run_whose_figures_are_not_its_models_is_not_published(run_dir, tmp_path):
    folder = RunFolder(run_dir)
    metrics = folder.read_metrics()
    metrics["test"]["accuracy"] += 0.01
    folder.write_metrics(metrics)
    with pytest.raises(ExportError, match="accuracy on 500 images is"):
        export_run(run_dir, tmp_path / "exports")
    assert names(tmp_path / "exports" / NAME) == []
