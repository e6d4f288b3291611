"""The loop against the same training written out step by step."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from lenet_keras import TrainConfig
from lenet_keras.data import Split, load
from lenet_keras.data.order import epoch_order
from lenet_keras.distribution import place
from lenet_keras.errors import LenetKerasError
from lenet_keras.training.loop import STEPS_PER_CALL, TrainingLoop
from lenet_keras.training.predictor import BATCH_SIZE, Predictor
from lenet_keras.training.run import compiled_model


@pytest.fixture(scope="module")
def dataset():
    return load("fashion_mnist_sample")


def config(**settings):
    return TrainConfig(dataset="fashion_mnist_sample", **settings)


def run_epoch(model, split, batch_size, epoch=0, on_steps=lambda *_: None):
    loop = TrainingLoop(model, split, batch_size, place("one_device").strategy)
    return loop.run_epoch(seed=5, epoch=epoch, on_steps=on_steps)


@pytest.mark.parametrize("reg", ["none", "weight_decay", "batch_norm"])
def test_an_epoch_equals_plain_keras_steps(dataset, reg):
    settings = config(reg=reg, weight_decay=0.1, learning_rate=1e-3)
    ours, plain = compiled_model(settings, dataset), compiled_model(settings, dataset)
    means = run_epoch(ours, dataset.train, batch_size=48)

    order = epoch_order(5, 0, 500)
    cross_entropy = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
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
        np.testing.assert_allclose(ours_variable, plain_variable, rtol=1e-3, atol=2e-4)
    assert int(ours.optimizer.iterations) == 10


def test_an_epoch_sees_each_image_at_most_once_and_every_step_is_reported():
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

    calls = []
    run_epoch(model, marked, batch_size=4, on_steps=lambda start, stop, logs: calls.append((start, stop)))
    images = np.concatenate([batch[:, 0, 0, 0] for batch in seen])
    assert len(images) == len(set(images)) == 228
    assert calls == [(0, STEPS_PER_CALL), (STEPS_PER_CALL, 57)]


def test_the_seed_of_a_run_is_that_of_its_weights(dataset):
    first, second = (compiled_model(config(seed=seed), dataset).get_layer("c1").kernel for seed in (1, 2))
    assert not np.array_equal(first, second)


def test_epochs_come_in_different_orders(dataset):
    settings = config(learning_rate=1e-9)
    first, second = (run_epoch(compiled_model(settings, dataset), dataset.train, 64, epoch) for epoch in (0, 1))
    assert first["loss"] != second["loss"]  # other images fell to the batch that is left out


def test_a_loss_that_is_no_number_ends_the_training(dataset):
    model = compiled_model(config(), dataset)
    model.get_layer("logits").bias.assign(np.full(10, np.nan, np.float32))
    with pytest.raises(LenetKerasError, match=r"nan in epoch 3, step 1 to 7\."):
        run_epoch(model, dataset.train, batch_size=64, epoch=2)


def test_the_predictor_answers_for_every_image_in_order(dataset):
    model = compiled_model(config(reg="dropout"), dataset)
    images = np.concatenate([dataset.train.images, dataset.test.images[:7]])
    assert len(images) % BATCH_SIZE
    logits = Predictor(model)(images)
    np.testing.assert_allclose(logits, model(images.astype("float32"), training=False), rtol=1e-4, atol=1e-5)
