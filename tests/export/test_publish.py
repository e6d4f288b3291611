import os
import signal
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

from lenet_keras.errors import InvalidArgument
from lenet_keras.export import ExportError, export_model, load_exported, publish, signatures, verify
from lenet_keras.models import build_lenet5


@pytest.fixture
def model_dir(tmp_path):
    return tmp_path / "exported_models" / "lenet5_none"


def names(folder: Path) -> list[str]:
    return sorted(child.name for child in folder.iterdir())


def instead_of_python(monkeypatch, folder: Path, script: str) -> None:
    """Let the fresh process be this shell script."""
    program = folder / "program"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(program))


def test_the_first_version_is_whole_and_alone(published):
    assert published.name == "1"
    assert names(published.parent) == ["1"]
    assert {"saved_model.pb", "variables", "assets"} <= set(names(published))
    assert not published.stat().st_mode & 0o077 & ~0o055  # as readable as the umask allows, for a server's own user


def test_the_signature_has_the_names_types_and_shapes_of_the_contract(published):
    signature = tf.saved_model.load(str(published)).signatures["serving_default"]
    assert signature.structured_input_signature[1] == {
        "images": tf.TensorSpec((None, 28, 28, 1), tf.float32, name="images")
    }
    outputs = {name: (spec.dtype, spec.shape.as_list()) for name, spec in signature.structured_outputs.items()}
    assert outputs == {
        "probabilities": (tf.float32, [None, 10]),
        "class_id": (tf.int64, [None]),
        "class_name": (tf.string, [None]),
    }


@pytest.mark.parametrize("size", [1, 3])
def test_the_signature_takes_any_batch(published, images, expected, class_names, size):
    exported = tf.saved_model.load(str(published))
    outputs = exported.signatures["serving_default"](images=tf.cast(images[:size], tf.float32))
    np.testing.assert_allclose(outputs["probabilities"], expected[:size], rtol=0, atol=1e-6)
    np.testing.assert_array_equal(outputs["class_id"], expected[:size].argmax(axis=1))
    found = [name.decode() for name in outputs["class_name"].numpy()]
    assert found == [class_names[i] for i in expected[:size].argmax(axis=1)]


def test_another_process_gets_the_models_answers(published, images, expected, class_names, tmp_path):
    results = verify.run_fresh(published, {"serving_default/images": images.astype(np.float32)}, tmp_path)
    np.testing.assert_allclose(results["serving_default/probabilities"], expected, rtol=0, atol=1e-6)
    np.testing.assert_array_equal(results["serving_default/class_id"], expected.argmax(axis=1))
    assert results["serving_default/class_name"].tolist() == [class_names[i] for i in expected.argmax(axis=1)]


def test_versions_count_up_from_the_largest_there_silently(model_dir, model, class_names, images, capfd):
    for name in ["2", "7", "notes", ".export.9"]:
        (model_dir / name).mkdir(parents=True)
    assert export_model(model, model_dir, class_names, images) == model_dir / "8"
    assert names(model_dir) == [".export.9", "2", "7", "8", "notes"]
    assert capfd.readouterr() == ("", "")


def test_a_number_taken_meanwhile_is_left_alone(tmp_path, monkeypatch):
    for taken in ["1", "2"]:
        (tmp_path / taken).mkdir()
        (tmp_path / taken / "saved_model.pb").write_text(f"version {taken}")
    (tmp_path / "3").write_text("a file")
    built = tmp_path / ".export.x"
    built.mkdir()
    (built / "saved_model.pb").write_text("new")
    monkeypatch.setattr(publish.layout, "versions", lambda _: [])  # the folder was listed before they came
    assert publish._rename_to_next_version(built, tmp_path) == tmp_path / "4"
    contents = [(tmp_path / number / "saved_model.pb").read_text() for number in "124"]
    assert contents == ["version 1", "version 2", "new"]


EXPORT_ON_SIGNAL = """
import sys
from pathlib import Path
import numpy as np
from lenet_keras.export import export_model
from lenet_keras.models import build_lenet5
model = build_lenet5(seed=int(sys.argv[2]))
images = np.random.default_rng(0).integers(0, 256, (4, 28, 28, 1), dtype=np.uint8)
print("ready", flush=True)
sys.stdin.readline()
print(export_model(model, Path(sys.argv[1]), [f"class {i}" for i in range(10)], images))
"""


def test_two_processes_that_export_at_once_get_a_version_each(model_dir, images):
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
        np.testing.assert_allclose(load_exported(folder).predict(images), own, rtol=0, atol=1e-6)


def test_nothing_is_published_that_disagrees(model_dir, model, class_names, images, monkeypatch):
    right = signatures.serving_default

    def forgets_to_scale(model, class_names):
        endpoint, argument = right(model, class_names)
        return lambda images: endpoint(images / 255), argument

    monkeypatch.setattr(signatures, "serving_default", forgets_to_scale)
    with pytest.raises(ExportError, match="probabilities differ by up to 0"):
        export_model(model, model_dir, class_names, images)
    assert names(model_dir) == []


def test_nothing_is_published_when_the_fresh_process_is_killed(
    model_dir, model, class_names, images, monkeypatch, tmp_path
):
    instead_of_python(monkeypatch, tmp_path, "kill -KILL $$")
    with pytest.raises(ExportError, match=r"died: it was killed by SIGKILL$"):
        export_model(model, model_dir, class_names, images)
    assert names(model_dir) == []


def test_the_last_line_of_a_failing_process_is_the_reason_and_it_sees_no_gpu(
    model_dir, model, class_names, images, monkeypatch, tmp_path
):
    instead_of_python(monkeypatch, tmp_path, 'echo noise >&2; echo "no GPU: $CUDA_VISIBLE_DEVICES" >&2; exit 3')
    with pytest.raises(ExportError, match=r"fresh process: no GPU: -1$"):
        export_model(model, model_dir, class_names, images)
    assert names(model_dir) == []


def test_ctrl_c_leaves_nothing(model_dir, model, class_names, images, monkeypatch, tmp_path):
    instead_of_python(monkeypatch, tmp_path, "kill -INT $PPID; exec sleep 60")
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            export_model(model, model_dir, class_names, images)
    finally:
        signal.signal(signal.SIGINT, before)
    assert names(model_dir) == []


def test_a_full_disk_leaves_nothing(model_dir, model, class_names, images):
    resource = pytest.importorskip("resource")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
    try:
        with pytest.raises(ExportError, match=f"cannot export to {model_dir}: .*File too large") as caught:
            export_model(model, model_dir, class_names, images)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert "\n" not in str(caught.value)
    assert names(model_dir) == []


def test_a_file_where_the_folder_should_be_is_named(tmp_path, model, class_names, images):
    (tmp_path / "file").touch()
    with pytest.raises(ExportError, match=f"cannot export to {tmp_path}/file/lenet5_none: .*Not a directory"):
        export_model(model, tmp_path / "file" / "lenet5_none", class_names, images)


def test_a_model_with_infinite_weights_is_not_exported(model_dir, class_names, images):
    diverged = build_lenet5()
    head = diverged.get_layer("logits")
    head.set_weights([head.get_weights()[0], np.full(10, np.inf)])
    with pytest.raises(ExportError, match="not finite"):
        export_model(diverged, model_dir, class_names, images)
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
        export_model(model, model_dir, [f"class {i}" for i in range(classes)], np.zeros(shape, dtype))
    assert not model_dir.exists()


def test_class_names_of_several_lines_are_refused(model_dir, model, images):
    with pytest.raises(InvalidArgument, match="one line each"):
        export_model(model, model_dir, ["two\nlines"] * 10, images)
