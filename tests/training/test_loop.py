"""The loop against the same training written out step by step."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from lenet_keras import TrainConfig
from lenet_keras.checkpoint import EpochProgress
from lenet_keras.data.arrays import Split, epoch_order
from lenet_keras.data.load import load
from lenet_keras.distribution.strategy import place
from lenet_keras.inference.measure import BATCH_SIZE, Predictor
from lenet_keras.inference.run_model import build_run_model
from lenet_keras.training.loop import TrainingLoop
from lenet_keras.training.replicas import compile_model, plain_model, replicated


@pytest.fixture(scope="module")
def dataset():
    return load("fashion_mnist_sample")


def config(**settings):
    return TrainConfig(dataset="fashion_mnist_sample", **settings)


def one_device():
    return place(config(strategy="one_device")).strategy


def run_epoch(model, split, batch_size, epoch=0, stops=()):
    """Train one epoch, in calls that also end at `stops`; return its means."""
    loop = TrainingLoop(model, split, batch_size, one_device())
    order, progress = loop.order(5, epoch), EpochProgress()
    while progress.step < loop.steps:
        progress = loop.advance(order, progress, next((s for s in stops if s > progress.step), loop.steps))
    return loop.means(progress)


# Batch normalisation is computed otherwise than in Keras, and where a gradient is no more than round-off, Adam makes a
# whole step of it; so that round-off is float64's.
@pytest.mark.parametrize(
    ("reg", "precision", "tolerance"),
    [("none", "float32", 1e-3), ("weight_decay", "float32", 1e-3), ("batch_norm", "float64", 1e-6)],
)
def test_an_epoch_equals_plain_keras_steps(dataset, reg, precision, tolerance):
    settings = config(reg=reg, weight_decay=0.1, learning_rate=1e-3)
    ours, plain = (replicated(build_run_model(settings), 1, precision) for _ in range(2))
    for model in (ours, plain):
        compile_model(model, settings)
    means = run_epoch(ours, dataset.train, batch_size=48)

    order = epoch_order(5, 0, 500)
    cross_entropy = keras.losses.SparseCategoricalCrossentropy(from_logits=True, dtype=precision)
    losses, correct = [], 0
    for step in range(500 // 48):
        chosen = order[step * 48 : (step + 1) * 48]
        labels = dataset.train.labels[chosen]
        with tf.GradientTape() as tape:
            logits = plain(dataset.train.images[chosen].astype("float32"), training=True)
            loss = cross_entropy(labels, logits)
            penalised = loss + sum(plain.losses)
        plain.optimizer.apply(tape.gradient(penalised, plain.trainable_variables), plain.trainable_variables)
        losses.append(float(loss))
        correct += int((np.argmax(logits, -1) == labels).sum())

    assert means["loss"] == pytest.approx(np.mean(losses), rel=1e-4)
    assert means["accuracy"] == pytest.approx(correct / (48 * 10), abs=2 / 480)  # ties of round-off
    for ours_variable, plain_variable in zip(ours.variables, plain.variables, strict=True):
        np.testing.assert_allclose(ours_variable, plain_variable, rtol=tolerance, atol=tolerance / 5)
    assert int(ours.optimizer.iterations) == 10


def test_an_epoch_sees_each_image_at_most_once():
    seen = []

    class Spy(keras.layers.Layer):
        def call(self, images):
            tf.py_function(lambda batch: seen.append(batch.numpy()), [images], [])
            return images

    model = keras.Sequential([keras.Input((28, 28, 1)), Spy(), keras.layers.Flatten(), keras.layers.Dense(10)])
    model.compile(optimizer=keras.optimizers.Adam(1e-4))
    model.optimizer.build(model.trainable_variables)
    marked = Split(np.zeros((230, 28, 28, 1), np.uint8), np.zeros(230, np.int64))
    marked.images[:, 0, 0, 0] = np.arange(230)

    run_epoch(model, marked, batch_size=4)
    images = np.concatenate([batch[:, 0, 0, 0] for batch in seen])
    assert len(images) == len(set(images)) == 228


def test_the_seed_of_a_run_is_the_seed_of_its_weights():
    first, second = (plain_model(config(seed=seed)).get_layer("c1").kernel for seed in (1, 2))
    assert not np.array_equal(first, second)


def test_epochs_have_different_orders(dataset):
    settings = config(learning_rate=1e-9)
    first, second = (run_epoch(plain_model(settings), dataset.train, 64, epoch) for epoch in (0, 1))
    assert first["loss"] != second["loss"]  # the dropped batch holds other images


@pytest.mark.parametrize("reg", ["dropout", "batch_norm"])
def test_an_epoch_is_bit_identical_however_it_is_divided_into_calls(dataset, reg):
    settings = config(reg=reg, learning_rate=1e-3)
    whole, cut = plain_model(settings), plain_model(settings)
    assert run_epoch(whole, dataset.train, 16) == run_epoch(cut, dataset.train, 16, stops=[1, 2, 9, 24])
    for ours, theirs in zip([*whole.variables, *whole.optimizer.variables], [*cut.variables, *cut.optimizer.variables],
                            strict=True):  # fmt: skip
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize(("batch_size", "expected"), [(1, 50), (64, 50), (100, 32), (500, 6)])
def test_a_call_takes_no_longer_with_larger_batches(dataset, batch_size, expected):
    """A signal is handled between two calls."""
    loop = TrainingLoop(plain_model(config()), dataset.train, batch_size, one_device())
    assert loop.steps_per_call == expected


def test_a_loss_of_nan_ends_the_epoch_at_its_step(dataset):
    model = plain_model(config())
    loop = TrainingLoop(model, dataset.train, 64, one_device())
    progress = loop.advance(loop.order(5, 0), EpochProgress(), 3)
    assert (progress.step, np.isfinite(progress.loss_sum)) == (3, True)
    model.get_layer("logits").bias.assign(np.full(10, np.nan, np.float32))
    progress = loop.advance(loop.order(5, 0), progress, loop.steps)
    assert (progress.step, np.isnan(progress.loss_sum)) == (4, True)


def test_the_predictor_computes_every_image_in_order(dataset):
    model = plain_model(config(reg="dropout"))
    images = np.concatenate([dataset.train.images, dataset.test.images[:7]])
    assert len(images) % BATCH_SIZE
    logits = Predictor(model)(images)
    np.testing.assert_allclose(logits, model(images.astype("float32"), training=False), rtol=1e-4, atol=1e-5)
