"""Runs and SavedModels asked in one way: evaluation, export of a run, prediction."""

import json
import os
import shutil
from dataclasses import dataclass

import numpy as np
import pytest

from lenet_keras import evaluate, export_run
from lenet_keras.classifier import load_classifier, newest_export
from lenet_keras.data import load
from lenet_keras.errors import InvalidArgument, LenetKerasError
from lenet_keras.pictures import Picture
from lenet_keras.prediction import predict


@dataclass(frozen=True)
class Exported:
    run_dir: object
    version: object


@pytest.fixture(scope="module")
def exported(tmp_path_factory, sample_run):
    folder = tmp_path_factory.mktemp("work")
    run_dir = shutil.copytree(sample_run, folder / "run")
    return Exported(run_dir, export_run(run_dir, folder / "exported_models"))


def test_an_export_is_noted_in_the_run(exported):
    assert exported.version.parts[-2:] == ("lenet5_none_fashion_mnist_sample", "1")
    assert json.loads((exported.run_dir / "metrics.json").read_text())["export"] == str(exported.version)


def test_run_and_export_measure_what_metrics_json_says(exported):
    test = json.loads((exported.run_dir / "metrics.json").read_text())["test"]
    of_run = evaluate(exported.run_dir)
    of_export = evaluate(exported.version.parent, "fashion_mnist_sample")
    assert of_run["images"] == of_export["images"] == 500
    assert of_run["dataset"] == "fashion_mnist_sample"
    for found in (of_run, of_export):
        assert found["test"]["accuracy"] == test["accuracy"]
        assert found["test"]["loss"] == pytest.approx(test["loss"], rel=1e-5)


def test_a_data_set_of_other_classes_is_refused(exported, monkeypatch):
    import lenet_keras.evaluation as evaluation

    digits = load("fashion_mnist_sample")
    other = type(digits)(
        type(digits.spec)(**{**vars(digits.spec), "class_names": tuple("0123456789")}), digits.train, digits.test, ""
    )
    monkeypatch.setattr(evaluation, "load", lambda *_: other)
    with pytest.raises(InvalidArgument, match="classes"):
        evaluate(exported.run_dir)


def test_a_prediction_names_the_likeliest_class(exported):
    test = load("fashion_mnist_sample").test
    classifier = load_classifier(exported.version)
    pictures = [Picture(pixels, False) for pixels in test.images[:20]]
    found = predict(classifier, pictures)
    probabilities = load_classifier(exported.run_dir).probabilities(test.images[:20])
    assert [one.class_name for one in found] == [classifier.class_names[i] for i in probabilities.argmax(axis=-1)]
    np.testing.assert_allclose([one.probability for one in found], probabilities.max(axis=-1), atol=1e-5)
    assert sum(found[0].probabilities.values()) == pytest.approx(1, abs=1e-5)


def test_inversion_is_undone(exported):
    pixels = load("fashion_mnist_sample").test.images[0]
    classifier = load_classifier(exported.run_dir)
    straight = predict(classifier, [Picture(pixels, False)])
    inverted = predict(classifier, [Picture(255 - pixels, True)], invert=True)
    assert straight[0].probabilities == inverted[0].probabilities


def test_the_newest_export_is_found(tmp_path):
    with pytest.raises(LenetKerasError, match="no exported model"):
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
    with pytest.raises(LenetKerasError, match=str(tmp_path)):
        load_classifier(tmp_path)


@pytest.mark.parametrize("content", [b"", b"{}"])
def test_a_file_in_the_place_of_a_folder_is_named(tmp_path, content):
    path = tmp_path / "run"
    path.write_bytes(content)
    for call in (load_classifier, evaluate, export_run):
        with pytest.raises(LenetKerasError, match=f"^{path} is (not a SavedModel: Not a directory|no run folder)"):
            call(path)


@pytest.mark.parametrize("name", ["config.json", "metrics.json"])
def test_a_folder_in_the_place_of_a_file_is_named(tmp_path, sample_run, name):
    run_dir = shutil.copytree(sample_run, tmp_path / "run")
    (run_dir / name).unlink()
    (run_dir / name).mkdir()
    with pytest.raises(LenetKerasError, match=rf"^{run_dir} is no.*it has no {name}"):
        export_run(run_dir)


def test_an_unfinished_run_is_named(tmp_path, sample_run):
    run_dir = shutil.copytree(sample_run, tmp_path / "run")
    (run_dir / "metrics.json").unlink()
    with pytest.raises(LenetKerasError, match=r"not finished.*--resume"):
        load_classifier(run_dir)


def test_a_damaged_model_is_named_and_a_failed_export_leaves_nothing(tmp_path, sample_run):
    run_dir = shutil.copytree(sample_run, tmp_path / "run")
    (run_dir / "model.keras").write_bytes((run_dir / "model.keras").read_bytes()[:5000])
    with pytest.raises(LenetKerasError, match=r"model\.keras is damaged"):
        export_run(run_dir, tmp_path / "exported_models")
    assert not (tmp_path / "exported_models").exists()
