"""Exported SavedModels, loaded back: what they predict, and how damage and other programs' models are named."""

import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf

from lenet_keras.errors import InvalidArgument, ModelDamaged, ModelNotFound
from lenet_keras.inference import measure
from lenet_keras.inference.saved_model import open_saved_model, write_labels


@pytest.fixture
def copied(published, tmp_path):
    """Return a version that a test may damage."""
    return shutil.copytree(published, tmp_path / "lenet5_none" / "1")


def test_a_version_folder_loads(published, class_names):
    exported = open_saved_model(published)
    assert exported.path == published
    assert exported.class_names == tuple(class_names)
    assert exported.image_shape == (28, 28, 1)


def test_of_a_models_folder_the_newest_version_loads(copied):
    newest = shutil.copytree(copied, copied.parent / "10")
    (copied.parent / ".export.11").mkdir()
    assert open_saved_model(copied.parent).path == newest


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
@pytest.mark.parametrize("batch", [1, 5, 1000])
def test_probabilities_are_the_models(published, images, expected, dtype, batch, monkeypatch):
    monkeypatch.setattr(measure, "BATCH_SIZE", batch)
    probabilities = open_saved_model(published).probabilities(images.astype(dtype))
    assert probabilities.dtype == np.float32
    np.testing.assert_allclose(probabilities, expected, rtol=0, atol=1e-6)


def test_no_images_give_no_probabilities(published, images):
    assert open_saved_model(published).probabilities(images[:0]).shape == (0, 10)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (np.zeros((2, 28, 28), np.uint8), r"\[N, 28, 28, 1\]. Received: uint8 \[2, 28, 28\]"),
        (np.zeros((2, 28, 28, 1), np.float64), "Received: float64"),
    ],
)
def test_images_that_do_not_fit_are_refused(published, wrong, message):
    with pytest.raises(InvalidArgument, match=message):
        open_saved_model(published).probabilities(wrong)


def cut(name, keep):
    def damage(folder):
        content = (folder / name).read_bytes()
        (folder / name).write_bytes(content[: int(len(content) * keep)])

    return damage


def flip_a_bit(folder):
    file = folder / "variables" / "variables.data-00000-of-00001"
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


@pytest.mark.parametrize(
    "damage",
    [
        pytest.param(lambda folder: shutil.rmtree(folder / "variables"), id="no variables"),
        pytest.param(lambda folder: (folder / "variables" / "variables.index").unlink(), id="no index"),
        pytest.param(lambda folder: (folder / "saved_model.pb").unlink(), id="no graph"),
        pytest.param(cut("saved_model.pb", 0), id="empty graph"),
        pytest.param(cut("saved_model.pb", 0.5), id="half a graph"),
        pytest.param(cut("saved_model.pb", 0.999), id="most of a graph"),
        pytest.param(cut("variables/variables.data-00000-of-00001", 0.5), id="half the variables"),
        pytest.param(flip_a_bit, id="a wrong bit"),
        pytest.param(cut("assets/labels.txt", 0.5), id="half the labels"),
    ],
)
def test_damage_is_one_line_that_names_the_folder(copied, damage):
    damage(copied)
    with pytest.raises(ModelDamaged, match=f"^{copied} is damaged") as caught:
        open_saved_model(copied.parent)
    assert "\n" not in str(caught.value)
    assert not isinstance(caught.value, InvalidArgument)


@pytest.mark.parametrize("name", ["variables/variables.index", "variables/variables.data-00000-of-00001"])
@pytest.mark.parametrize("kind", ["pipe", "/dev/zero", "large"])
def test_a_file_that_is_not_one_is_neither_waited_for_nor_read_to_its_end(copied, name, kind):
    (copied / name).unlink()
    if kind == "pipe":
        os.mkfifo(copied / name)
    elif kind == "large":
        (copied / name).touch()
        os.truncate(copied / name, 2**40)  # takes no space
    else:
        (copied / name).symlink_to(kind)
    reason = r"it has \d+ bytes; the limit is" if kind == "large" else f"{name} is not a regular file"
    with pytest.raises(ModelDamaged, match=rf"^{copied} is damaged \({reason}"):
        open_saved_model(copied)


def test_a_graph_that_loads_but_cannot_run_is_damaged(tmp_path):
    module = tf.Module()

    @tf.function(input_signature=[tf.TensorSpec([None, 2, 2, 1], tf.float32, name="images")])
    def fail(images):
        with tf.control_dependencies([tf.debugging.assert_greater(images, 255.0, message="broken")]):
            return {"probabilities": tf.reshape(images, [-1, 4])}

    tf.saved_model.save(module, str(tmp_path), signatures=fail)
    write_labels(tmp_path, ["a", "b", "c", "d"])
    with pytest.raises(ModelDamaged, match=f"^{tmp_path} is damaged") as caught:
        open_saved_model(tmp_path)
    assert "\n" not in str(caught.value)


def test_a_saved_model_of_another_program_is_refused(tmp_path):
    module = tf.Module()
    module.double = tf.function(lambda x: 2 * x, input_signature=[tf.TensorSpec([None], tf.float32, name="x")])
    tf.saved_model.save(module, str(tmp_path), signatures=module.double)
    with pytest.raises(ModelDamaged, match=f"^{tmp_path} is not a model that this program exported"):
        open_saved_model(tmp_path)


FOREIGN = {
    "flat images": (tf.TensorSpec((None, 784), tf.float32), lambda images: images[:, :10]),
    "images of any size": (tf.TensorSpec((None, None, None, 1), tf.float32), lambda images: images[:, 0, :10, 0]),
    "images of any rank": (tf.TensorSpec(None, tf.float32), lambda images: tf.reshape(images, (-1, 10))),
    "strings": (tf.TensorSpec((None, 28, 28, 1), tf.string), lambda images: tf.zeros((tf.shape(images)[0], 10))),
    "one image": (tf.TensorSpec((1, 28, 28, 1), tf.float32), lambda images: images[:, 0, :10, 0]),
    "a number": (tf.TensorSpec((None, 28, 28, 1), tf.float32), tf.reduce_mean),
    "images of terabytes": (tf.TensorSpec((None, 10**6, 10**6, 1), tf.float32), lambda images: images[:, 0, :10, 0]),
}


@pytest.mark.parametrize("kind", FOREIGN)
def test_a_saved_model_that_takes_or_returns_something_else_is_refused(tmp_path, kind):
    argument, function = FOREIGN[kind]
    module = tf.Module()
    module.f = tf.function(lambda images: {"probabilities": function(images)}, input_signature=[
        tf.TensorSpec(argument.shape, argument.dtype, name="images")
    ])  # fmt: skip
    tf.saved_model.save(module, str(tmp_path / "1"), signatures={"serving_default": module.f})
    (tmp_path / "1" / "assets").mkdir(exist_ok=True)
    (tmp_path / "1" / "assets" / "labels.txt").write_text("".join(f"{i}\n" for i in range(10)))
    with pytest.raises(ModelDamaged, match="is not a model that this program exported") as refused:
        open_saved_model(tmp_path / "1")
    assert "\n" not in str(refused.value)


def test_a_saved_model_without_labels_is_refused(copied):
    (copied / "assets" / "labels.txt").unlink()
    with pytest.raises(ModelDamaged, match=r"assets/labels.txt must name the classes$"):
        open_saved_model(copied)


def test_a_path_without_a_saved_model_is_refused(tmp_path):
    with pytest.raises(ModelNotFound, match=f"^{tmp_path} is not a SavedModel: expected saved_model.pb"):
        open_saved_model(tmp_path)
    with pytest.raises(ModelNotFound, match=f"^{tmp_path}/nothing is not a SavedModel: No such file"):
        open_saved_model(tmp_path / "nothing")


def test_importing_the_names_of_the_formats_loads_no_tensorflow():
    program = "import sys, lenet_keras.export.formats; print([m for m in ('tensorflow', 'keras') if m in sys.modules])"
    finished = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert finished.stdout == "[]\n"
