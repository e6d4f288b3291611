"""The export of a run: what is written with a version, and what must hold before it appears."""

import json
import re
import shutil

import pytest

from lenet_keras.errors import ExportError, InvalidArgument
from lenet_keras.export.publish import export_run
from lenet_keras.inference.saved_model import open_saved_model
from lenet_keras.runs import RunFolder

NAME = "lenet5_none_fashion_mnist_sample"


@pytest.fixture(scope="module")
def exported(tmp_path_factory, sample_run):
    """Export a run three times and keep two versions; return the run and the newest version."""
    folder = tmp_path_factory.mktemp("exported")
    run_dir = shutil.copytree(sample_run, folder / "run")
    first = export_run(run_dir, folder / "exports", keep=2)
    shutil.copytree(first, first.parent / "2")  # as good as an export, and quicker
    return run_dir, export_run(run_dir, folder / "exports", keep=2)


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_version_comes_with_its_card_and_the_servers_configuration(exported):
    run_dir, version = exported
    assert version.parts[-3:] == ("exports", NAME, "3")
    assert names(version.parents[1]) == ["batching.config", NAME, "models.config", "monitoring.config"]
    assert RunFolder(run_dir).read_metrics()["export"] == str(version)


def test_the_card_has_data_settings_figures_and_signatures(exported):
    run_dir, version = exported
    card = (version.parent / "README.md").read_text()
    metrics = json.loads((run_dir / "metrics.json").read_text())
    for split in ("train", "validation", "test"):
        loss, accuracy = metrics[split]["loss"], 100 * metrics[split]["accuracy"]
        assert f"| {split} | {loss:.4f} | {accuracy:.2f} % |" in card
    for line in (
        "| learning_rate | `0.001` |", "| seed | `7` |", "| 9 | Ankle boot |", "61,706 parameters, 3 epochs",
        "| `encoded` | `image_bytes` string [N] |", "Newest version: 3.",
    ):  # fmt: skip
        assert line in card
    assert card.count("\n## ") == 6
    encoded = re.search(r'"b64": "([^"]+)"', card)[1]
    assert encoded.startswith("iVBOR")  # a PNG
    assert max(len(line) for line in card.splitlines() if "b64" not in line) < 165


def test_only_the_newest_versions_are_kept_if_requested(exported):
    run_dir, version = exported
    assert names(version.parent) == ["2", "3", "README.md"]
    config = (version.parents[1] / "models.config").read_text()
    assert "versions: 1\n" not in config
    assert "versions: 2\n" in config
    assert open_saved_model(version).class_names[0] == "T-shirt/top"
    with pytest.raises(InvalidArgument, match="keep must be 1 or more"):
        export_run(run_dir, version.parents[1], keep=0)


def test_a_foreign_file_is_refused_before_anything_is_exported(exported, tmp_path):
    run_dir, version = exported
    model_dir = tmp_path / "exports" / NAME
    model_dir.mkdir(parents=True)
    for path in (model_dir / "README.md", model_dir.parent / "models.config"):
        path.write_text("my own\n")
        with pytest.raises(InvalidArgument, match=f"^{path} was not written by lenet-keras"):
            export_run(run_dir, tmp_path / "exports")
        assert path.read_text() == "my own\n"
        path.unlink()
    assert names(model_dir) == []
    assert RunFolder(run_dir).read_metrics()["export"] == str(version)


def test_a_run_whose_metrics_are_not_its_models_is_not_published(tmp_path, sample_run):
    run_dir = shutil.copytree(sample_run, tmp_path / "run")
    folder = RunFolder(run_dir)
    metrics = folder.read_metrics()
    metrics["test"]["accuracy"] = 0.1  # an untrained model's
    folder.write_metrics(metrics)
    with pytest.raises(ExportError, match="accuracy on 500 images is"):
        export_run(run_dir, tmp_path / "exports")
    assert names(tmp_path / "exports" / NAME) == []
