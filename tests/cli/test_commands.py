"""The commands that use what training wrote, and those that only print."""

import json
import re
import shutil
import subprocess
import urllib.request

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from lenet_keras.data.catalogue import DATASETS
from lenet_keras.data.load import load
from lenet_keras_cli.main import main

SAMPLE = "fashion_mnist_sample"
RUN = "runs/fashion_mnist_sample/weight_decay/0"
EXPORT = "exported_models/lenet5_weight_decay_fashion_mnist_sample"


@pytest.fixture
def call(monkeypatch):
    """Do what `run` does in this process, which has imported TensorFlow already."""

    def invoke(*arguments, cwd):
        monkeypatch.chdir(cwd)
        result = CliRunner().invoke(main, [*map(str, arguments)])
        return subprocess.CompletedProcess(arguments, result.exit_code, result.stdout, result.stderr)

    return invoke


@pytest.mark.parametrize("model", [RUN, EXPORT, f"{EXPORT}/1"])
def test_evaluate_repeats_the_test_metrics(call, trained, model):
    work, _ = trained
    process = call("evaluate", model, "--json", cwd=work)
    assert process.returncode == 0, process.stderr
    expected = json.loads((work / RUN / "metrics.json").read_text())["test"]
    assert json.loads(process.stdout)["test"] == pytest.approx(expected, rel=1e-5)


def test_an_interruption_before_the_training_leaves_the_earlier_run(call, trained, tmp_path, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("lenet_keras.training.train.load", interrupted)
    shutil.copytree(trained[0] / RUN, tmp_path / RUN)
    process = call("train", "--dataset", SAMPLE, "--reg", "weight_decay", "--overwrite", "--no-export", cwd=tmp_path)
    assert "Stopped before training started. The earlier run is unchanged." in process.stderr
    assert (tmp_path / RUN / "metrics.json").read_text() == (trained[0] / RUN / "metrics.json").read_text()


def test_evaluate_shows_a_table(run, trained):
    process = run("evaluate", RUN, cwd=trained[0])
    assert re.search(r"test +\d\.\d{4} +\d+\.\d\d %", process.stdout)
    assert "500 images" in process.stdout


def test_export_counts_up_the_versions(call, run, trained):
    work, _ = trained
    process = run("export", RUN, "--export-dir", "elsewhere", cwd=work)
    assert process.stdout.strip() == "elsewhere/lenet5_weight_decay_fashion_mnist_sample/1"
    again = call("export", RUN, "--export-dir", "elsewhere", "--json", cwd=work)
    assert json.loads(again.stdout) == {"export": "elsewhere/lenet5_weight_decay_fashion_mnist_sample/2"}


def test_export_writes_files_for_other_runtimes_with_their_figures(call, run, trained):
    work, _ = trained
    accuracy = json.loads((work / RUN / "metrics.json").read_text())["test"]["accuracy"]
    process = run("export", RUN, "--format", "onnx", "--export-dir", "files", "--json", cwd=work)
    assert process.returncode == 0, process.stderr
    found = json.loads(process.stdout)
    assert (work / found["export"]).stat().st_size == found["bytes"]
    assert found["accuracy"] == pytest.approx(accuracy)
    process = call("export", RUN, "--format", "litert", "--int8", "--export-dir", "files", cwd=work)
    name = "lenet5_weight_decay_fashion_mnist_sample"
    assert process.stdout.strip() == f"files/{name}/{name}.int8.tflite"
    assert re.search(r"bytes, accuracy \d+\.\d\d %, probabilities differ", process.stderr.splitlines()[-1])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--int8"], "--int8 needs --format litert"),
        (["--format", "onnx", "--int8"], "--int8 needs --format litert"),
        (["--format", "onnx", "--keep", "2"], "--keep is for versions of a SavedModel"),
        (["--format", "h5"], "'h5' is not one of"),
        (["--keep", "0"], "0 is not in the range x>=1"),
    ],
)
def test_a_meaningless_export_is_refused(call, trained, arguments, message):
    process = call("export", RUN, *arguments, cwd=trained[0])
    assert process.returncode == 2
    assert message in process.stderr.splitlines()[-1]


def test_predict_names_classes_and_warns_of_inverted_images(call, run, trained, tmp_path):
    work, _ = trained
    pixels = load("fashion_mnist_sample").test.images[0, :, :, 0]
    Image.fromarray(pixels).save(tmp_path / "straight.png")
    Image.fromarray(255 - pixels).save(tmp_path / "inverted.png")
    process = run("predict", tmp_path / "straight.png", tmp_path / "inverted.png", "--json", cwd=work)
    assert process.returncode == 0, process.stderr
    straight, inverted = json.loads(process.stdout)
    assert straight["class_name"] == DATASETS["fashion_mnist"].class_names[straight["class_id"]]
    assert straight["probability"] == max(straight["probabilities"])
    assert list(straight) == [
        "image",
        "class_id",
        "class_name",
        "probability",
        "probabilities",
        "version",
        "looks_inverted",
        "is_blank",
    ]
    assert (straight["looks_inverted"], inverted["looks_inverted"]) == (False, True)
    assert process.stderr.splitlines() == [
        f"{tmp_path / 'inverted.png'} looks inverted: the dataset's background is black. Try --invert."
    ]

    undone = call("predict", tmp_path / "inverted.png", "--invert", "--model", RUN, cwd=work)
    assert re.search(rf"inverted.png +{re.escape(straight['class_name'])} +\d+\.\d %", undone.stdout)
    assert undone.stderr == ""


def test_predict_says_that_an_image_is_blank(run, trained, tmp_path):
    Image.new("L", (60, 30), 255).save(tmp_path / "white.png")
    Image.new("RGBA", (28, 28)).save(tmp_path / "transparent.png")
    drawing = Image.new("RGBA", (28, 28))
    drawing.paste("black", (8, 4, 20, 24))
    drawing.save(tmp_path / "drawing.png")
    paths = [tmp_path / f"{name}.png" for name in ("white", "drawing", "transparent")]
    process = run("predict", *paths, "--json", cwd=trained[0])
    assert process.returncode == 0, process.stderr
    assert [row["is_blank"] for row in json.loads(process.stdout)] == [True, False, True]
    assert process.stderr.splitlines() == [
        f"{path} is blank: all its pixels have one value, so its class says nothing." for path in (paths[0], paths[2])
    ]


def test_predict_refuses_a_file_that_is_not_an_image(call, trained, tmp_path):
    (tmp_path / "text.png").write_text("not an image")
    process = call("predict", tmp_path / "text.png", cwd=trained[0])
    assert process.returncode == 2
    assert str(tmp_path / "text.png") in process.stderr.splitlines()[-1]


def test_predict_without_a_model_says_what_to_do(call, tmp_path):
    Image.fromarray(np.zeros((28, 28), np.uint8)).save(tmp_path / "a.png")
    process = call("predict", "a.png", cwd=tmp_path)
    assert process.returncode == 1
    assert "Train one" in process.stderr


def test_models_lists_the_variants_and_the_layers_of_one(call, run, tmp_path):
    listed = run("models", cwd=tmp_path).stdout
    for reg in ("none", "dropout", "batch_norm", "weight_decay"):
        assert reg in listed
    layers = call("models", "dropout", cwd=tmp_path).stdout
    assert "61,706 parameters" in layers
    assert re.search(r"c3 +Conv2D +10x10x16 +2,416", layers)


def test_data_shows_every_dataset_and_where_it_would_come_from(run, tmp_path):
    lines = run("data", cwd=tmp_path).stdout.splitlines()
    for name in DATASETS:
        assert any(line.split()[:1] == [name] for line in lines)
    assert any(re.search(r"fashion_mnist_sample +500 +500 +10 +sample shipped", line) for line in lines)


@pytest.mark.parametrize(
    "arguments",
    [
        ("--data-dir", "X", "prepare", SAMPLE),
        ("prepare", SAMPLE, "--data-dir", "X"),
        ("--data-dir", "X", "prepare", SAMPLE, "--data-dir", "./X"),
    ],
)
def test_data_prepare_takes_its_folder_before_or_after(call, tmp_path, arguments):
    process = call("data", *arguments, cwd=tmp_path)
    assert process.returncode == 1
    assert "IDX files: none in X\n" in process.stderr


def test_data_prepare_refuses_two_folders(call, tmp_path):
    process = call("data", "--data-dir", "X", "prepare", SAMPLE, "--data-dir", "Y", cwd=tmp_path)
    assert process.returncode == 2
    assert process.stderr.splitlines()[-1] == "Error: --data-dir is given twice, as X and as Y."


def test_predict_refuses_an_export_folder_that_it_would_not_use(call, tmp_path):
    process = call("predict", "a.png", "--model", "M", "--export-dir", "E", cwd=tmp_path)
    assert process.returncode == 2
    assert process.stderr.splitlines()[-1] == "Error: --export-dir does nothing with --model."


def test_evaluate_asks_for_the_dataset_of_a_model_that_names_none(call, trained, tmp_path):
    version = shutil.copytree(trained[0] / EXPORT / "1", tmp_path / "1")
    (version / "assets" / "origin.json").unlink()
    process = call("evaluate", version, cwd=tmp_path)
    assert process.returncode == 2
    assert process.stderr.splitlines()[-1] == (
        f"Error: {version} does not say which dataset it was trained on. Name it with --dataset."
    )


def test_data_prepare_checks_a_dataset_and_prints_its_folder(run, tmp_path):
    process = run("data", "prepare", "fashion_mnist_sample", cwd=tmp_path)
    assert process.returncode == 0
    assert process.stdout.strip().endswith("fashion_mnist_sample")


def test_tensorboard_serves_the_runs_and_a_second_one_says_that_the_port_is_taken(lenet_keras, run, trained):
    work, _ = trained
    process = subprocess.Popen(
        [lenet_keras, "tensorboard", "--port", "0"], cwd=work, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        address = re.fullmatch(r"TensorBoard: (http://127.0.0.1:\d+/)\?\S+\n", process.stdout.readline())[1]
        second = run("tensorboard", "--port", address.rpartition(":")[2].rstrip("/"), cwd=work)
        assert (second.returncode, len(second.stderr.splitlines()), second.stdout) == (1, 1, "")
        assert "already in use. Choose another with --port" in second.stderr
        direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with direct.open(f"{address}data/runs", timeout=60) as answer:
            runs = set(json.load(answer))
        of_run = "fashion_mnist_sample/weight_decay/0"
        assert {of_run, *(f"{of_run}/{split}" for split in ("train", "validation", "test"))} <= runs
    finally:
        process.terminate()
        _, rest = process.communicate(timeout=60)
    assert process.returncode == 143
    assert "Traceback" not in rest


def test_tensorboard_without_runs_says_so(run, tmp_path):
    process = run("tensorboard", cwd=tmp_path)
    assert process.returncode == 2
    assert "'runs' does not exist" in process.stderr
