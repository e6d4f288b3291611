"""The publishing of SavedModels: whole and alone, or not at all."""

import contextlib
import gc
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

from lenet_keras.data.arrays import Split
from lenet_keras.errors import ExportError, InvalidArgument
from lenet_keras.export import publish, signatures
from lenet_keras.export.publish import export_model
from lenet_keras.inference.saved_model import open_saved_model
from lenet_keras.models import build_lenet5


@pytest.fixture
def model_dir(tmp_path):
    return tmp_path / "exported_models" / "lenet5_none"


def names(folder: Path) -> list[str]:
    return sorted(child.name for child in folder.iterdir())


@pytest.fixture
def check_here(monkeypatch):
    """Run SavedModels in this process, which is quicker; the fresh one is tested by itself."""

    @contextlib.contextmanager
    def here():
        def call(saved_model, calls, scratch):
            loaded, results = tf.saved_model.load(str(saved_model)), {}
            for key, array in calls.items():
                signature, argument = key.split("/")
                for name, tensor in loaded.signatures[signature](**{argument: tf.constant(array)}).items():
                    value = tensor.numpy()
                    results[f"{signature}/{name}"] = value.astype("S") if tensor.dtype == tf.string else value
            return results

        yield call

    monkeypatch.setattr(publish, "fresh_process", here)


def instead_of_python(monkeypatch, folder: Path, script: str) -> None:
    """Make the fresh process run this shell script."""
    program = folder / "program"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(program))


def test_the_first_version_is_whole_and_alone(published):
    assert published.name == "1"
    assert names(published.parent) == ["1"]
    assert {"saved_model.pb", "variables", "assets", "assets.extra"} <= set(names(published))
    assert not published.stat().st_mode & 0o077 & ~0o055  # as readable as the umask allows, for a server's own user


def test_versions_count_up_silently_from_the_largest(model_dir, model, class_names, examples, capfd):
    for name in ["2", "7", "notes", ".export.9"]:
        (model_dir / name).mkdir(parents=True)
    assert export_model(model, model_dir, class_names, examples) == model_dir / "8"
    assert names(model_dir) == [".export.9", "2", "7", "8", "notes"]
    assert capfd.readouterr() == ("", "")


def test_the_oldest_versions_are_removed(published, tmp_path):
    for name in ["2", "10", "9"]:
        shutil.copytree(published, tmp_path / name)
    for name in ["notes", ".0123abcd.export"]:
        (tmp_path / name).mkdir()
    publish.remove_old_versions(tmp_path, keep=2)
    assert names(tmp_path) == [".0123abcd.export", "10", "9", "notes"]
    publish.remove_old_versions(tmp_path, keep=5)
    assert names(tmp_path) == [".0123abcd.export", "10", "9", "notes"]


def test_numbered_folders_that_are_not_only_our_exports_are_kept_and_named(published, tmp_path, caplog):
    for name in ["3", "4", "6", "7", "8"]:
        shutil.copytree(published, tmp_path / name)
    (tmp_path / "3" / "notes.txt").touch()
    (tmp_path / "4" / "assets.extra" / "deep").mkdir()
    (tmp_path / "4" / "assets.extra" / "deep" / "notes.txt").touch()
    (tmp_path / "6" / "assets.extra" / "tf_serving_warmup_requests").unlink()  # another program's SavedModel
    (tmp_path / "5").mkdir()
    (tmp_path / "5" / "thesis.tex").touch()
    (tmp_path / "1").touch()
    (tmp_path / "2").symlink_to(published)
    publish.remove_old_versions(tmp_path, keep=1)
    assert names(tmp_path) == ["1", "2", "3", "4", "5", "6", "8"]
    assert [message.partition(" is kept")[0] for message in caplog.messages] == [f"{tmp_path}/{i}" for i in range(1, 7)]
    assert (published / "saved_model.pb").is_file()


@pytest.mark.parametrize("name", ["a[b]c", "a\\b"])
def test_a_path_that_tensorflow_cannot_load_from_is_refused(published, tmp_path, monkeypatch, name):
    """TensorFlow itself fails; if it no longer does, the check can go."""
    version = shutil.copytree(published, tmp_path / name / "1")
    with pytest.raises(FileNotFoundError, match="Failed to find any matching files"):
        tf.saved_model.load(str(version))
    with pytest.raises(InvalidArgument, match="cannot load a SavedModel from"):
        open_saved_model(version)
    monkeypatch.chdir(version.parent)
    assert open_saved_model(Path("1")).class_names[1] == "Trouser"


def test_a_path_of_unusual_characters_is_loaded(published, tmp_path):
    assert open_saved_model(shutil.copytree(published, tmp_path / "a{b,c} 'd'\n#%é" / "1")).class_names[1] == "Trouser"


def test_a_number_taken_meanwhile_is_left_alone(tmp_path, monkeypatch):
    for taken in ["1", "2"]:
        (tmp_path / taken).mkdir()
        (tmp_path / taken / "saved_model.pb").write_text(f"version {taken}")
    (tmp_path / "3").write_text("a file")
    built = tmp_path / ".export.x"
    built.mkdir()
    (built / "saved_model.pb").write_text("new")
    monkeypatch.setattr(publish, "version_folders", lambda _: [])  # the folder was listed before they appeared
    assert publish._rename_to_next_version(built, tmp_path) == tmp_path / "4"
    contents = [(tmp_path / number / "saved_model.pb").read_text() for number in "124"]
    assert contents == ["version 1", "version 2", "new"]


EXPORT_ON_SIGNAL = """
import sys
from pathlib import Path
import numpy as np
from lenet_keras.data.arrays import Split
from lenet_keras.export.publish import export_model
from lenet_keras.export.verify import ExportCheck
from lenet_keras.models import build_lenet5
ExportCheck.run = lambda *arguments: None  # takes seconds, and has nothing to do with the other process
model = build_lenet5(seed=int(sys.argv[2]))
images = np.random.default_rng(0).integers(0, 256, (4, 28, 28, 1), dtype=np.uint8)
print("ready", flush=True)
sys.stdin.readline()
examples = Split(images, np.zeros(4, np.int64))
print(export_model(model, Path(sys.argv[1]), [f"class {i}" for i in range(10)], examples))
"""


def test_two_processes_that_export_at_the_same_time_get_a_version_each(model_dir, images):
    environment = os.environ | {"PYTHONPATH": str(Path(publish.__file__).parents[2])}
    running = [
        subprocess.Popen(
            [sys.executable, "-c", EXPORT_ON_SIGNAL, str(model_dir), str(seed)],
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for seed in (1, 2)
    ]
    try:
        assert [process.stdout.readline() for process in running] == ["ready\n"] * 2
        for process in running:
            process.stdin.write("go\n")
            process.stdin.flush()
        folders = [Path(process.communicate()[0].strip()) for process in running]
        assert [process.returncode for process in running] == [0, 0]
    finally:
        for process in running:
            process.kill()
            process.wait()
    assert names(model_dir) == ["1", "2"]
    for folder, seed in zip(folders, (1, 2), strict=True):
        own = keras.ops.softmax(build_lenet5(seed=seed)(images.astype(np.float32))).numpy()
        np.testing.assert_allclose(open_saved_model(folder).probabilities(images), own, rtol=0, atol=1e-6)


@pytest.mark.usefixtures("check_here")
@pytest.mark.parametrize("wrong", ["serving_default", "uint8", "encoded", "features"])
def test_nothing_is_published_if_one_signature_disagrees(model_dir, model, class_names, examples, monkeypatch, wrong):
    right = signatures.graph_functions

    def with_one_wrong(model, class_names):
        functions = right(model, class_names)
        function = functions[wrong]
        if wrong == "encoded":
            return {**functions, wrong: lambda image_bytes: function(tf.reverse(image_bytes, [0]))}
        return {**functions, wrong: lambda images: function(images // 2)}

    monkeypatch.setattr(signatures, "graph_functions", with_one_wrong)
    with pytest.raises(
        ExportError, match=f"^the model was not published: {wrong} disagrees with the model: .* differ by up to"
    ):
        export_model(model, model_dir, class_names, examples)
    assert names(model_dir) == []


@pytest.mark.usefixtures("check_here")
def test_nothing_is_published_if_the_accuracy_differs(model_dir, model, class_names, examples):
    with pytest.raises(ExportError, match=r"was not published: .*accuracy on 12 images is 0\.7500, expected 0\.8400"):
        export_model(model, model_dir, class_names, examples, accuracy=0.84)
    assert names(model_dir) == []


def test_nothing_is_published_when_the_fresh_process_is_killed(
    model_dir, model, class_names, examples, monkeypatch, tmp_path
):
    instead_of_python(monkeypatch, tmp_path, "kill -KILL $$")
    with pytest.raises(ExportError, match=r"died: it was killed by SIGKILL$"):
        export_model(model, model_dir, class_names, examples)
    assert names(model_dir) == []


def test_the_last_line_of_a_failing_process_is_the_reason_and_it_sees_no_gpu(
    model_dir, model, class_names, examples, monkeypatch, tmp_path
):
    instead_of_python(monkeypatch, tmp_path, 'echo noise >&2; echo "no GPU: $CUDA_VISIBLE_DEVICES" >&2; exit 3')
    with pytest.raises(ExportError, match=r"fresh process: no GPU: -1$"):
        export_model(model, model_dir, class_names, examples)
    assert names(model_dir) == []


def test_ctrl_c_leaves_nothing(model_dir, model, class_names, examples, monkeypatch, tmp_path):
    instead_of_python(monkeypatch, tmp_path, "read -r paths; kill -INT $PPID; exec sleep 60")
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            export_model(model, model_dir, class_names, examples)
    finally:
        signal.signal(signal.SIGINT, before)
    assert names(model_dir) == []
    gc.collect()  # a process that was not waited for would warn


def test_a_full_disk_leaves_nothing(model_dir, model, class_names, examples):
    resource = pytest.importorskip("resource")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
    try:
        with pytest.raises(ExportError, match=f"cannot export to {model_dir}: .*File too large") as caught:
            export_model(model, model_dir, class_names, examples)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert "\n" not in str(caught.value)
    assert names(model_dir) == []


def test_a_file_where_the_folder_should_be_is_named(tmp_path, model, class_names, examples):
    (tmp_path / "file").touch()
    with pytest.raises(ExportError, match=f"cannot export to {tmp_path}/file/lenet5_none: .*Not a directory"):
        export_model(model, tmp_path / "file" / "lenet5_none", class_names, examples)


def test_an_export_to_where_nothing_can_be_loaded_is_refused(tmp_path, model, class_names, examples):
    with pytest.raises(InvalidArgument, match="cannot load a SavedModel from"):
        export_model(model, tmp_path / "a[b]" / "lenet5_none", class_names, examples)
    assert names(tmp_path) == []


def test_a_model_with_infinite_weights_is_not_exported(model_dir, class_names, examples):
    diverged = build_lenet5()
    head = diverged.get_layer("logits")
    head.set_weights([head.get_weights()[0], np.full(10, np.inf)])
    with pytest.raises(ExportError, match="not finite"):
        export_model(diverged, model_dir, class_names, examples)
    assert not model_dir.exists()


@pytest.mark.parametrize(
    ("classes", "shape", "dtype", "message"),
    [
        (9, (4, 28, 28, 1), np.uint8, r"class_names must be 10 names"),
        (10, (0, 28, 28, 1), np.uint8, r"must be uint8 \[N, 28, 28, 1\]. Received: uint8 \[0, 28, 28, 1\]"),
        (10, (4, 28, 28), np.uint8, r"Received: uint8 \[4, 28, 28\]"),
        (10, (4, 28, 28, 1), np.float32, r"Received: float32"),
    ],
)
def test_a_request_that_does_not_fit_the_model_is_refused(model_dir, model, classes, shape, dtype, message):
    with pytest.raises(InvalidArgument, match=message):
        export_model(
            model,
            model_dir,
            [f"class {i}" for i in range(classes)],
            Split(np.zeros(shape, dtype), np.zeros(shape[0], np.int64)),
        )
    assert not model_dir.exists()


def test_class_names_of_several_lines_are_refused(model_dir, model, examples):
    with pytest.raises(InvalidArgument, match="one line each"):
        export_model(model, model_dir, ["two\nlines"] * 10, examples)
