"""A batch shared by several devices or cores: the same training as on one."""

import functools
import zipfile

import keras
import numpy as np
import pytest
import tensorflow as tf

from lenet_keras import TrainConfig, build_lenet5, evaluate, train
from lenet_keras.checkpoint import EpochProgress, StateStore, capture
from lenet_keras.config import PRECISIONS
from lenet_keras.data.arrays import Split, epoch_order
from lenet_keras.data.catalogue import dataset_spec
from lenet_keras.data.load import load
from lenet_keras.distribution.strategy import place
from lenet_keras.errors import InvalidArgument
from lenet_keras.export.signatures import write_saved_model
from lenet_keras.inference.run_model import load_run_model
from lenet_keras.runs import RunFolder
from lenet_keras.training.fast_step import training_call
from lenet_keras.training.loop import TrainingLoop
from lenet_keras.training.replicas import compile_model, replicated, training_model

from . import comparison
from .comparison import assert_same_run

config = functools.partial(comparison.config, strategy="auto")
DEVICES = {1: "CPU:0", 2: "CPU:0,CPU:1", 4: "CPU:0,CPU:1,CPU:2,CPU:3"}
SHARED = {"2 devices": {"devices": 2}, "2 cores": {"devices": 1, "cores": 2}}
BATCH = 64


@pytest.fixture(scope="module")
def dataset():
    return load("fashion_mnist_sample")


@functools.cache
def trained(dataset, devices, reg="none", precision="float32", xla=False, steps=50, cores=1):
    """Train some steps at the default learning rate; return the loss of each, and the variables after the last."""
    named = "float32" if precision == "float64" else precision  # not a choice of users
    settings = config(reg=reg, devices=DEVICES[devices], batch_size=BATCH, precision=named, learning_rate=1e-4)
    placement = place(settings)
    plain = build_lenet5(reg=reg, weight_decay=0.1, dropout_rate=0.5, seed=3)
    with placement.strategy.scope():
        model = replicated(plain, placement.replicas, precision)
        compile_model(model, settings)
    loop = TrainingLoop(model, dataset.train, BATCH, placement.strategy, cores=cores, xla=xla)
    losses = []
    for number in range(steps):
        epoch, step = divmod(number, loop.steps)
        progress = loop.advance(loop.order(5, epoch), EpochProgress(step), step + 1)
        losses.append(progress.loss_sum / BATCH)
    return np.array(losses), capture([*model.variables, *model.optimizer.variables])


@pytest.mark.parametrize("shared", SHARED)
@pytest.mark.parametrize(
    ("reg", "tolerance"), [("none", 1e-4), ("weight_decay", 1e-4), ("dropout", 1e-4), ("batch_norm", 1e-3)]
)
def test_several_devices_or_cores_train_like_one(dataset, reg, tolerance, shared):
    one, several = trained(dataset, 1, reg), trained(dataset, reg=reg, **SHARED[shared])
    np.testing.assert_allclose(several[0], one[0], atol=tolerance, rtol=0)
    assert one[0][-5:].mean() < one[0][:5].mean()
    if reg != "batch_norm":
        weights = [name for name in one[1] if not name.endswith(("_momentum", "_velocity"))]
        assert len(weights) >= 12
        for name in weights:
            np.testing.assert_allclose(several[1][name], one[1][name], atol=tolerance, rtol=0, err_msg=name)


@pytest.mark.parametrize("shared", SHARED)
@pytest.mark.parametrize("reg", ["batch_norm", "dropout+weight_decay"])
def test_in_float64_several_devices_or_cores_train_exactly_like_one(dataset, reg, shared):
    """So the differences in float32 are round-off."""
    one = trained(dataset, 1, reg, "float64")
    several = trained(dataset, reg=reg, precision="float64", **SHARED[shared])
    np.testing.assert_allclose(several[0], one[0], atol=1e-9, rtol=0)
    for name, value in one[1].items():
        np.testing.assert_allclose(several[1][name], value, atol=1e-9, rtol=1e-9, err_msg=name)


def masks(placement, rows=8, units=120):
    """Return the mask of each device's share, in their order."""
    plain = keras.Sequential([keras.Input((units,)), keras.layers.Dense(units), keras.layers.Dropout(0.5, seed=3),
                              keras.layers.Dense(1)])  # fmt: skip
    with placement.strategy.scope():
        dropout = replicated(plain, placement.replicas).layers[1]
    share = tf.ones((rows // placement.replicas, units))
    shares = tf.function(lambda: placement.strategy.run(lambda: dropout(share, training=True)))()
    return [np.array(each) for each in placement.strategy.experimental_local_results(shares)]


@pytest.mark.parametrize("devices", [2, 4])
def test_devices_drop_different_units_and_together_those_that_one_would(devices):
    (whole,) = masks(place(TrainConfig(devices=DEVICES[1])))
    shares = masks(place(TrainConfig(devices=DEVICES[devices])))
    for i in range(devices):
        for j in range(i):
            assert (shares[i] != shares[j]).mean() > 0.3
    np.testing.assert_array_equal(np.concatenate(shares), whole)
    assert set(np.unique(whole)) == {0, 2}
    assert (whole == 0).mean() == pytest.approx(0.5, abs=0.06)


def test_the_trained_copy_has_the_models_variables_in_their_order():
    model = build_lenet5("dropout+batch_norm+weight_decay", seed=3)
    model.get_layer("logits").bias.assign(np.arange(10))
    copy = replicated(model, 2, "mixed_bfloat16")
    assert [(v.name, v.shape) for v in copy.variables] == [(v.name, v.shape) for v in model.variables]
    for ours, theirs in zip(copy.variables, model.variables, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert len(copy.losses) == len(model.losses) == 5
    assert copy.get_layer("c1_norm").synchronized
    assert not model.get_layer("c1_norm").synchronized
    assert (copy.get_layer("c3").compute_dtype, copy.get_layer("c3").variable_dtype) == ("bfloat16", "float32")
    assert copy.output.dtype == "float32"


@pytest.mark.parametrize("devices", [1, 2, 4])
def test_each_image_of_an_epoch_is_seen_at_most_once(devices):
    seen = []

    class Spy(keras.layers.Layer):
        def call(self, images):
            tf.py_function(lambda batch: seen.append(batch.numpy()[:, 0, 0, 0]), [images], [])
            return images

    placement = place(TrainConfig(devices=DEVICES[devices]))
    with placement.strategy.scope():
        model = keras.Sequential([keras.Input((28, 28, 1)), Spy(), keras.layers.Flatten(), keras.layers.Dense(10)])
        compile_model(model, config())
    marked = Split(np.zeros((230, 28, 28, 1), np.uint8), np.zeros(230, np.int64))
    marked.images[:, 0, 0, 0] = np.arange(230)
    loop = TrainingLoop(model, marked, 8, placement.strategy)
    loop.advance(loop.order(5, 0), EpochProgress(), loop.steps)
    assert {len(share) for share in seen} == {8 // devices}
    images = np.concatenate(seen)
    assert len(images) == len(set(images)) == 224


@pytest.mark.parametrize("precision", ["mixed_bfloat16", "mixed_float16"])
def test_half_precision_trains_about_like_single(dataset, precision):
    single, half = trained(dataset, 2, steps=10), trained(dataset, 2, precision=precision, steps=10)
    assert not np.array_equal(half[0], single[0])
    # Gradients, whose scale Adam hides.
    momenta = [[each for name, each in kind[1].items() if name.endswith("kernel_momentum")] for kind in (half, single)]
    for ours, theirs in zip(*momenta, strict=True):
        assert np.abs(ours).mean() == pytest.approx(np.abs(theirs).mean(), rel=0.1)
    np.testing.assert_allclose(half[0], single[0], atol=0.05)


def test_float16_scales_the_loss_and_skips_a_step_that_overflowed(dataset):
    """The scale starts at 2**15, is doubled after 2,000 good steps and halved after a bad one."""
    variables = trained(dataset, 2, precision="mixed_float16", steps=2)[1]
    assert [value for name, value in variables.items() if name.endswith("dynamic_scale")] == [2**15]

    settings = config(precision="mixed_float16", devices=DEVICES[2], batch_size=BATCH, seed=3)
    placement = place(settings)
    model = training_model(settings, placement)
    model.optimizer.dynamic_scale.assign(2.0**127)
    before = capture(model.variables)
    loop = TrainingLoop(model, dataset.train, BATCH, placement.strategy)
    loop.advance(loop.order(5, 0), EpochProgress(), 1)
    for name, value in capture(model.variables).items():
        np.testing.assert_array_equal(value, before[name])
    assert np.array(model.optimizer.dynamic_scale) == 2.0**126


def test_a_step_that_overflows_on_one_device_is_skipped_on_all(dataset):
    """The images of the first are black, so its gradients are smaller: it overflows at a higher scale."""
    settings = config(precision="mixed_float16", devices=DEVICES[2], batch_size=BATCH, seed=3)
    placement = place(settings)
    model = training_model(settings, placement)
    images = dataset.train.images[:BATCH].copy()
    images[epoch_order(5, 0, BATCH)[: BATCH // 2]] = 0
    loop = TrainingLoop(model, Split(images, dataset.train.labels[:BATCH]), BATCH, placement.strategy)
    skipped = []
    for scale in 2.0 ** np.arange(10, 30):
        model.optimizer.dynamic_scale.assign(scale)
        loop.advance(loop.order(5, 0), EpochProgress(), 1)
        assert all(np.isfinite(value).all() for value in capture(model.variables).values())
        skipped.append(float(np.array(model.optimizer.dynamic_scale)) < scale)
    assert skipped == sorted(skipped)
    assert set(skipped) == {False, True}


def test_xla_computes_the_same_training(dataset):
    plain, compiled = trained(dataset, 2, "weight_decay"), trained(dataset, 2, "weight_decay", xla=True)
    np.testing.assert_allclose(compiled[0], plain[0], atol=1e-4)


def test_xla_draws_masks_that_do_not_depend_on_the_devices_either(dataset):
    one, several = (trained(dataset, number, "dropout", xla=True, steps=20) for number in (1, 4))
    np.testing.assert_allclose(several[0], one[0], atol=1e-4)


def test_xla_with_batch_normalisation_over_devices_is_rejected(tmp_path):
    with pytest.raises(InvalidArgument, match="XLA cannot compile batch normalisation across several devices"):
        train(config(reg="batch_norm", devices=DEVICES[2], xla=True), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_run_resumes_on_other_devices_in_the_same_order(tmp_path):
    """Other devices do not make it another run: apart from round-off, it ends as if it had stayed."""
    alike = {"reg": "dropout", "learning_rate": 1e-4}
    for name in ("stayed", "moved"):
        train(config(**alike, epochs=2, devices=DEVICES[2]), tmp_path / name)
    assert_same_run(tmp_path / "stayed", tmp_path / "moved")
    train(config(**alike, epochs=4, devices=DEVICES[2]), tmp_path / "stayed", resume=True)
    train(config(**alike, epochs=4, strategy="one_device"), tmp_path / "moved", resume=True)
    stayed, moved = (StateStore(tmp_path / name).read() for name in ("stayed", "moved"))
    for name, value in stayed.variables.items():
        if not name.endswith(("_momentum", "_velocity")):
            np.testing.assert_allclose(moved.variables[name], value, atol=1e-5, err_msg=name)
    record = RunFolder(tmp_path / "moved").read_record()
    assert (record["placement"]["strategy"], record["placement"]["replicas"]) == ("one_device", 1)


def test_auto_resumes_on_as_many_cores_as_before(tmp_path, caplog, monkeypatch):
    """So the result is bit-identical, whatever the machine."""
    parts = []
    monkeypatch.setattr(
        "lenet_keras.training.loop.training_call",
        lambda model, number: parts.append(number) or training_call(model, number),
    )
    monkeypatch.setattr("lenet_keras.distribution.strategy.cores", lambda: 2)
    train(config(epochs=4), tmp_path / "whole")
    train(config(epochs=2), tmp_path / "resumed")
    monkeypatch.setattr("lenet_keras.distribution.strategy.cores", lambda: 1)
    caplog.set_level("INFO", "lenet_keras")
    train(config(epochs=4), tmp_path / "resumed", resume=True)
    assert any("each of 2 cores; as before" in message for message in caplog.messages)
    assert parts == [2, 2, 2]
    assert_same_run(tmp_path / "whole", tmp_path / "resumed")


def test_what_is_saved_is_plain_keras_in_float32(tmp_path):
    train(config(reg="dropout+batch_norm", epochs=1, devices=DEVICES[2], precision="mixed_bfloat16"), tmp_path / "run")
    model = keras.models.load_model(tmp_path / "run" / "model.keras")
    assert type(model.get_layer("c5_dropout")) is keras.layers.Dropout
    assert not model.get_layer("c1_norm").synchronized
    assert {layer.dtype_policy.name for layer in model.layers} == {"float32"}
    assert int(model.optimizer.iterations) == 400 // 64  # Keras alone can continue its training


@pytest.mark.parametrize("devices", [1, 2])
@pytest.mark.parametrize("precision", PRECISIONS)
def test_what_a_callback_saves_is_loaded_without_this_package_and_measures_the_same(
    dataset, tmp_path, precision, devices
):
    settings = config(reg="dropout+batch_norm+weight_decay", precision=precision, devices=DEVICES[devices])
    model = training_model(settings, place(settings))
    checkpoints = [
        keras.callbacks.ModelCheckpoint(tmp_path / "whole.keras"),
        keras.callbacks.ModelCheckpoint(tmp_path / "of.weights.h5", save_weights_only=True),
    ]
    keras.callbacks.CallbackList(checkpoints, model=model).on_epoch_end(0, {"loss": 0.5})
    described = zipfile.ZipFile(tmp_path / "whole.keras").read("config.json").decode()
    assert "lenet_keras" not in described

    images = dataset.test.images[:32].astype("float32")
    loaded = keras.saving.load_model(tmp_path / "whole.keras")
    np.testing.assert_array_equal(loaded(images), model(images))
    assert type(loaded.get_layer("c5_dropout")) is keras.layers.Dropout
    for ours, theirs in zip(loaded.variables, model.variables, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    plain = build_lenet5("dropout+batch_norm+weight_decay")
    plain.load_weights(tmp_path / "of.weights.h5")
    np.testing.assert_allclose(plain(images), model(images), atol=1e-4 if precision == "float32" else 0.1)


@pytest.mark.parametrize("precision", [name for name in PRECISIONS if name != "float32"])  # all else is in float32
def test_a_run_of_reduced_precision_is_saved_in_float32_exported_and_measured(tmp_path, precision):
    folder = RunFolder(tmp_path / "run")
    expected = train(config(epochs=1, batch_size=200, precision=precision), folder.path).metrics["test"]
    model = keras.models.load_model(folder.model_keras)
    assert {layer.dtype_policy.name for layer in model.layers} == {"float32"}
    optimizer = model.optimizer.inner_optimizer if precision == "mixed_float16" else model.optimizer
    assert int(np.array(optimizer.iterations)) == 2
    spec = dataset_spec("fashion_mnist_sample")
    write_saved_model(load_run_model(folder), spec.class_names, tmp_path / "exported")
    for source in (folder.path, tmp_path / "exported"):
        assert evaluate(source, spec.name)["test"] == pytest.approx(expected, rel=1e-5)
