"""Runs, SavedModels and servers asked in one way: prediction, evaluation, and sources that hold no model."""

import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lenet_keras import evaluate, export_run, predict
from lenet_keras.data.load import load
from lenet_keras.errors import (
    DatasetRequired,
    InvalidArgument,
    LenetKerasError,
    ModelDamaged,
    ModelNotFound,
    RunDamaged,
    RunUnfinished,
)
from lenet_keras.export.publish import published_version
from lenet_keras.inference import classifier
from lenet_keras.inference.classifier import newest_export, open_classifier
from lenet_keras.runs import RunFolder
from lenet_keras.serving.embedded.server import running_server
from lenet_keras.training.replicas import plain_model


@dataclass(frozen=True)
class Exported:
    run_dir: Path
    version: Path
    url: str
    grpc_url: str


@pytest.fixture(scope="module")
def exported(tmp_path_factory, sample_run):
    """Return the sample run, its export, and the URL at which it is served."""
    folder = tmp_path_factory.mktemp("work")
    run_dir = shutil.copytree(sample_run, folder / "run")
    version = export_run(run_dir, folder / "exported_models")
    with running_server(folder / "exported_models", rest_port=0, grpc_port=0) as server:
        yield Exported(
            run_dir,
            version,
            f"http://{server.host}:{server.rest_port}/v1/models/{version.parent.name}",
            f"grpc://{server.host}:{server.grpc_port}/{version.parent.name}",
        )


@pytest.fixture(scope="module")
def sample():
    return load("fashion_mnist_sample")


def test_an_export_is_named_in_the_run(exported):
    assert exported.version.parts[-2:] == ("lenet5_none_fashion_mnist_sample", "1")
    assert json.loads((exported.run_dir / "metrics.json").read_text())["export"] == str(exported.version)


def test_run_export_and_server_measure_what_metrics_json_says(exported):
    test = json.loads((exported.run_dir / "metrics.json").read_text())["test"]
    of_run = evaluate(exported.run_dir)
    of_export = evaluate(exported.version.parent)
    of_server = evaluate(exported.url, "fashion_mnist_sample")
    assert of_run["images"] == of_export["images"] == of_server["images"] == 500
    assert of_run["dataset"] == of_export["dataset"] == "fashion_mnist_sample"
    assert of_export["model"] == str(exported.version)
    for found in (of_run, of_export, of_server):
        assert found["test"]["accuracy"] == test["accuracy"]
        assert found["test"]["loss"] == pytest.approx(test["loss"], rel=1e-5)


@pytest.mark.parametrize("dataset", ["mnist", "kmnist", "emnist/letters"])
@pytest.mark.parametrize("source", ["run_dir", "version"])
def test_a_dataset_of_other_classes_is_refused_before_it_is_loaded(exported, source, dataset, monkeypatch):
    monkeypatch.setattr(classifier, "load", None)
    with pytest.raises(InvalidArgument, match=rf"the model's classes \(T-shirt.* are not those of {dataset}"):
        evaluate(getattr(exported, source), dataset)


@pytest.mark.parametrize(("dataset", "message"), [("mnist", "class"), ("emnist/letters", "has 10 classes, but")])
def test_a_served_model_is_not_measured_on_other_classes(exported, sample, monkeypatch, dataset, message):
    monkeypatch.setattr(classifier, "load", lambda *_: sample)
    with pytest.raises(InvalidArgument, match=message):
        evaluate(exported.url, dataset)


def test_a_model_that_does_not_name_its_dataset_is_not_measured_on_one_unasked(exported, tmp_path):
    version = shutil.copytree(exported.version, tmp_path / "1")
    (version / "assets" / "origin.json").unlink()
    for source in (version, exported.url):
        with pytest.raises(DatasetRequired, match=f"^{source} does not say which dataset it was trained on"):
            evaluate(source)
    assert evaluate(version, "fashion_mnist_sample")["images"] == 500


@pytest.mark.parametrize(
    "content", ["", "[]", '{"dataset": "mnist"}', '{"dataset": 1, "weights_sha256": "0"}', " " * 10**5]
)
def test_a_damaged_origin_is_named(exported, tmp_path, content):
    version = shutil.copytree(exported.version, tmp_path / "1")
    (version / "assets" / "origin.json").write_text(content)
    with pytest.raises(ModelDamaged, match=r"assets/origin\.json cannot be read"):
        evaluate(version)


def test_a_version_with_the_weights_of_a_run_is_found_wherever_run_and_exports_are(exported, sample_run, tmp_path):
    (tmp_path / "link").symlink_to(exported.version.parents[1])
    moved = shutil.copytree(sample_run, tmp_path / "moved")  # its metrics.json names no export
    found = published_version(moved, tmp_path / "link")
    assert found.samefile(exported.version)
    assert RunFolder(moved).read_metrics()["export"] == str(found)
    model_dir = exported.version.parent.name
    shutil.copytree(exported.version, tmp_path / "B" / model_dir / "3")
    (tmp_path / "B" / model_dir / "4" / "assets").mkdir(parents=True)
    assert published_version(moved, tmp_path / "B") == tmp_path / "B" / model_dir / "3"
    assert RunFolder(moved).read_metrics()["export"] == str(found)  # the last one that was made
    (tmp_path / "B" / model_dir / "3" / "saved_model.pb").unlink()
    assert published_version(moved, tmp_path / "B") is None
    assert published_version(moved, tmp_path / "nothing") is None
    plain_model(RunFolder(moved).read_config()).save(moved / "model.keras")  # other weights
    assert published_version(moved, tmp_path / "link") is None


def test_a_prediction_names_the_most_probable_class(exported, sample):
    images = sample.test.images[:20]
    found = predict(exported.version, list(images))
    run = open_classifier(exported.run_dir)
    probabilities = run.answer(images).probabilities
    assert [one.class_name for one in found] == [run.class_names[i] for i in probabilities.argmax(axis=-1)]
    np.testing.assert_allclose([one.probability for one in found], probabilities.max(axis=-1), atol=1e-5)
    assert sum(found[0].probabilities) == pytest.approx(1, abs=1e-5)


def test_a_server_predicts_what_the_run_predicts(exported, sample):
    images = list(sample.test.images[:20])
    of_run, of_server = predict(exported.run_dir, images), predict(exported.url, images)
    assert [one.class_name for one in of_server] == [one.class_name for one in of_run]
    for run, server in zip(of_run, of_server, strict=True):
        assert server.probability == pytest.approx(run.probability, abs=1e-5)
        assert server.probabilities == pytest.approx(run.probabilities, abs=1e-5)


@pytest.mark.parametrize("source", ["run_dir", "version", "url", "grpc_url"])
def test_a_prediction_has_one_form_whatever_answers(exported, sample, source):
    (found,) = predict(getattr(exported, source), [sample.test.images[0]])
    row = json.loads(json.dumps(found.to_json()))
    assert list(row) == [
        "class_id",
        "class_name",
        "probability",
        "probabilities",
        "version",
        "looks_inverted",
        "is_blank",
    ]
    assert row["class_name"] == sample.spec.class_names[row["class_id"]]
    assert {name: type(value) for name, value in row.items()} == {
        "class_id": int,
        "class_name": str,
        "probability": float,
        "probabilities": list,
        "version": type(None) if source == "run_dir" else int,
        "looks_inverted": bool,
        "is_blank": bool,
    }
    assert {type(value) for value in row["probabilities"]} == {float}
    assert row["probability"] == max(row["probabilities"]) == row["probabilities"][row["class_id"]]
    assert row["version"] in (None, 1)


def test_a_model_served_by_rest_is_asked_without_tensorflow(exported):
    program = (
        "import sys, numpy, lenet_keras; "
        "lenet_keras.predict(sys.argv[1], [numpy.zeros((28, 28, 1), numpy.uint8)]); "
        "print([name for name in ('tensorflow', 'keras', 'grpc') if name in sys.modules])"
    )
    command = [sys.executable, "-c", program, exported.url]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == "[]\n"


def test_files_and_arrays_are_predicted_alike(exported, sample, tmp_path):
    pixels = sample.test.images[0]
    Image.fromarray(pixels[:, :, 0]).save(tmp_path / "image.png")
    assert predict(exported.run_dir, [pixels]) == predict(str(exported.run_dir), [str(tmp_path / "image.png")])
    assert predict(exported.run_dir, []) == []
    for wrong in (pixels[:, :, 0], pixels.astype(np.float32), np.zeros((30, 28, 1), np.uint8)):
        with pytest.raises(InvalidArgument, match=r"an image must be uint8 \[28, 28, 1\]"):
            predict(exported.run_dir, [wrong])


def test_inversion_is_undone(exported, sample):
    pixels = sample.test.images[0]
    run = open_classifier(exported.run_dir)
    straight, inverted = run.predict([pixels])[0], run.predict([255 - pixels], invert=True)[0]
    assert straight.probabilities == inverted.probabilities
    assert (straight.looks_inverted, inverted.looks_inverted) == (False, True)


def test_the_newest_export_is_found(tmp_path):
    with pytest.raises(ModelNotFound, match="no exported model"):
        newest_export(tmp_path)
    for name, time in (
        ("lenet5_none/2", 100),
        ("lenet5_dropout/1", 200),
        ("lenet5_batch_norm/1", 150),
        ("lenet5_none/x", 300),
    ):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "saved_model.pb").touch()
        os.utime(tmp_path / name, (time, time))
    assert newest_export(tmp_path) == tmp_path / "lenet5_dropout" / "1"


def test_a_folder_without_a_model_is_named(tmp_path):
    with pytest.raises(ModelNotFound, match=str(tmp_path)):
        open_classifier(tmp_path)


@pytest.mark.parametrize("url", ["http://localhost", "ftp://localhost/v1/models/m"])
def test_a_url_of_something_else_is_named(url):
    with pytest.raises(InvalidArgument, match=f"'{url}' is not the URL of a served model"):
        open_classifier(url)


@pytest.mark.parametrize("content", [b"", b"{}"])
def test_a_file_in_the_place_of_a_folder_is_named(tmp_path, content):
    path = tmp_path / "run"
    path.write_bytes(content)
    for call in (open_classifier, evaluate, export_run):
        with pytest.raises(LenetKerasError, match=f"^{path} is not a (SavedModel: Not a directory|run folder)"):
            call(path)


@pytest.mark.parametrize("name", ["config.json", "metrics.json"])
def test_a_folder_in_the_place_of_a_file_is_named(tmp_path, sample_run, name):
    run_dir = shutil.copytree(sample_run, tmp_path / "run")
    (run_dir / name).unlink()
    (run_dir / name).mkdir()
    with pytest.raises(LenetKerasError, match=rf"^{run_dir} is not .*: (it has no )?{name}"):
        export_run(run_dir)


def test_an_unfinished_run_is_named(tmp_path, sample_run):
    run_dir = shutil.copytree(sample_run, tmp_path / "run")
    (run_dir / "metrics.json").unlink()
    with pytest.raises(RunUnfinished, match=f"^{run_dir} is not finished"):
        open_classifier(run_dir)


def test_a_damaged_model_is_named_and_a_failed_export_leaves_nothing(tmp_path, sample_run):
    run_dir = shutil.copytree(sample_run, tmp_path / "run")
    (run_dir / "model.keras").write_bytes((run_dir / "model.keras").read_bytes()[:5000])
    with pytest.raises(RunDamaged, match=r"model\.keras is damaged"):
        export_run(run_dir, tmp_path / "exported_models")
    assert not (tmp_path / "exported_models").exists()
