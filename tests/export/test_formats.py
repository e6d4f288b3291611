"""Files for other runtimes: their content, their agreement with the model, and what happens without it."""

import json
import os
import resource
import subprocess
import sys
import tempfile

import numpy as np
import onnx
import pytest
from ai_edge_litert.interpreter import Interpreter

from lenet_keras.data.arrays import Split
from lenet_keras.data.load import load
from lenet_keras.errors import ExportError, InvalidArgument, LenetKerasError
from lenet_keras.export import formats
from lenet_keras.export.formats import export_file, export_run_file, run_litert, run_onnx
from lenet_keras.inference.run_model import load_run_model
from lenet_keras.inference.saved_model import open_saved_model
from lenet_keras.runs import RunFolder
from lenet_keras.serving.config import check_replaceable

RUN = {"litert": run_litert, "onnx": run_onnx}
SUFFIXES = {"litert": "tflite", "onnx": "onnx"}


def names(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("file_format", ["litert", "onnx"])
def test_a_file_agrees_with_the_model_for_any_batch(tmp_path, model, examples, expected, class_names, file_format):
    found = export_file(model, tmp_path / "model" / "m", class_names, examples, file_format)
    assert found.path == tmp_path / "model" / f"m.{SUFFIXES[file_format]}"
    assert found.accuracy == 0.75
    assert found.largest_difference < 1e-6
    content = found.path.read_bytes()
    assert found.size == len(content)
    for count in (1, 3):
        outputs = RUN[file_format](content, examples.images[:count])
        assert set(outputs) == {"probabilities", "class_id"}
        np.testing.assert_allclose(outputs["probabilities"], expected[:count], rtol=0, atol=1e-6)
        np.testing.assert_array_equal(outputs["class_id"], expected[:count].argmax(axis=1))


def test_the_class_names_are_published_too(tmp_path, model, examples, class_names):
    export_file(model, tmp_path / "m", class_names, examples, "onnx")
    found = export_file(model, tmp_path / "m", class_names, examples, "onnx")  # its own is replaced
    metadata = {entry.key: entry.value for entry in onnx.load(found.path).metadata_props}
    assert json.loads(metadata["class_names"]) == class_names
    export_file(model, tmp_path / "m", class_names, examples, "litert")
    assert (tmp_path / "labels.txt").read_text(encoding="utf-8").splitlines() == class_names


@pytest.mark.parametrize("file_format", ["litert", "onnx"])
def test_a_file_that_disagrees_is_not_published(tmp_path, model, examples, class_names, monkeypatch, file_format):
    run = RUN[file_format]
    monkeypatch.setattr(formats, f"run_{file_format}", lambda content, images: run(content, images // 2))
    with pytest.raises(ExportError, match=f"^the model was not published: {file_format} disagrees with the model: "):
        export_file(model, tmp_path / "m", class_names, examples, file_format)
    assert names(tmp_path) == []


@pytest.mark.parametrize("file_format", ["litert", "onnx"])
def test_a_file_whose_accuracy_differs_is_not_published(tmp_path, model, examples, class_names, file_format):
    with pytest.raises(ExportError, match=r"accuracy on 12 images is 0\.7500, expected 0\.8400"):
        export_file(model, tmp_path / "m", class_names, examples, file_format, accuracy=0.84)
    assert names(tmp_path) == []


def test_a_run_is_quantised_on_what_it_was_trained_on_and_its_accuracy_measured(tmp_path, sample_run):
    found = export_run_file(sample_run, "litert", tmp_path, int8=True)
    plain = export_run_file(sample_run, "litert", tmp_path)
    for own in (found.path, plain.path):
        check_replaceable(own, lambda content: all(name in content for name in formats._OUTPUTS))
    assert names(found.path.parent) == [
        "labels.txt", "lenet5_none_fashion_mnist_sample.int8.tflite", "lenet5_none_fashion_mnist_sample.tflite",
    ]  # fmt: skip
    assert found.size < plain.size / 3
    test = load("fashion_mnist_sample").test
    details = Interpreter(str(found.path)).get_signature_runner().get_input_details()["images"]
    assert (details["dtype"], details["quantization"]) == (np.uint8, (1.0, 0))  # pixels go in as they are
    outputs = run_litert(found.path.read_bytes(), test.images)
    assert found.accuracy == (outputs["class_id"] == test.labels).mean()
    assert plain.accuracy == pytest.approx(RunFolder(sample_run).read_metrics()["test"]["accuracy"])
    assert abs(found.accuracy - plain.accuracy) <= 0.02
    assert 1e-5 < found.largest_difference < 0.1  # it is quantised


@pytest.mark.parametrize(
    ("file_format", "name"), [("onnx", "m.onnx"), ("litert", "m.tflite"), ("litert", "labels.txt")]
)
def test_a_file_that_no_export_wrote_is_never_replaced(tmp_path, model, examples, class_names, file_format, name):
    (tmp_path / name).write_text("my own")
    with pytest.raises(InvalidArgument, match=f"^{tmp_path}/{name} was not written by lenet-keras, .*: move it away"):
        export_file(model, tmp_path / "m", class_names, examples, file_format)
    assert names(tmp_path) == [name]
    assert (tmp_path / name).read_text() == "my own"


def test_a_folder_for_temporary_files_that_tensorflow_cannot_load_from_is_refused(
    tmp_path, model, examples, class_names, monkeypatch
):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "a[b]"))
    with pytest.raises(InvalidArgument, match=r"cannot load a SavedModel from .*/a\[b\]"):
        export_file(model, tmp_path / "m", class_names, examples, "litert")


def test_a_quantisation_that_lost_too_much_is_not_published(tmp_path, sample_run):
    """Calibrated on black images, it has no range for anything else."""
    model, test = load_run_model(RunFolder(sample_run)), load("fashion_mnist_sample").test
    black = np.zeros((10, 28, 28, 1), np.uint8)
    with pytest.raises(ExportError, match=r"in eight bits the accuracy on 500 images is 0\.\d+, in float32 0\.5"):
        export_file(model, tmp_path / "m", ["x"] * 10, test, "litert", calibration=black)
    assert names(tmp_path) == []


def test_a_full_disk_for_temporary_files_is_named_in_one_line(tmp_path, model, examples, class_names, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    with pytest.raises(ExportError, match=r"^cannot convert the model to litert: .*No such file or directory"):
        export_file(model, tmp_path / "m", class_names, examples, "litert")
    (tmp_path / "temporary").mkdir()
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))  # as on a full disk, a write fails
    try:
        with pytest.raises(ExportError, match=r"^cannot convert the model to litert: .*File too large"):
            export_file(model, tmp_path / "m", class_names, examples, "litert")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert names(tmp_path) == ["temporary"]
    assert [path for path in (tmp_path / "temporary").iterdir() if path.is_dir()] == []  # AutoGraph leaves a file


def test_onnx_runtime_reports_nothing_to_its_maker(tmp_path, model, examples, class_names):
    """Where it does, it leaves an identifier in the home folder and one among the temporary files."""
    found = export_file(model, tmp_path / "m", class_names, examples, "onnx")
    folders = {name: tmp_path / name for name in ("HOME", "TMPDIR", "KERAS_HOME", "MPLCONFIGDIR")}
    for folder in folders.values():
        folder.mkdir()
    program = (
        "import sys, numpy, pathlib; from lenet_keras.export.formats import run_onnx; "
        "run_onnx(pathlib.Path(sys.argv[1]).read_bytes(), numpy.zeros((1, 28, 28, 1), numpy.uint8))"
    )
    # Nothing else of the environment: on build servers it is quiet by itself.
    kept = {name: os.environ[name] for name in ("PATH", "PYTHONPATH", "LD_LIBRARY_PATH") if name in os.environ}
    subprocess.run([sys.executable, "-c", program, found.path], env=kept | folders, capture_output=True, check=True)
    assert names(folders["HOME"]) == names(folders["TMPDIR"]) == []


def test_a_file_next_to_versions_is_not_a_version(tmp_path, model, examples, class_names, published):
    folder = tmp_path / "m"
    folder.mkdir()
    (folder / "1").symlink_to(published)
    export_file(model, folder / "m", class_names, examples, "onnx")
    assert open_saved_model(folder).path == folder / "1"


def test_invalid_requests_are_refused(tmp_path, model, examples, class_names, monkeypatch):
    with pytest.raises(InvalidArgument, match="format must be one of litert, onnx"):
        export_file(model, tmp_path / "m", class_names, examples, "h5")
    with pytest.raises(InvalidArgument, match="int8 is for the format litert only"):
        export_file(model, tmp_path / "m", class_names, examples, "onnx", calibration=examples.images)
    monkeypatch.setattr(formats.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(LenetKerasError, match=r"the format onnx needs tf2onnx and onnxruntime: pip install 'lenet-"):
        export_file(model, tmp_path / "m", class_names, Split(examples.images, examples.labels), "onnx")
    assert names(tmp_path) == []
